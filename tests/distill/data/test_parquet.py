"""Parquet files as the hub stores image sets: splits, configurations, cards, memory, damage."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.distill.data.parquet_files import NAMES, feature, hub_layout, load, png, write
from tutelage.distill.data.check import check_path, recognise
from tutelage.distill.data.containers.rows import Rows
from tutelage.records import InputError


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
