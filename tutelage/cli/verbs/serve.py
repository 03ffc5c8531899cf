"""`tutelage leaderboard serve`: the page on this machine, or on a network for who has the token."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.options import DEFAULT_WORKSPACE, WorkspaceOption
from tutelage.records import InputError, bounded_text

if TYPE_CHECKING:
    from tutelage.leaderboard.serving.access import Access

_VARIABLE = "TUTELAGE_TOKEN"


def serve(
    host: Annotated[
        str, typer.Option(help="Address to serve on; 0.0.0.0 is all of this machine's, and asks for the token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 8642,
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File whose only line is the token that readers give; or set {_VARIABLE}."),
    ] = None,
    proxy_header: Annotated[
        str, typer.Option(help="Header in which a proxy that asks users who they are names them, e.g. X-Remote-User.")
    ] = "",
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address of that proxy: the header counts from it alone. Default: this machine."),
    ] = None,
    make_bundles: Annotated[
        bool,
        typer.Option(
            "--make-bundles",
            help="Make the bundle of a row for a reader who asks for one that no run left: one at a time, in bundles/.",
        ),
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Serve the page, read-only; it follows a run in progress. Ctrl-C ends it.

    On this machine only, unless --host names another address: readers then give a token, or come from a proxy. Of a
    board of more than 10,000 rows those on fronts and the newest are served, as `build` draws them.

    Example: [bold]tutelage leaderboard serve --host 0.0.0.0 --token-file token.txt[/]
    """
    from tutelage.leaderboard.serving.server import make_server
    from tutelage.live import state_of
    from tutelage.pipeline.curves import with_curves, with_learning
    from tutelage.pipeline.operations.board import open_board
    from tutelage.pipeline.operations.paired import page_verdicts
    from tutelage.pipeline.sharing.downloads import Downloads
    from tutelage.pipeline.sharing.requested import Bundler

    access = _access(token_file, proxy_header, proxy)
    access.check(host)
    board = open_board(workspace)
    downloads = Downloads(workspace, board.details, makes=make_bundles)
    server = make_server(
        board.place,
        host=host,
        port=port,
        access=access,
        decide=lambda rows: page_verdicts(rows, workspace),
        state=lambda: with_learning(state_of(workspace), workspace),
        detailed=lambda details: downloads.offered(with_curves(details, workspace)),
        find=downloads.find,
        make=Bundler(workspace, board.details).make if make_bundles else None,
    )
    bound, bound_port = str(server.server_address[0]), server.server_address[1]
    shown = socket.gethostname() if bound in ("0.0.0.0", "::") else f"[{bound}]" if ":" in bound else bound
    print(f"http://{shown}:{bound_port}/", flush=True)
    if access.token and shown != bound:
        print("note: nothing is encrypted: on an untrusted network put a TLS proxy before it", file=sys.stderr)
    try:
        server.serve_forever()
    finally:
        server.server_close()


def _access(token_file: Path | None, proxy_header: str, proxy: list[str] | None) -> Access:
    """Read who may read; the token is no option of the command line, which every user of a machine can list."""
    from tutelage.leaderboard.serving.access import Access

    if proxy and not proxy_header:
        raise InputError(f"--proxy {proxy[0]} has no effect without --proxy-header: name the header that it sets")
    token = os.environ.get(_VARIABLE, "").strip()
    if token_file is not None:
        try:
            token = bounded_text(token_file).strip()
        except UnicodeDecodeError as error:
            raise InputError(
                f"--token-file {token_file} is no text ({error.reason}): write the token into it"
            ) from None
        if not token:
            raise InputError(f"--token-file {token_file} is empty: write the token into it")
    return Access(token, proxy_header, tuple(proxy)) if proxy else Access(token, proxy_header)
