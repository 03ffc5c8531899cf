"""What rows call a data set that a reader of any such files lists: its own name, or the option `title`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tutelage.distill.data.assemble import outline
from tutelage.distill.data.containers.naming import own_name
from tutelage.distill.data.registry import DATASETS, load_dataset, open_images, request_for
from tutelage.records import InputError

NAMES = {
    "/x/beans": "beans",
    "/x/beans/": "beans",
    "/x/beans/data/train-00000-of-00001.parquet": "beans",
    "/x/beans/train-{000..146}.tar": "beans",
    "/x/beans.v1/images.zip": "beans.v1",
    "/x/beans/labels.csv.gz": "beans",
    "/x/beans_2024.zip": "beans_2024",
    "/x/Beans/.cache/0001.tar": "Beans",
    "/home/anna/images": "",
    "/home/anna/beans/images": "beans",
    "/scratch/anna/images": "",
    "/mnt/beans": "beans",
    "/mnt/beans/images": "",
    "/data/images": "",
    "/": "",
    "hf:owner/beans": "owner/beans",
    "hf:owner/beans@0123abc:large": "owner/beans:large",
}


@pytest.mark.parametrize(("path", "name"), NAMES.items())
def test_a_set_is_named_by_the_part_of_its_path_that_is_its_own(path: str, name: str) -> None:
    assert own_name(Path(path)) == name


def test_a_relative_path_is_named_by_the_folder_that_it_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beans").mkdir()
    monkeypatch.chdir(tmp_path / "beans")
    assert own_name(Path("images")) == own_name(Path()) == "beans"


@pytest.fixture
def beans(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("healthy", "rust"):
        folder = tmp_path / "beans" / "images" / name
        folder.mkdir(parents=True)
        for number in range(12):
            Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "beans" / "images"


def test_the_name_is_no_part_of_what_a_set_is(beans: Path) -> None:
    own = load_dataset("folder", path=beans, size=16)
    titled = load_dataset("folder", path=beans, size=16, options={"title": "Beans of 2024"})
    moved = load_dataset("folder", path=beans.rename(beans.parent.parent / "images"), size=16)
    assert [one.called for one in (own, titled)] == ["beans", "Beans of 2024"]
    assert moved.called not in ("", "beans")
    assert {one.name for one in (own, titled, moved)} == {"folder"}
    assert len({one.manifest for one in (own, titled, moved)}) == len({one.identity for one in (own, titled)}) == 1


def test_a_set_that_is_only_listed_has_the_same_name(beans: Path) -> None:
    request = request_for("folder", path=beans, size=16)
    assert outline(open_images(request), request).called == "beans"


@pytest.mark.parametrize("title", ["", "two\nlines", "x" * 101])
def test_a_title_that_is_no_name_is_refused(beans: Path, title: str) -> None:
    with pytest.raises(InputError, match="title"):
        load_dataset("folder", path=beans, size=16, options={"title": title})


def test_every_reader_of_any_files_names_the_set() -> None:
    called = {name for name, entry in DATASETS.items() if entry.called is not None}
    assert called == {"folder", "parquet", "table", "webdataset", "torchxrayvision"}
    request = request_for("torchxrayvision", path=Path("/x/y"), size=32, options={"collection": "openi"})
    assert request.title == "openi"
