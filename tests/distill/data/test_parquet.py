"""Parquet files as the hub stores image sets: columns, labels, splits, configurations, memory, damage."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tutelage.distill.data.check import check_path, recognise
from tutelage.distill.data.containers.rows import Rows
from tutelage.distill.data.dataset import Dataset
from tutelage.distill.data.registry import load_dataset
from tutelage.records import InputError

NAMES = ["cat", "dog", "ant"]  # not in alphabetical order


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def feature(names: Sequence[str] | None = NAMES, *, many: bool = False) -> dict[str, Any]:
    label = {"_type": "ClassLabel", "names": names} if names is not None else {"_type": "Value", "dtype": "string"}
    return {"_type": "Sequence", "feature": label} if many else label


def write(
    file: Path,
    labels: Sequence[Any],
    *,
    first: int = 0,
    features: dict[str, Any] | None = None,
    image: str = "image",
    plain: bool = False,
    more: dict[str, Sequence[Any]] | None = None,
    label: str = "label",
    group_rows: int = 7,
) -> Path:
    """Write a shard whose images are drawn from seeds `first`, `first + 1`, ..."""
    pictures = [png(first + number) for number in range(len(labels))]
    structs = pa.array([{"bytes": one, "path": f"{n}.png"} for n, one in enumerate(pictures)],
                       pa.struct([("bytes", pa.binary()), ("path", pa.string())]))  # fmt: skip
    columns = {image: pa.array(pictures, pa.binary()) if plain else structs, label: pa.array(labels)}
    table = pa.table({**columns, **{name: pa.array(values) for name, values in (more or {}).items()}})
    if features is not None:
        info = {"features": {image: {"_type": "Image"}, **features}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": info})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=group_rows)
    return file


def load(path: Path, **changes: Any) -> Dataset:
    return load_dataset("parquet", path=path, size=16, channels=3, **changes)


def hub_layout(root: Path, **changes: Any) -> Path:
    """Lay out a set of two train shards and a test shard in `data/`."""
    features = {"label": feature()}
    write(root / "data" / "train-00000-of-00002.parquet", [n % 3 for n in range(30)], features=features, **changes)
    write(
        root / "data" / "train-00001-of-00002.parquet",
        [n % 3 for n in range(18)],
        first=30,
        features=features,
        **changes,
    )
    write(
        root / "data" / "test-00000-of-00001.parquet",
        [n % 3 for n in range(12)],
        first=48,
        features=features,
        **changes,
    )
    return root


@pytest.mark.parametrize("changes", [{}, {"plain": True, "image": "img"}, {"group_rows": 1000}, {"group_rows": 1}])
def test_shards_are_read_by_split_with_the_names_of_the_schema(tmp_path: Path, changes: dict[str, Any]) -> None:
    data = load(hub_layout(tmp_path, **changes), workers=3)
    assert data.class_names == ("cat", "dog", "ant")
    assert [len(data.indices(split)) for split in ("train", "val", "test")] == [42, 6, 12]
    image = changes.get("image", "image")
    for name, pixels, label in zip(data.names, data.images, data.labels, strict=True):
        shard, row = str(name).split(f"/{image}/")
        seed = int(row) + {"data/train-00000-of-00002.parquet": 0, "data/train-00001-of-00002.parquet": 30}.get(
            shard, 48
        )
        expected = Image.open(io.BytesIO(png(seed))).resize((16, 16), Image.Resampling.BILINEAR)
        assert np.array_equal(pixels, np.asarray(expected))
        assert label == int(row) % 3
        assert (name in data.names[data.splits["test"]]) == shard.startswith("data/test")
    report = check_path(tmp_path)
    assert (report.ok, report.kind, report.num_images) == (True, "parquet", 60)
    assert report.split_counts == {"train": 48, "test": 12}


@pytest.mark.parametrize("word", ["validation", "val", "valid", "dev"])
def test_a_validation_split_is_kept_by_any_usual_name(tmp_path: Path, word: str) -> None:
    hub_layout(tmp_path)
    write(tmp_path / "data" / f"{word}-00000-of-00001.parquet", [0, 1, 2] * 3, first=90, features={"label": feature()})
    write(tmp_path / "data" / "extra-00000-of-00001.parquet", [0], first=99, features={"label": feature()})
    data = load(tmp_path)
    assert [len(data.indices(split)) for split in ("train", "val", "test")] == [48, 9, 12]
    assert "1 files of no train, validation or test split are left out, e.g. extra-00000" in data.notes[0]


def test_one_file_without_a_split_is_split_by_group(tmp_path: Path) -> None:
    patients = [f"p{n // 3}" for n in range(60)]
    file = write(tmp_path / "all.parquet", ["sick" if n % 2 else "well" for n in range(60)], more={"patient": patients})
    data = load(file, options={"group": "patient"})
    assert data.class_names == ("sick", "well")
    of = {split: set(data.groups[data.splits[split]]) for split in ("train", "val", "test")}
    assert of["train"].isdisjoint(of["test"] | of["val"])
    assert len(set(data.groups)) == 20
    with pytest.raises(InputError, match=r"all\.parquet has no column 'who'"):
        load(file, options={"group": "who"})


def test_lists_of_labels_are_multi_label(tmp_path: Path) -> None:
    lists = [[0, 2], [1], []] * 12
    file = write(tmp_path / "train.parquet", lists, features={"label": feature(many=True)})
    data = load(file)
    assert (data.multi_label, data.class_names) == (True, ("cat", "dog", "ant"))
    assert data.labels[:3].tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    words = write(tmp_path / "words.parquet", [["b", "a"], ["a"], ["c"]] * 12)
    assert load(words).labels[:3].tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    gap = write(tmp_path / "gap.parquet", [None, *lists], features={"label": feature(many=True)})
    with pytest.raises(InputError, match=r"gap\.parquet/image/0: .* holds None, which is not known"):
        load(gap)
    assert len(load(gap, options={"unknown": "drop"}).images) == 36
    odd = write(tmp_path / "odd.parquet", [[7], *lists], features={"label": feature(many=True)})
    with pytest.raises(InputError, match=r"label 7 has no name"):
        load(odd)


@pytest.mark.parametrize("gap", [-1, None])
def test_rows_that_are_not_labelled_are_refused_or_dropped_and_said(tmp_path: Path, gap: int | None) -> None:
    hub_layout(tmp_path)
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [gap] * 6 + [0, 1, 2] * 2, first=48,
          features={"label": feature()})  # fmt: skip
    with pytest.raises(InputError, match=r"test-00000-of-00001\.parquet/image/0: label '' is missing or NaN"):
        load(tmp_path)
    data = load(tmp_path, options={"unknown": "drop"})
    assert len(data.indices("test")) == 6
    assert "6 images whose label is not known are left out" in data.notes
    assert any("unknown to drop" in problem for problem in check_path(tmp_path).problems)


def test_a_column_of_labels_is_asked_for_where_there_are_two(tmp_path: Path) -> None:
    features = {"fine_label": feature(), "coarse_label": feature(["pet", "pest"])}
    more = {"coarse_label": [0, 0, 1] * 12}
    file = write(tmp_path / "train.parquet", [0, 1, 2] * 12, features=features, more=more, label="fine_label")
    with pytest.raises(InputError, match=r"the columns of labels fine_label, coarse_label: name one, data\.options"):
        load(file)
    assert load(file, options={"label": "coarse_label"}).class_names == ("pet", "pest")
    with pytest.raises(InputError, match="has no column 'colour'; it has fine_label, coarse_label"):
        load(file, options={"label": "colour"})


CARD = """---
configs:
- config_name: large
  data_files:
  - split: train
    path: big/part-*
  - split: test
    path: held/*
dataset_info:
- config_name: large
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': zero
          '1': one
          '10': ten
---
# A card
"""


def test_the_card_names_splits_and_classes_where_files_do_not(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)
    write(tmp_path / "big" / "part-0.parquet", [0, 1, 2] * 8)
    write(tmp_path / "held" / "x.parquet", [0, 2] * 4, first=24)
    data = load(tmp_path)
    assert data.class_names == ("zero", "one", "ten")
    assert (len(data.indices("test")), data.labels.max()) == (8, 2)
    (tmp_path / "README.md").unlink()
    infos = {"default": {"features": {"label": {"names": ["x", "y", "z"], "_type": "ClassLabel"}}}}
    (tmp_path / "dataset_infos.json").write_text(json.dumps(infos))
    assert load(tmp_path / "big" / "part-0.parquet").class_names == ("0", "1", "2")
    (tmp_path / "held" / "x.parquet").unlink()
    assert load(tmp_path).class_names == ("x", "y", "z")


def test_patterns_of_a_card_stand_for_no_folder_several_words_and_all_below(tmp_path: Path) -> None:
    """The hub reads `**/` as any number of folders, none included."""
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n" + "".join(
        f"  - split: {split}\n    path: {pattern}\n"
        for split, pattern in (("train", "'data/**/part-{a,b}.parquet'"), ("validation", "later/"), ("test", "held/*"))
    )
    (tmp_path / "README.md").write_text(f"{card}---\n")
    names = {"data/part-a": 12, "data/x/y/part-b": 9, "data/part-c": 3, "later/z": 6, "held/0": 6}
    for place, (name, num) in enumerate(names.items()):
        write(tmp_path / f"{name}.parquet", [n % 3 for n in range(num)], first=20 * place)
    data = load(tmp_path)
    assert [len(data.indices(split)) for split in ("train", "val", "test")] == [21, 6, 6]


def test_a_table_beside_class_folders_makes_them_no_parquet_set(tmp_path: Path) -> None:
    for name in ("sick", "well"):
        for number in range(9):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{number}.png").write_bytes(png(number))
    for place in ("meta/table.parquet", "index.parquet"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"file": ["sick/0.png"], "label": [0]}), tmp_path / place)
    assert recognise(tmp_path)[0].name == "folder"
    write(tmp_path / "meta" / "train.parquet", [0, 1] * 9)
    assert recognise(tmp_path)[0].name == "parquet"


def test_one_of_several_configurations_is_asked_for(tmp_path: Path) -> None:
    for config, names in (("small", ["a", "b", "c"]), ("full", NAMES)):
        write(tmp_path / config / "train-00000-of-00001.parquet", [0, 1, 2] * 8, features={"label": feature(names)})
    with pytest.raises(InputError, match=r"holds several configurations: it has 'full', 'small'; name one"):
        load(tmp_path)
    assert load(tmp_path, options={"config": "small"}).class_names == ("a", "b", "c")
    with pytest.raises(InputError, match="has no configuration 'tiny'"):
        load(tmp_path, options={"config": "tiny"})


def test_a_missing_shard_and_copies_across_splits(tmp_path: Path) -> None:
    hub_layout(tmp_path)
    features = {"label": feature()}
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [0, 1, 2] * 4, first=44, features=features)  # 4 of train
    data = load(tmp_path)
    assert "4 images whose group or exact copy stands in a later split were left out" in data.notes
    assert len(check_path(tmp_path).duplicates) == 4
    (tmp_path / "data" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(InputError, match=r"train-00000-of-00002\.parquet is not there: only 1 of 2 shards are"):
        load(tmp_path)


def _flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for place in range(200, len(content) - 600, 97):
        content[place] ^= 0xFF
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "empty": lambda file: file.write_bytes(b""),
    "of another format": lambda file: file.write_bytes(b"not a parquet file at all"),
    "of flipped bits": _flipped,
    "without rows": lambda file: write(file, []),
    "without images": lambda file: pq.write_table(pa.table({"label": [0, 1], "text": ["a", "b"]}), file),
    "without labels": lambda file: pq.write_table(pa.table({"image": [b"x", b"y"]}), file),
    "of structs as labels": lambda file: pq.write_table(pa.table({"image": [b"x"], "label": [{"a": 1}]}), file),
    "of codes beyond the names": lambda file: write(file, [0, 1, 9] * 5, features={"label": feature()}),
    "with bad metadata": lambda file: pq.write_table(
        pa.table({"image": [b"x"], "label": [1]}).replace_schema_metadata({"huggingface": "{["}), file
    ),
    "with a null picture": lambda file: pq.write_table(
        pa.table({"image": pa.array([None, *(png(n) for n in range(20))]), "label": [n % 2 for n in range(21)]}), file
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_one_line_in_the_check_and_in_a_run(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path / "train.parquet", [n % 3 for n in range(40)], features={"label": feature()})
    DAMAGE[kind](file)
    assert recognise(tmp_path)[0].name == "parquet"
    with pytest.raises(InputError) as refused:
        load(tmp_path)
    assert "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)
    problems = check_path(tmp_path).problems
    assert problems
    assert not any("\n" in problem for problem in problems)


def test_rows_are_decoded_once_in_order_and_any_order_is_right(tmp_path: Path) -> None:
    file = write(tmp_path / "x.parquet", [0] * 100, group_rows=40)
    rows = Rows(file, "image")
    rows.block_rows = 3
    started = 0
    real = rows._opened.iter_batches

    class Counted:
        schema_arrow = rows._opened.schema_arrow

        def iter_batches(self, *args: Any, **named: Any) -> Any:
            nonlocal started
            started += 1
            return real(*args, **named)

    rows._opened = Counted()
    assert [rows.read(row) for row in range(100)] == [png(n) for n in range(100)]
    assert started == 3  # one pass through each row group
    for row in (99, 0, 55, 3, 41, 40, 2):
        assert rows.read(row) == png(row)


def test_memory_does_not_grow_with_the_row_group(tmp_path: Path) -> None:
    """One row group of 96 MB of images, in pages of about 1 MB, is read within half of it by pyarrow's count."""
    noise = np.random.default_rng(0)
    values = [noise.bytes(250_000) for _ in range(384)]
    pq.write_table(pa.table({"image": values}), tmp_path / "x.parquet", row_group_size=384, write_batch_size=4)
    size = sum(map(len, values))
    seventh = values[7]
    del values
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    rows = Rows(tmp_path / "x.parquet", "image")
    most = 0
    for row in range(384):
        value = rows.read(row)
        assert row != 7 or value == seventh
        most = max(most, pool.bytes_allocated() - before)
    assert most < size / 2


def test_vectors_of_zeros_and_ones_are_columns_and_other_lists_are_labels(tmp_path: Path) -> None:
    hot = [[float(place == n % 3) for place in range(3)] for n in range(36)]
    data = load(write(tmp_path / "hot.parquet", hot, features={"label": feature(many=True)}))
    assert (data.multi_label, data.class_names, data.labels[:4].tolist()) == (
        False,
        ("cat", "dog", "ant"),
        [0, 1, 2, 0],
    )
    several = load(write(tmp_path / "several.parquet", [[1, 1, 0], [0, 0, 1], [0, 0, 0]] * 12))
    assert (several.class_names, several.labels[0].tolist()) == (("label 0", "label 1", "label 2"), [1, 1, 0])
    two = load(write(tmp_path / "two.parquet", [[1, 0], [0, 1]] * 18))
    assert (two.multi_label, two.labels[:2].tolist()) == (False, [0, 1])
    codes = load(write(tmp_path / "codes.parquet", [[10, 2], [2], [9]] * 12))
    assert (codes.class_names, codes.labels[0].tolist()) == (("2", "9", "10"), [1, 0, 1])
    for gap in (-1, None):
        unknown = write(tmp_path / "unknown.parquet", [[gap, 1, 0], *[[1, 0, 1], [0, 1, 1]] * 12])
        with pytest.raises(InputError, match=r"label 0 is .*labels must be 0 or 1; set the option unknown"):
            load(unknown)
        kept = load(unknown, options={"unknown": "ignore"})
        assert np.isnan(kept.labels[0]).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0.1, 0.9], [0.8, 0.2]], r"image/0: .* holds 0\.1 in a list: .*are they scores"),
        ([[{"box": 1}], [{"box": 2}]], r"image/0: .* holds lists of dict"),
        ([[1, -1, 2], [0, 2, 3]], r"image/0: .* which is not known"),
    ],
)
def test_lists_that_hold_no_labels_are_refused(tmp_path: Path, labels: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write(tmp_path / "train.parquet", labels * 12))


def test_files_must_name_the_same_classes(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1, 2] * 12, features={"label": feature()})
    test = write(tmp_path / "test.parquet", [0, 1] * 6, first=50, features={"label": feature(NAMES[:2])})
    assert load(tmp_path).class_names == ("cat", "dog", "ant")
    write(test, [0, 1] * 6, first=50, features={"label": feature(["dog", "cat"])})
    with pytest.raises(InputError, match=r"test\.parquet names the code 0 of label 'dog', and other files .* 'cat'"):
        load(tmp_path)
    write(test, [0, 1] * 6, first=50, features={"label": feature(["cat", "cat"])})
    with pytest.raises(InputError, match="names the code 1 of label 'cat'"):
        load(tmp_path)
    with pytest.raises(InputError, match="the name 'cat' of label stands for several codes"):
        load(test)


def test_a_test_split_without_a_column_of_labels_is_dropped_or_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1, 2] * 12, features={"label": feature()})
    write(tmp_path / "test.parquet", [0, 1] * 6, first=50, label="id")
    with pytest.raises(InputError, match=r"test\.parquet/image/0: label '' is missing"):
        load(tmp_path)
    assert len(load(tmp_path, options={"unknown": "drop"}).images) == 36


def test_a_missing_shard_with_a_digest_in_its_name_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002-0123456789abcdef.parquet", [0, 1, 2] * 12)
    with pytest.raises(InputError, match=r"train-00001-of-00002\.parquet is not there: only 1 of 2"):
        load(tmp_path)


def test_paths_without_bytes_are_one_line(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": f"{n}.png"} for n in range(9)], kind)
    pq.write_table(pa.table({"image": images, "label": [0, 1, 2] * 3}), tmp_path / "train.parquet")
    assert check_path(tmp_path).problems == (
        f"{tmp_path}/train.parquet holds no bytes of images in column 'image', only paths at most: embed them "
        "(datasets: embed_external_files=True), or list the files in a table (data.dataset: table)",
    )
