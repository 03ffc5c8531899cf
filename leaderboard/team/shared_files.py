"""Files that several machines share, in a folder, a bucket or wherever fsspec reaches, each named by its SHA-256.

`SharedFiles.put` and `SharedFiles.get` copy files there and back. A team's artifacts lie so, and a cluster's files.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from tutelage.files import sha256_of, whole_file, write_text
from tutelage.hub import endpoint, first_line
from tutelage.records import InputError

# Written at the start of every run: a place that cannot be written is said before hours of training, not after.
_MARK = "tutelage-artifacts.json"
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
# Whose errors are the place's, besides OSError: what fsspec's clients and their libraries raise.
_CLIENTS = ("fsspec", "s3fs", "gcsfs", "botocore", "aiobotocore", "aiohttp", "google", "huggingface_hub", "httpx")
# Clients that also log what they raise, whole tracebacks after half a minute of tries.
_TALKATIVE = ("gcsfs",)
_SECRETS = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class SharedFiles:
    """Files by content below a folder or an fsspec URL: "s3://bucket/prefix", "/mnt/team/files".

    setting: what names the URL, for messages; remedy: what to do where a file is missing.
    """

    def __init__(self, url: str, setting: str, remedy: str) -> None:
        """Open the client of a URL, which asks nothing of a server yet. InputError for a URL that none can read."""
        self._setting, self._remedy = setting, remedy
        self.name = _named(url, setting)
        with self._plain_errors("cannot be opened"):
            from fsspec.core import url_to_fs

            place = url if "://" in url else str(Path(url).expanduser().absolute())
            for client in _TALKATIVE:
                logging.getLogger(client).setLevel(logging.CRITICAL)
            own = {"endpoint": endpoint()} if url.startswith("hf://") else {}
            self._files, self._root = url_to_fs(place, **own)
        self.url = place
        self._is_local = "file" in self._files.protocol

    def check_writable(self) -> None:
        """Write the file that marks the place; InputError in one line where that is refused."""
        with self._plain_errors("cannot be written"):
            if self._is_local:
                Path(self._root).mkdir(parents=True, exist_ok=True)
                write_text(Path(self._root, _MARK), "{}\n")
            else:
                self._files.pipe_file(f"{self._root}/{_MARK}", b"{}\n")

    def put(self, file: Path, sha256: str) -> bool:
        """Copy a file to the place unless it is there, whole; say whether it was copied."""
        size = file.stat().st_size
        with self._plain_errors("cannot be written"):
            if self._size(sha256) == size:
                return False
            at = self._at(sha256)
            if self._is_local:
                Path(at).parent.mkdir(parents=True, exist_ok=True)
                with whole_file(Path(at)) as aside:
                    shutil.copyfile(file, aside)
            else:
                self._files.put_file(str(file), at)
        return True

    def get(self, sha256: str, to: Path, what: str) -> None:
        """Copy the file of a hash to a path, whole or not at all; `what` it is, for the message where it is not there.

        Raises InputError where it is missing, where its bytes have another hash, and where the place refuses.
        """
        if not _SHA256.fullmatch(sha256):
            raise InputError(f"{what}: {sha256[:80]!r} is no SHA-256")
        to.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(to) as aside:
            try:
                with self._plain_errors("cannot be read"):
                    self._files.get_file(self._at(sha256), str(aside))
            except FileNotFoundError:
                raise InputError(f"{what} is not in {self.name}: {self._remedy}") from None
            if sha256_of(aside) != sha256:
                raise InputError(
                    f"{what} has another content in {self.name} than its hash says: remove {sha256[:2]}/{sha256} "
                    f"there; {self._remedy}"
                )

    def write_text(self, name: str, text: str) -> None:
        """Write a small file that is named otherwise, whole or not at all."""
        with self._plain_errors("cannot be written"):
            if self._is_local:
                Path(self._root, name).parent.mkdir(parents=True, exist_ok=True)
                write_text(Path(self._root, name), text)
            else:
                self._files.pipe_file(f"{self._root}/{name}", text.encode())

    def read_text(self, name: str) -> str | None:
        """Read a small file; None where it is not there."""
        try:
            with self._plain_errors("cannot be read"):
                self._files.invalidate_cache()
                return bytes(self._files.cat_file(f"{self._root}/{name}")).decode()
        except FileNotFoundError:
            return None

    def remove(self, sha256: str | None = None) -> None:
        """Remove the file of a hash, or all that is here; what is not there is removed already."""
        with suppress(FileNotFoundError), self._plain_errors("cannot be read"):
            self._files.rm(self._root if sha256 is None else self._at(sha256), recursive=sha256 is None)

    def within(self, name: str) -> SharedFiles:
        """Give a part of these files, below a name."""
        return SharedFiles(f"{self.url.rstrip('/')}/{name}", self._setting, self._remedy)

    def _at(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def _size(self, sha256: str) -> int | None:
        try:
            return int(self._files.info(self._at(sha256))["size"])
        except FileNotFoundError:
            return None

    @contextmanager
    def _plain_errors(self, failed: str) -> Iterator[None]:
        """Turn what a client raises into one line without secrets; what is missing stays FileNotFoundError."""
        try:
            yield
        except ImportError as error:
            extra = _EXTRAS.get(self.name.partition("://")[0])
            remedy = f"pip install 'tutelage[{extra}]'" if extra else "install what fsspec needs for it"
            raise InputError(f"{self._setting}: {self.name} needs a client ({first_line(error)}): {remedy}") from None
        except FileNotFoundError as error:
            if failed == "cannot be read":
                raise
            raise InputError(
                f"{self._setting}: {self.name} {failed}, it is not there ({without_secrets(first_line(error))}): "
                "make it first"
            ) from None
        except Exception as error:
            if not isinstance(error, OSError | ValueError) and type(error).__module__.split(".")[0] not in _CLIENTS:
                raise
            remedy = "check the address, the network and the credentials that its client reads"
            raise InputError(
                f"{self._setting}: {self.name} {failed} ({without_secrets(first_line(error))}): {remedy}"
            ) from None


def _named(url: str, setting: str) -> str:
    """Give a URL as it may be printed; one that holds a secret is refused, since it is seen wherever it is set."""
    if "::" in url:
        raise InputError(f"{setting} chains several places by '::': name one folder or bucket")
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
        has_secret = parts.password is not None or bool(parts.query)
    except ValueError as error:
        raise InputError(f"{setting} is no address ({error}): write a folder, or s3://BUCKET/PREFIX") from None
    if has_secret:
        raise InputError(
            f"{setting} holds a password or options ({parts.scheme}://...): leave them out, and set what its client "
            "reads, such as AWS_PROFILE"
        )
    return url


def without_secrets(text: str) -> str:
    """Give what a client said without the values of the environment's variables that hold secrets."""
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRETS.search(name):
            text = text.replace(value, "...")
    return text
