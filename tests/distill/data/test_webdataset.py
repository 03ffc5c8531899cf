"""WebDataset tars: samples by name, labels of cls, txt and json, splits by shard, damage."""

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tutelage.distill.data.check import check_path
from tutelage.distill.data.containers.shards import expand_braces
from tutelage.distill.data.dataset import Dataset
from tutelage.distill.data.registry import load_dataset
from tutelage.records import InputError


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


def shard(file: Path, samples: Mapping[str, Mapping[str, bytes]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for key, fields in samples.items():
            for extension, content in fields.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return file


def sample(number: int, kind: str) -> dict[str, bytes]:
    word = ("cat", "dog", "ant")[number % 3]
    labels = {
        "cls": {"cls": f"{number % 3}\n".encode()},
        "txt": {"txt": word.encode()},
        "json": {"json": json.dumps({"label": number % 3, "patient": f"p{number // 2}", "tags": [word, "x"]}).encode()},
    }
    return {"png": png(number), **labels[kind]}


def layout(root: Path, kind: str) -> Path:
    first = 0
    for name, num in (("train-000", 24), ("train-001", 15), ("val-000", 9), ("test-000", 12)):
        shard(root / f"{name}.tar", {f"{first + n:06d}": sample(first + n, kind) for n in range(num)})
        first += num
    return root


def load(path: Path, **options: Any) -> Dataset:
    return load_dataset("webdataset", path=path, size=12, options=options, workers=2)


@pytest.mark.parametrize(("kind", "classes"), [("cls", "012"), ("json", "012"), ("txt", ["ant", "cat", "dog"])])
def test_shards_by_split_with_their_labels(tmp_path: Path, kind: str, classes: Any) -> None:
    data = load(layout(tmp_path, kind))
    assert data.class_names == tuple(classes)
    assert [len(data.indices(split)) for split in ("train", "val", "test")] == [39, 9, 12]
    for name, pixels, label in zip(data.names, data.images, data.labels, strict=True):
        number = int(str(name).split("/")[1].removesuffix(".png"))
        expected = np.asarray(Image.open(io.BytesIO(png(number))))
        assert np.array_equal(pixels[..., 0], expected)
        word = ("cat", "dog", "ant")[number % 3]
        assert data.class_names[label] == (word if kind == "txt" else str(number % 3))
    report = check_path(tmp_path)
    assert (report.kind, report.ok, report.split_counts) == ("webdataset", True, {"train": 39, "val": 9, "test": 12})


def test_options_name_the_label_the_group_and_the_classes(tmp_path: Path) -> None:
    layout(tmp_path, "json")
    data = load(tmp_path, group="patient", class_names=["cat", "dog", "ant"])
    assert data.class_names == ("cat", "dog", "ant")
    assert len(set(data.groups.tolist())) == 30
    many = load(tmp_path, label="tags")
    assert (many.multi_label, many.class_names) == (True, ("ant", "cat", "dog", "x"))
    assert many.labels[:, 3].all()
    with pytest.raises(InputError, match=r"\.json has no key 'colour'; it has label, patient, tags"):
        load(tmp_path, label="colour")
    with pytest.raises(InputError, match="holds the label 2, and there are names for 0 to 1"):
        load(tmp_path, class_names=["cat", "dog"])


def test_names_with_braces_and_a_shard_that_is_not_there(tmp_path: Path) -> None:
    layout(tmp_path, "cls")
    data = load(tmp_path / "train-{000..001}.tar")
    assert len(data.images) == 39
    assert len(data.indices("test")) > 0  # split off, as of any set without one
    assert check_path(tmp_path / "train-{000..001}.tar").num_images == 39
    with pytest.raises(InputError, match=r"train-002\.tar is not there \(1 of 3 shards"):
        load(tmp_path / "train-{000..002}.tar")
    assert expand_braces("{a,b}-{08..11}") == [f"{one}-{n}" for one in "ab" for n in ("08", "09", "10", "11")]
    with pytest.raises(InputError, match="at most 100000 numbers"):
        expand_braces("{0..999999999}")


def test_what_is_no_sample_is_left_out_and_said(tmp_path: Path) -> None:
    samples: dict[str, dict[str, bytes]] = {f"{n:03d}": sample(n, "cls") for n in range(24)}
    samples["alone"] = {"cls": b"1"}
    samples["024"] = {"png": png(99)}
    file = shard(tmp_path / "x.tar", samples)
    with pytest.raises(InputError, match=r"x\.tar/024\.png: label '' is missing"):
        load(file)
    data = load(file, unknown="drop")
    assert len(data.images) == 24
    assert "1 samples without a picture are left out, e.g. x.tar/alone" in data.notes
    both = shard(
        tmp_path / "two.tar", {f"{n}": {**sample(n, "cls"), "mask.png": png(50 + n), "jpg": png(6)} for n in range(9)}
    )
    with pytest.raises(InputError, match=r"sample 0 of .*two\.tar has 2 pictures \(png, jpg\): name one"):
        load(both)
    assert set(load(both, image="mask.png").names[:1].tolist()) == {"two.tar/0.mask.png"}


DAMAGE: dict[str, Callable[[Path], object]] = {
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_bytes(b"no tar at all" * 100),
    "without pictures": lambda file: shard(file, {"a": {"cls": b"1"}}),
    "without labels": lambda file: shard(file, {"a": {"png": png(1)}}),
    "json that is none": lambda file: shard(file, {f"{n}": {"png": png(n), "json": b"{"} for n in range(9)}),
    "json that is a list": lambda file: shard(file, {f"{n}": {"png": png(n), "json": b"[1]"} for n in range(9)}),
    "json of an object as label": lambda file: shard(
        file, {f"{n}": {"png": png(n), "json": b'{"label": {"a": 1}}'} for n in range(9)}
    ),
    "a broken picture": lambda file: shard(file, {f"{n}": {"png": b"x", "cls": b"%d" % (n % 2)} for n in range(9)}),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_tar_is_one_line(tmp_path: Path, kind: str) -> None:
    file = layout(tmp_path, "cls") / "train-000.tar"
    DAMAGE[kind](file)
    with pytest.raises(InputError) as refused:
        load(file)
    assert "\n" not in str(refused.value)
    problems = check_path(file).problems
    assert problems
    assert not any("\n" in problem for problem in problems)
    if kind == "without labels":
        (problem,) = problems
        assert "1 pictures lie in no class folder, and no .cls, .json or .txt beside them names their" in problem
