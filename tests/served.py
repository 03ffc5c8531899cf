"""A server on 127.0.0.1: models and data sets as the Hugging Face hub serves them, and plain addresses."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_RESOLVE = re.compile(r"/(?P<datasets>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_API = re.compile(r"/api/datasets/(?P<name>[^/]+/[^/]+)(?:/(?P<kind>revision|tree)/(?P<revision>.+?))?")


@dataclass
class Served:
    """What is served, and what was asked for.

    files: of models, by repository and name, the same for every revision. folders: data sets, by repository and branch.
    plain: by path. breaks: paths whose next answers end after so many bytes.
    """

    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    folders: dict[tuple[str, str], Path] = field(default_factory=dict)
    plain: dict[str, bytes] = field(default_factory=dict)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, range
    url: str = ""

    def sent(self, name: str) -> list[str]:
        """List the ranges of the downloads of a file, the empty string for the whole."""
        return [span for method, path, span in self.requests if method == "GET" and path.endswith(name)]

    def commit(self, name: str, branch: str) -> str:
        """Give the commit of a branch of a data set."""
        return hashlib.sha1(f"{name}{branch}".encode()).hexdigest()

    def find(self, name: str, revision: str) -> tuple[str, Path] | None:
        """Give commit and folder of a data set's branch or commit."""
        for (one, branch), folder in self.folders.items():
            if one == name and revision in (branch, self.commit(name, branch)):
                return self.commit(name, branch), folder
        return None

    def content(self, path: str) -> tuple[bytes | None, dict[str, str]]:
        """Give what lies at a path, None where nothing does, and the hub's headers for it."""
        if found := _API.fullmatch(path):
            return self._described(found["name"], found["kind"], found["revision"] or "main")
        if (found := _RESOLVE.fullmatch(path)) is None:
            return self.plain.get(path), {}
        if not found["datasets"]:
            content, commit = self.files.get((found["name"], found["file"])), COMMIT
        else:
            commit, folder = self.find(found["name"], found["revision"]) or ("", None)
            file = None if folder is None else folder / found["file"]
            content = file.read_bytes() if file is not None and file.is_file() else None
        absent = {} if content is not None else {"X-Error-Code": "EntryNotFound"}
        return content, {"X-Repo-Commit": commit, **absent}

    def _described(self, name: str, kind: str | None, revision: str) -> tuple[bytes | None, dict[str, str]]:
        """Answer the hub's questions about a data set: its commit, or the files of a revision."""
        place = self.find(name, revision)
        if place is None:
            known = any(one == name for one, _ in self.folders)
            return None, {"X-Error-Code": "RevisionNotFound" if known else "RepoNotFound"}
        commit, folder = place
        files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
        answer: Any = {
            **{"id": name, "sha": commit, "private": False, "downloads": 0, "likes": 0, "tags": []},
            "siblings": [{"rfilename": inner} for inner in files],
        }
        if kind == "tree":
            answer = [
                {"type": "file", "path": inner, "size": file.stat().st_size, "oid": _digest(file.read_bytes())[:40]}
                for inner, file in files.items()
            ]
        return json.dumps(answer).encode(), {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def _answer(self, body: bool) -> None:
            path = unquote(self.path.partition("?")[0])
            span = self.headers.get("Range") or ""
            served.requests.append((self.command, path, span))
            content, headers = served.content(path)
            if content is None:
                self.send_response(404)
                for name, value in {**headers, "Content-Length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()
                return
            digest = _digest(content)
            start = int(span.removeprefix("bytes=").rstrip("-").partition("-")[0]) if span else 0
            if self.headers.get("If-Range") not in (None, f'"{digest}"'):
                start = 0
            part = content[start:]
            self.send_response(206 if start else 200)
            headers |= {"ETag": f'"{digest}"', "X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            headers |= {"Accept-Ranges": "bytes", "Content-Length": str(len(part))}
            headers |= {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if not body:
                return
            stops = served.breaks.get(path)
            if stops:
                part = part[: stops.pop(0)]
                self.close_connection = True
            self.wfile.write(part)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
