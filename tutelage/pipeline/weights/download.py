"""Download one file over HTTP: resumed where an earlier try broke off, with progress, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from tutelage.progress import Report

_BLOCK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30
_PROBE_SECONDS = 10


class DownloadError(Exception):
    """A download that did not come about or broke off, with the reason in one line."""


def download(url: str, target: Path, report: Report) -> Path:
    """Download into a file beside `target` and give it, whole; what an earlier try of this address left is continued.

    Progress is in MB. Raises DownloadError; what came so far is kept for the next try.
    """
    part = target.with_name(f".{target.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")
    version = part.with_suffix(".etag")
    held = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url)
    if held:
        request.add_header("Range", f"bytes={held}-")
        if version.is_file():  # a file that was replaced in the meantime is sent whole
            request.add_header("If-Range", version.read_text())
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            resumed = response.status == http.client.PARTIAL_CONTENT
            held = held if resumed else 0
            version.write_text(response.headers.get("ETag") or "")
            if not version.read_text():
                version.unlink()
            length = response.headers.get("Content-Length")
            total = None if length is None else held + int(length)
            with part.open("ab" if resumed else "wb") as file:
                while block := response.read(_BLOCK_BYTES):
                    file.write(block)
                    held += len(block)
                    _show(report, target.name, held, total)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # longer than the file is: what lies there is not of it
        raise DownloadError(_reason(error)) from error
    if total is not None and held < total:
        raise DownloadError(f"it broke off after {held} of {total} bytes; the next try goes on from there")
    version.unlink(missing_ok=True)
    return part


def reachable(url: str) -> str:
    """Say why a file cannot be downloaded, asking for its head alone; empty where it can."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_TIMEOUT_SECONDS):
            return ""
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _reason(error)


def silent_host(url: str) -> str:
    """Say why a host does not answer at all, at once; empty where it does, whatever it answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PROBE_SECONDS):
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _reason(error)


def _show(report: Report, name: str, held: int, total: int | None) -> None:
    if total is not None:
        whole = max(1, -(-total // _BLOCK_BYTES))
        report(f"download {name} (MB)", whole if held == total else min(held // _BLOCK_BYTES, whole - 1), whole)


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return (str(inner).strip() or type(error).__name__).splitlines()[0]
