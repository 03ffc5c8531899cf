"""Data sets of the hub, by the real client against a server on 127.0.0.1 that answers as the hub does."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.served import Served, serving
from tutelage.distill.data.check import check_path
from tutelage.distill.data.containers.hub import HubName, parse_hub_name
from tutelage.distill.data.registry import load_dataset
from tutelage.pipeline.sections import DataSection
from tutelage.records import InputError

from .test_parquet import feature, write
from .test_webdataset import layout as tars


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serve a hub, with an empty cache of the client's."""
    with serving(Served()) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield served


def _repository(root: Path, classes: list[str], first: int = 0) -> Path:
    features = {"label": feature(classes)}
    for split, start, num in (("train", 0, 30), ("test", 30, 9)):
        write(root / "data" / f"{split}-00000-of-00001.parquet", [n % 3 for n in range(num)], first=first + start,
              features=features)  # fmt: skip
    (root / "README.md").write_text("---\nlicense: mit\n---\n# A set\n")
    (root / "notes.bin").write_bytes(bytes(100))
    return root


def test_a_set_of_the_hub_is_fetched_read_and_known_by_its_commit(hub: Served, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    hub.folders[("me/pets", "main")] = _repository(tmp_path / "one", ["cat", "dog", "ant"])
    hub.folders[("me/pets", "v2")] = _repository(tmp_path / "two", ["cat", "dog", "ant"])
    data = load_dataset("hf:me/pets", size=12, channels=3)
    commit = hub.commit("me/pets", "main")
    assert data.class_names == ("cat", "dog", "ant")
    assert (len(data.images), len(data.indices("test"))) == (39, 9)
    assert f"read from the hub: me/pets@{commit}" in data.notes
    assert not any(path.endswith("/notes.bin") for _, path, _ in hub.requests)
    # Another revision with the same contents is another version, by its commit.
    other = load_dataset("parquet", path=Path("hf:me/pets@v2"), size=12, channels=3)
    assert (other.images == data.images).all()
    assert other.manifest != data.manifest
    plain = load_dataset("parquet", path=tmp_path / "one", size=12, channels=3)
    assert plain.manifest != data.manifest
    report = check_path(Path("hf:me/pets"))
    assert (report.ok, report.kind, report.num_images) == (True, "parquet", 39)
    # What is in the cache is read without the hub.
    del hub.folders[("me/pets", "main")]
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_dataset("hf:me/pets", size=12, channels=3).manifest == data.manifest
    assert not hub.requests


def test_a_download_that_is_stopped_goes_on(hub: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.folders[("me/pets", "main")] = _repository(tmp_path / "one", ["cat", "dog", "ant"])
    shard = "data/train-00000-of-00001.parquet"
    hub.breaks[f"/datasets/me/pets/resolve/{hub.commit('me/pets', 'main')}/{shard}"] = [2000]
    with suppress(InputError):  # versions of the client differ: one goes on by itself, another when it is asked again
        load_dataset("hf:me/pets", size=12)
    assert len(load_dataset("hf:me/pets", size=12).images) == 39
    assert hub.sent(shard) == ["", "bytes=2000-"]


def test_a_set_without_parquet_is_read_from_the_converted_branch(hub: Served, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "images.rar").write_bytes(b"x")
    hub.folders[("me/raw", "main")] = tmp_path / "raw"
    for config, classes in (("small", ["a", "b", "c"]), ("large", ["x", "y", "z"])):
        for split, start in (("train", 0), ("validation", 40)):
            write(tmp_path / "converted" / config / split / "0000.parquet", [n % 3 for n in range(18)], first=start,
                  features={"label": feature(classes)})  # fmt: skip
    with pytest.raises(InputError, match=r"(?s)me/raw"):
        load_dataset("hf:me/raw", size=12)
    hub.folders[("me/raw", "refs/convert/parquet")] = tmp_path / "converted"
    with pytest.raises(InputError, match="holds several configurations: it has 'large', 'small'"):
        load_dataset("hf:me/raw", size=12)
    data = load_dataset("hf:me/raw:large", size=12)
    assert data.class_names == ("x", "y", "z")
    assert len(data.indices("val")) == 18
    with pytest.raises(InputError, match="two configurations: leave one out"):
        load_dataset("hf:me/raw:large", size=12, options={"config": "small"})


MANY = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: plain/part-*
  - split: test
    path: plain/held-*
  - split: unlabelled
    path: plain/train-more-*
- config_name: fine
  data_files:
  - split: train
    path: fine/**
---
"""


def test_only_what_a_configuration_reads_is_downloaded(hub: Served, tmp_path: Path) -> None:
    root, features = tmp_path / "many", {"label": feature(["a", "b", "c"])}
    for place, (name, num) in enumerate((("plain/part-0", 18), ("plain/held-0", 9), ("plain/train-more-0", 9),
                                         ("fine/train", 18))):  # fmt: skip
        write(root / f"{name}.parquet", [n % 3 for n in range(num)], first=20 * place, features=features)
    (root / "fine" / "picture.jpg").write_bytes(bytes(100))
    (root / "README.md").write_text(MANY)
    hub.folders[("me/many", "main")] = root

    def fetched() -> set[str]:
        paths = [Path(path) for method, path, _ in hub.requests if method == "GET" and path.startswith("/datasets/")]
        return {path.name for path in paths} - {"README.md"}

    assert len(load_dataset("hf:me/many", size=12, options={"config": "fine"}).images) == 18
    assert fetched() == {"train.parquet"}
    data = load_dataset("hf:me/many", size=12)
    assert (len(data.images), len(data.indices("test"))) == (27, 9)  # what the card calls unlabelled is no train split
    assert "picture.jpg" not in fetched()


def test_webdataset_tars_of_the_hub(hub: Served, tmp_path: Path) -> None:
    hub.folders[("me/tars", "main")] = tars(tmp_path / "tars", "cls")
    assert len(load_dataset("webdataset", path=Path("hf:me/tars"), size=12).images) == 60
    assert check_path(Path("hf:me/tars")).kind == "webdataset"
    with pytest.raises(InputError, match=r"it holds \.tar files: say dataset: webdataset"):
        load_dataset("hf:me/tars", size=12)


def test_what_cannot_be_fetched_is_one_line_with_the_remedy(hub: Served, monkeypatch: pytest.MonkeyPatch,
                                                            tmp_path: Path) -> None:  # fmt: skip
    hub.folders[("me/pets", "main")] = _repository(tmp_path / "one", ["cat", "dog", "ant"])
    with pytest.raises(InputError, match=r"has no data set me/none, or shows it only to those with a token"):
        load_dataset("hf:me/none", size=12)
    with pytest.raises(InputError, match=r"has no revision 'v9' of data set me/pets"):
        load_dataset("hf:me/pets@v9", size=12)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        InputError, match=r"cannot be fetched from http://127\.0\.0\.1:9 \(.*hf download me/pets --repo-"
    ) as no:
        load_dataset("hf:me/pets", size=12)
    assert "\n" not in str(no.value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"set data\.path to DIR"):
        load_dataset("hf:me/pets", size=12)


def test_names_of_the_hub_and_recipes() -> None:
    assert parse_hub_name("hf:a/b@refs/pr/3:c.d") == HubName("a/b", "refs/pr/3", "c.d")
    assert parse_hub_name("hf:mnist") == HubName("mnist")
    with pytest.raises(InputError, match="is not hf:owner/name"):
        parse_hub_name("hf:a/b/c")
    section = DataSection.model_validate({"dataset": "hf:a/b@v1:c"})
    assert (section.dataset, section.path) == ("parquet", Path("hf:a/b@v1:c"))
    with pytest.raises(ValueError, match="say where the images lie: leave path out"):
        DataSection.model_validate({"dataset": "hf:a/b", "path": "x"})
