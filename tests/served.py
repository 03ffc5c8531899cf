"""A server on 127.0.0.1: models and data sets as the Hugging Face hub serves and takes them, and plain addresses."""

from __future__ import annotations

import base64
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
from urllib.parse import parse_qs, unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_RESOLVE = re.compile(r"/(?P<datasets>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_WRITE = re.compile(r"/api/datasets/(?P<name>[^/]+/[^/]+)/(?P<kind>preupload|commit|paths-info)/main")
_API = re.compile(r"/api/datasets/(?P<name>[^/]+/[^/]+)(?:/(?P<kind>revision|tree)/(?P<revision>.+?))?")


@dataclass
class Served:
    """What is served, and what was asked for.

    files: of models, by repository and name, the same for every revision. folders: data sets, by repository and branch.
    plain: by path. breaks: paths whose next answers end after so many bytes. taken: where data sets that clients make
    lie; None: nobody may. token: what who writes must show. commits: messages, and what each added.
    """

    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    folders: dict[tuple[str, str], Path] = field(default_factory=dict)
    plain: dict[str, bytes] = field(default_factory=dict)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, range
    url: str = ""
    taken: Path | None = None
    token: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    commits: list[tuple[str, list[str]]] = field(default_factory=list)

    def written(self, path: str, body: bytes, token: str) -> tuple[int, Any]:
        """Do what a client posts: make a data set, say how files are sent, take a commit; give status and answer."""
        if self.token and token != f"Bearer {self.token}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create" and self.taken is not None:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if (name, "main") in self.folders:
                return 409, {"error": "You already created this dataset repo", "url": f"{self.url}/datasets/{name}"}
            self.folders[name, "main"] = self.taken / name
            self.private[name] = asked.get("visibility") == "private" or bool(asked.get("private"))
            (self.taken / name).mkdir(parents=True)
            return 200, {"url": f"{self.url}/datasets/{name}", "name": name}
        found = _WRITE.fullmatch(path)
        place = None if found is None else self.find(found["name"], "main")
        if found is None or place is None:
            return 404, {"error": "Repository not found"}
        if found["kind"] == "preupload":
            files = json.loads(body)["files"]
            return 200, {
                "files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]
            }
        if found["kind"] == "paths-info":
            return 200, [_described_file(place[1], name) for name in _posted_paths(body) if (place[1] / name).exists()]
        lines = [json.loads(line) for line in body.splitlines()]
        added = []
        for one in lines[1:]:
            assert one["key"] == "file", one
            to = place[1] / one["value"]["path"]
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(base64.b64decode(one["value"]["content"]))
            added.append(one["value"]["path"])
        self.commits.append((lines[0]["value"]["summary"], added))
        return 200, {"commitUrl": f"{self.url}/datasets/{found['name']}/commit/{place[0]}", "commitOid": place[0]}

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
        place, below = self.find(name, revision), ""
        if place is None and kind == "tree":
            revision, _, below = revision.partition("/")
            place = self.find(name, revision)
        if place is None:
            known = any(one == name for one, _ in self.folders)
            return None, {"X-Error-Code": "RevisionNotFound" if known else "RepoNotFound"}
        commit, folder = place
        if below:
            if not (folder / below).is_dir():
                return None, {"X-Error-Code": "EntryNotFound"}
            inside = sorted(one.relative_to(folder).as_posix() for one in (folder / below).iterdir())
            return json.dumps([_described_file(folder, one) for one in inside]).encode(), {}
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


def _posted_paths(body: bytes) -> list[str]:
    """Read the paths of a question about files, as JSON or as a form."""
    if body.startswith(b"{"):
        return list(json.loads(body)["paths"])
    return parse_qs(body.decode())["paths"]


def _described_file(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": _digest(name.encode())[:40]}
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": _digest(path.read_bytes())[:40]}


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

        def do_POST(self) -> None:
            path = unquote(self.path.partition("?")[0])
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            served.requests.append((self.command, path, ""))
            status, answer = served.written(path, body, self.headers.get("Authorization") or "")
            content = json.dumps(answer).encode()
            self.send_response(status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
            headers |= {"X-Error-Code": "RepoNotFound"} if status == 404 else {}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

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
