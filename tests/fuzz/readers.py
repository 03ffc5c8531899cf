"""Every reader of what a user brings, with a small valid file that is damaged for it."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import yaml
from PIL import Image
from safetensors.numpy import save

from tutelage.bench.devices.measurements import read_measured
from tutelage.bench.devices.profiles import read_profile
from tutelage.bench.latency.model import LatencyModel
from tutelage.distill.data.images import decode
from tutelage.distill.data.registry import load_dataset
from tutelage.distill.teachers.weights import read_weights
from tutelage.leaderboard.filters import parse
from tutelage.leaderboard.store.importing import read_file
from tutelage.pipeline.operations.single_stage import input_shape, read_arch
from tutelage.pipeline.recipe import Recipe, load_recipe, with_changes
from tutelage.quant.entries import image_first
from tutelage.quant.intake import prepare_model
from tutelage.quantities import fraction_of, latency_budget, milliseconds, number, size_in_bytes
from tutelage.records import InputError, Row
from tutelage.search.spaces.presets import PRESETS
from tutelage.search.spaces.space import SPACES

from ..distill.data.test_dicom import write_dicom
from ..quant.test_intake import net
from .mutations import damaged_bytes, damaged_csv, damaged_json, damaged_text, damaged_yaml

RECIPE = """\
name: tiny
seed: 0
data: {dataset: table, path: t.csv, size: 32, val_fraction: 0.2, options: {label_column: label}}
teachers: [{name: resnet10t, epochs: 1, lr: 1.0e-3, options: {drop_rate: 0.1}}]
students: [{name: resnet10t, title: s, options: {drop_rate: 0.1}}]
supernet: {resolutions: [32], num_random: 1}
devices: [{name: here, runtime: onnxruntime, max_latency: 35%}]
search: {max_params: 4M, objectives: [error, params]}
distill: {method: kd, options: {beta: 2.0}}
baselines: [resnet18]
pruned: [{of: s, keep: 50%}]
"""
PROFILE = (
    "{name: damaged, runtime: onnxruntime, runtime_version: '1', threads: 1, batch: 1, resolutions: [32], spaces: [a]}"
)
FILTER = b'(auc>=0.9 and latency_p50_ms<5ms) or not model~"net" and role in (student, teacher) size_bytes<=3MB x'
CHANGE = b"distill.options={beta: 2.0, names: [a, 'b c']}"
QUANTITY = b"5.5e-3ms"

QUANTITIES = (milliseconds, number, size_in_bytes, fraction_of, latency_budget)


@dataclass(frozen=True)
class Reader:
    """`read` is given a damaged file's path (for `line`: its text); only InputError may come out of it."""

    name: str
    suffix: str
    seed: Callable[[Path], bytes]  # makes a valid file's bytes, in an empty folder
    damage: Callable[[Random, bytes], bytes]
    read: Callable[[Path], object]
    whole: bool = True  # the file is read as it is; a part of a large table is refused for what it lacks


def _archs() -> list[dict[str, object]]:
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((224,))
    return [arch.to_dict() for arch in space.decode(space.random(6, np.random.default_rng(0)))]


def _image(folder: Path, kind: str) -> bytes:
    out = io.BytesIO()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8))
    if kind == "GIF":
        picture = picture.convert("P")
    picture.save(out, kind)
    return out.getvalue()


def _table(folder: Path) -> bytes:
    lines = ["path,label,group,split"]
    for index in range(8):
        name = folder / f"{index}.png"
        Image.fromarray(np.full((4, 4), 30 * index, np.uint8)).save(name)
        lines.append(f"{name.name},{'ab'[index % 2]},patient {index},{('train', 'train', 'val', 'test')[index // 2]}")
    return "\n".join(lines).encode()


def _npz(folder: Path) -> bytes:
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = np.random.default_rng(len(split)).integers(0, 255, (4, 8, 8), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(4, dtype=np.uint8)[:, None] % 2
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _times_npz(folder: Path) -> bytes:
    archs, out = _archs(), io.BytesIO()
    np.savez(
        out, **{key: np.array([arch[key] for arch in archs]) for key in ("ks", "e", "d", "r")}, ms=np.arange(1.0, 7)
    )
    return out.getvalue()


def _times_csv(folder: Path) -> bytes:
    out = ["arch,latency_ms"]
    out += ['"' + json.dumps(arch).replace('"', '""') + f'",{index + 1}.5' for index, arch in enumerate(_archs())]
    return "\n".join(out).encode()


def _times_json(folder: Path) -> bytes:
    return json.dumps(
        [{"arch": arch, "latency": f"{place}.5 ms", "device": "a"} for place, arch in enumerate(_archs())]
    ).encode()


def _ofa_table(folder: Path) -> bytes:
    return yaml.safe_dump(
        {
            "Conv-input:224x224x3-output:112x112x16": {"mean": 1.0, "count": 10},
            "expanded_conv-input:112x112x16-output:112x112x16-expand:1-kernel:3-stride:1-idskip:1-se:0-hs:0": {
                "mean": 0.1
            },
        }
    ).encode()


def _rows_json(folder: Path) -> bytes:
    row = Row(
        model="m", role="student", dataset="d", auc=0.9, size_bytes=10, details={"gain": {"p": 0.1}, "maps": ["a"]}
    )
    return json.dumps([row.to_dict(), row.to_dict() | {"model": "n"}]).encode()


def _rows_csv(folder: Path) -> bytes:
    arch = json.dumps(PRESETS["OFA-595"].to_dict()).replace('"', '""')
    return f'model,role,dataset,auc,size_bytes,arch,seed\nm,student,d,0.9,10,"{arch}",0\nn,teacher,d,0.8,20,,1'.encode()


def _timm_csv(folder: Path) -> bytes:
    return b"model,top1,top5,param_count,img_size\nresnet18,71.5,90.1,11.69,224\nresnet50,80.4,95,25.56,224"


def _dicom(folder: Path) -> bytes:
    return write_dicom(folder / "seed.dcm", np.arange(64, dtype=np.uint16).reshape(8, 8) * 64).read_bytes()


def _onnx(folder: Path) -> bytes:
    return net(folder / "seed.onnx").read_bytes()


def _weights(folder: Path) -> bytes:
    return save({"conv.weight": np.zeros((2, 1, 3, 3), np.float32), "fc.bias": np.zeros(2, np.float32)})


def _pictures(folder: Path) -> list[tuple[str, bytes]]:
    return [("ab"[index % 2], _image(folder, "PNG") + bytes([index])) for index in range(8)]


def _parquet(folder: Path) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet

    rows = [{"image": {"bytes": data, "path": None}, "label": label} for label, data in _pictures(folder)]
    out = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def _tar(folder: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for index, (label, data) in enumerate(_pictures(folder)):
            for suffix, content in ((".png", data), (".cls", str("ab".index(label)).encode())):
                entry = tarfile.TarInfo(f"{index:03d}{suffix}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _zip(folder: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for index, (label, data) in enumerate(_pictures(folder)):
            archive.writestr(f"{label}/{index}.png", data)
    return out.getvalue()


def _read_set(name: str) -> Callable[[Path], object]:
    return lambda path: load_dataset(name, path=path, size=16, val_fraction=0.2, test_fraction=0.2)


def _read_onnx(path: Path) -> None:
    prepare_model(path, path.with_name("usable.onnx"))


def _read_for_bench(path: Path) -> None:
    input_shape(path, 8, several=True)
    image_first(path, "", path.parent)


def _read_table(path: Path) -> object:
    return load_dataset("table", path=path, size=16, val_fraction=0.2, test_fraction=0.2, skip_bad=True)


def _read_quantity(path: Path) -> None:
    refused = []
    for read in QUANTITIES:
        try:
            read(path.read_text(errors="replace"))
        except InputError as error:
            refused.append(error)
    if len(refused) == len(QUANTITIES):
        raise refused[0]


def _latency(folder: Path) -> bytes:
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((224,))
    archs = space.decode(space.random(12, np.random.default_rng(0)))
    path = folder / "seed.latency.json"
    LatencyModel.fit(archs, np.linspace(5, 9, 12)).save(path)
    return path.read_bytes()


BASE = Recipe(name="tiny")

READERS = (
    Reader("recipe", ".yaml", lambda _: RECIPE.encode(), damaged_yaml, lambda path: load_recipe(str(path))),
    Reader("set", ".txt", lambda _: CHANGE, damaged_text,
           lambda path: with_changes(BASE, [path.read_text(errors="replace")])),
    Reader("quantity", ".txt", lambda _: QUANTITY, damaged_text, _read_quantity),
    Reader("filter", ".txt", lambda _: FILTER, damaged_text, lambda path: parse(path.read_text(errors="replace"))),
    Reader("profile", ".yaml", lambda _: PROFILE.encode(), damaged_yaml, read_profile),
    Reader("latency model", ".json", _latency, damaged_json, LatencyModel.load),
    Reader("arch", ".json", lambda _: json.dumps(PRESETS["OFA-595"].to_dict()).encode(), damaged_json, read_arch),
    Reader("table", ".csv", _table, damaged_csv, _read_table),
    Reader("npz", ".npz", _npz, damaged_bytes, lambda path: load_dataset("medmnist", path=path, size=8)),
    Reader("parquet", ".parquet", _parquet, damaged_bytes, _read_set("parquet")),
    Reader("webdataset", ".tar", _tar, damaged_bytes, _read_set("webdataset")),
    Reader("zip", ".zip", _zip, damaged_bytes, _read_set("folder")),
    Reader("png", ".png", lambda folder: _image(folder, "PNG"), damaged_bytes, lambda path: decode(path, 16)),
    Reader("jpeg", ".jpg", lambda folder: _image(folder, "JPEG"), damaged_bytes, lambda path: decode(path, 16)),
    Reader("tiff", ".tif", lambda folder: _image(folder, "TIFF"), damaged_bytes, lambda path: decode(path, 16)),
    Reader("gif", ".gif", lambda folder: _image(folder, "GIF"), damaged_bytes, lambda path: decode(path, 16)),
    Reader("dicom", ".dcm", _dicom, damaged_bytes, lambda path: decode(path, 16)),
    Reader("onnx for quantize", ".onnx", _onnx, damaged_bytes, _read_onnx),
    Reader("onnx for bench", ".onnx", _onnx, damaged_bytes, _read_for_bench),
    Reader("weights", ".safetensors", _weights, damaged_bytes, read_weights),
    Reader("rows json", ".json", _rows_json, damaged_json, read_file),
    Reader("rows csv", ".csv", _rows_csv, damaged_csv, read_file),
    Reader("rows of timm", ".csv", _timm_csv, damaged_csv, read_file),
    Reader("times csv", ".csv", _times_csv, damaged_csv, read_measured),
    Reader("times json", ".json", _times_json, damaged_json, read_measured),
    Reader("times npz", ".npz", _times_npz, damaged_bytes, lambda path: read_measured(path, "ofa_mbv3_w1.0")),
    Reader("times of ofa", ".yaml", _ofa_table, damaged_yaml,
           lambda path: read_measured(path, "ofa_mbv3_w1.0"), whole=False),
)  # fmt: skip
