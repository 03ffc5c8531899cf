"""Folders and files that options name: refused in one line before any work, by one mechanism for all commands."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tutelage.cli import output
from tutelage.cli.app import app
from tutelage.cli.options import folder_of
from tutelage.cli.output_files import check_folder, check_output
from tutelage.records import InputError

from ..command import assert_exit, tutelage

NOWHERE = "/proc/none"  # no user can make or write anything there, root neither


def commands(group: Any = None, names: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Give every command by the words that call it, groups with options of their own included."""
    group = group if group is not None else typer.main.get_command(app)
    for name, command in group.commands.items():
        yield " ".join((*names, name)), command
        if hasattr(command, "commands"):
            yield from commands(command, (*names, name))


def options() -> list[tuple[str, str]]:
    """Give every command with each of its options, by its longest name."""
    return [
        (words, max(parameter.opts, key=len))
        for words, command in commands()
        for parameter in command.params
        if parameter.opts[0].startswith("-")
    ]


WORKSPACES = [(words, option) for words, option in options() if option in ("--workspace", "--into")]
# What is written when the work is done, by command and option: a line that is whole but for that path.
OUTPUTS = {
    ("init", "--out"): ("init --path {t} --device box --out {out}", ".yaml"),
    ("quantize", "--out"): ("quantize {m} --out {out}", ".onnx"),
    ("quantize", "--picture"): ("quantize {m} --out {t}/o.onnx --picture {out}", ".png"),
    ("bench", "--picture"): ("bench {m} --device d --layers --picture {out}", ".png"),
    ("explain", "--out"): ("explain --out {out}", ""),
    ("bundle make", "--out"): ("bundle row --out {out} -w {t}", ""),
    ("bundle make", "--coreml"): ("bundle row --out {t}/b --coreml {out} -w {t}", ".mlzip"),
    ("leaderboard build", "--out"): ("leaderboard build --out {out}", ".html"),
    ("leaderboard export", "--out"): ("leaderboard export --out {out}", ".csv"),
    ("leaderboard matrix", "--out"): ("leaderboard matrix --out {out}", ".csv"),
}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Give a folder, a model and a board; whatever opens a workspace to work in it fails the test."""

    def begun(*_: object) -> None:
        raise AssertionError("work was begun before the output was checked")

    (tmp_path / "m.onnx").write_text("no model")
    (tmp_path / "leaderboard.db").write_text("no store")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(output, "run_setting", begun)
    monkeypatch.setattr("tutelage.pipeline.operations.board.open_board", begun)
    return {"t": str(tmp_path), "m": str(tmp_path / "m.onnx")}


def test_all_commands_with_a_workspace_are_meant() -> None:
    assert {"device list", "leaderboard tag", "run", "workspace", "workspace prune"} <= {
        words for words, _ in WORKSPACES
    }
    assert ("reproduce", "--into") in WORKSPACES


@pytest.mark.parametrize(("words", "option"), WORKSPACES, ids=lambda word: word.replace(" ", "-"))
def test_a_workspace_is_a_folder_that_can_be_read(
    words: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before what else is missing on the line, and for the default folder, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    wrong = {"file": "'file' is a file", "file/deep": "file is a file", "": "'' is no path", "x" * 300: "name too long"}
    for given, said in wrong.items():
        assert_exit(tutelage(*words.split(), option, given), 2, option, said)
    (tmp_path / "tutelage-workspace").write_text("")
    (tmp_path / "tutelage-reproduced").write_text("")
    if words in ("device list", "workspace"):  # the others lack arguments
        assert_exit(tutelage(*words.split()), 2, "'tutelage-workspace' is a file")


def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: object) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    assert folder_of(str(tmp_path)) == tmp_path
    assert folder_of("~") == Path.home()
    monkeypatch.setattr(os, "scandir", refused)  # root, which tests may run as, may read all
    with pytest.raises(typer.BadParameter, match=r"cannot be read \(Permission denied\)"):
        folder_of(str(tmp_path))


@pytest.mark.parametrize("line", ["data check ''", "search --path ''", "init --device d --path ' '"])
def test_an_empty_path_is_not_taken_for_the_current_folder(line: str, places: dict[str, str]) -> None:
    assert_exit(tutelage(*shlex.split(line)), 2, "is no path")


def test_a_workspace_that_is_not_there_is_noted_where_profiles_are_listed(tmp_path: Path) -> None:
    done = tutelage("device", "list", "-w", str(tmp_path / "none"))
    assert done.returncode == 0
    assert f"note: there is no workspace {tmp_path / 'none'}" in done.stderr


def test_all_outputs_are_meant() -> None:
    written = ("--out", "--picture", "--coreml")
    assert {one for one in options() if one[1] in written} == set(OUTPUTS)


@pytest.mark.parametrize(("command", "option"), OUTPUTS, ids=lambda word: word.replace(" ", "-"))
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    command: str, option: str, places: dict[str, str]
) -> None:
    line, suffix = OUTPUTS[command, option]
    folder = Path(places["t"], f"folder{suffix}")
    folder.mkdir()
    (folder / "file").touch()
    wrong = [str(folder), f"{NOWHERE}/x{suffix}", places["m"] + f"/x{suffix}"]
    if suffix:
        wrong += [f"{places['t']}/missing/x{suffix}"] if command not in ("quantize",) else []
    if suffix and command not in ("leaderboard export", "bundle make"):
        wrong.append(f"{places['t']}/x.other")
    for given in wrong:
        if (command, given) == ("explain", str(folder)) or (option, given) == ("--coreml", str(folder)):
            continue  # it is filled, or refused once the row is known
        done = tutelage(*shlex.split(line.format(out=given, **places)))
        assert_exit(done, 2, option, given)
    assert not Path(NOWHERE).exists()


def test_a_place_that_can_be_written_passes(tmp_path: Path) -> None:
    check_output(tmp_path / "x.png", "--picture", suffixes=(".png",))
    check_output(tmp_path / "deep" / "x.png", "--picture", makes_folder=True)
    check_output(Path("/dev/stdout"), "--out")
    check_folder(tmp_path / "new" / "folder", "--out")
    with pytest.raises(InputError, match="there is no folder"):
        check_output(tmp_path / "deep" / "x.png", "--picture")
    assert not list(tmp_path.iterdir())
