"""Files of measurements as people have them: each format is read as it is, and what looks wrong is named."""

import csv
import importlib.util
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from tutelage.bench.devices import ofa_table
from tutelage.bench.devices.imported import BLOCK_TABLE_NOISE, import_profile
from tutelage.bench.devices.measurements import read_measurements
from tutelage.bench.devices.profiles import load_latency_model
from tutelage.records import Arch, InputError
from tutelage.search.costs.counts import block_specs, count
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((224,))
NAME = SPACE.name
ARCHS = SPACE.decode(SPACE.random(12, np.random.default_rng(0)))
MS = (count(ARCHS).macs / 1e10 * 1000).tolist()  # 10 GMAC/s


def printed(arch: Arch) -> str:
    """As OFA and DyNAS-T print a subnet: a Python dict, `r` a list, no space."""
    data = arch.to_dict()
    return str({"wid": None, "ks": data["ks"], "e": data["e"], "d": data["d"], "r": [arch.r]})


def table(columns: dict[str, list[object]], delimiter: str = ",") -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()


JSONS = [json.dumps(arch.to_dict()) for arch in ARCHS]
FORMATS: dict[str, str] = {
    "dynas.csv": table({"Sub-network": [printed(a) for a in ARCHS], "Date": ["x"] * 12, "Latency (ms)": MS}),
    "semicolon.csv": table({"arch": JSONS, "ms": [f"{ms:.9f}".replace(".", ",") for ms in MS]}, ";"),
    "quantity.csv": table({"arch": JSONS, "Latency / ms": MS}),
    "tab.tsv": table({"arch": JSONS, "latency": MS}, "\t"),
    "seconds.csv": table({"arch": JSONS, "Latency (s)": [ms / 1000 for ms in MS]}),
    "micro.csv": table({"config": JSONS, "latency_us": [ms * 1000 for ms in MS]}),
    "units.csv": table({"arch": JSONS, "latency": [f"{ms * 1e3} us" for ms in MS[:6]] + [f"{ms} ms" for ms in MS[6:]]}),
    "meter.json": json.dumps([{"arch": arch, "latency": f"{ms} +- 0.31"} for arch, ms in zip(JSONS, MS, strict=True)]),
    "lines.jsonl": "\n".join(json.dumps({"arch": a.to_dict(), "ms": ms}) for a, ms in zip(ARCHS, MS, strict=True)),
    "mapping.json": json.dumps({printed(a): ms for a, ms in zip(ARCHS, MS, strict=True)}),
    "columns.csv": table(
        {"ks": [list(a.ks) for a in ARCHS], "e": [" ".join(f"{v:g}" for v in a.e) for a in ARCHS],
         "d": [list(a.d) for a in ARCHS], "r": [a.r for a in ARCHS], "ms": MS}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_read_as_it_is(name: str, tmp_path: Path):
    (tmp_path / name).write_text("\ufeff" + FORMATS[name] if name == "micro.csv" else FORMATS[name])
    archs, ms = read_measurements(tmp_path / name, NAME)
    assert archs == ARCHS
    np.testing.assert_allclose(ms, MS, rtol=1e-6)


def test_three_digits_behind_a_decimal_comma_are_no_thousands(tmp_path: Path):
    (tmp_path / "times.csv").write_text(table({"arch": JSONS, "ms": [f"{n},125" for n in range(1, 13)]}, ";"))
    assert read_measurements(tmp_path / "times.csv")[1] == [n + 0.125 for n in range(1, 13)]


def test_a_table_in_another_encoding_says_so(tmp_path: Path):
    (tmp_path / "times.csv").write_bytes(table({"arch": JSONS, "latency (µs)": MS}).encode("latin-1"))
    with pytest.raises(InputError, match=r"are not in UTF-8 .*: save the file as UTF-8"):
        read_measurements(tmp_path / "times.csv")


@pytest.mark.parametrize(
    "columns",
    [
        {"latencyMs": MS},
        {"latency_std_ms": [0.1] * 12, "latency_mean_ms": MS},
        {"latency": [1000 * ms for ms in MS], "Unit": ["us"] * 12},
        {"latency": [ms * (1000 if i % 2 else 1) for i, ms in enumerate(MS)], "unit": ["ms", "us"] * 6},
        {"ms": MS, "s7": [1.0] * 12},  # a phone, no column of seconds
    ],
)
def test_units_and_spreads_beside_the_times(columns: dict[str, list[object]], tmp_path: Path):
    (tmp_path / "times.csv").write_text(table({"arch": JSONS, **columns}))
    np.testing.assert_allclose(read_measurements(tmp_path / "times.csv", NAME)[1], MS)


def test_arrays_are_read_as_helps_tables_hold_them(tmp_path: Path):
    path = tmp_path / "gpus.npz"
    arrays = {key: np.array([getattr(arch, key) for arch in ARCHS]) for key in ("ks", "e", "d", "r")}
    np.savez(path, **arrays, a_ms=np.array(MS), b_ms=2 * np.array(MS))
    archs, ms = read_measurements(path, NAME, column="b_ms")
    assert archs == ARCHS
    np.testing.assert_allclose(ms, 2 * np.array(MS))
    with pytest.raises(InputError, match="2 columns of times, a_ms, b_ms: choose with --column a_ms"):
        read_measurements(path, NAME)
    np.savez(tmp_path / "short.npz", **arrays, ms=np.array(MS[:5]))
    with pytest.raises(InputError, match="array ms has not one entry for each of 12"):
        read_measurements(tmp_path / "short.npz", NAME)
    np.savez(tmp_path / "objects.npz", **arrays, ms=np.array(MS, dtype=object))
    with pytest.raises(InputError, match="not an npz of numbers"):
        read_measurements(tmp_path / "objects.npz", NAME)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("table.pkl", "x", "is a pickle, which may run code"),
        (
            "meter.json",
            '{"conv": {"id_0": {"shapes": [1], "latency": "1.0 +- 0.1"}}}',
            "measurement 1: no architecture with ks",
        ),
        ("nb201.csv", table({"arch": ["|nor_conv_3x3~0|"] * 6, "ms": [1.0] * 6}), "measurement 1: arch is not"),
        ("short.csv", "arch,ms,device\n" + '"{}",3\n', "measurement 1: it has not the 3 columns"),
        ("zero.csv", table({"Sub-network": [printed(a) for a in ARCHS], "Latency (ms)": [0] * 12}), "ms. is '0'"),
        ("word.csv", table({"arch": JSONS, "ms": ["3 parsec"] * 12}), "ms is '3 parsec': give a number"),
        (
            "bare.csv",
            table({"arch": [json.dumps({"d": [2] * 5, "ks": [3] * 20, "e": [3] * 20})] * 6, "ms": [1.0] * 6}),
            "measurement 1: the architecture has no 'r': add the resolution in pixels",
        ),
        ("acc.csv", table({"arch": JSONS, "accuracy": MS}), "must have the columns arch"),
        ("rate.csv", table({"arch": JSONS, "speed (images/s)": MS}), "must have the columns arch"),
        ("fps.csv", table({"arch": JSONS, "images per second": MS}), "must have the columns arch"),
        ("late.csv", table({"arch": JSONS, "latency (fps)": MS}), "must have the columns arch"),
        ("log.csv", table({"arch": JSONS, "log_latency_ms": MS}), "must have the columns arch"),
        ("unit.csv", table({"arch": JSONS, "latency": MS, "unit": ["min"] * 12}), "unit is 'min': give one of ms"),
        ("both.csv", table({"arch": JSONS, "latency_ms": MS, "unit": ["us"] * 12}), "unit is 'us' and the column"),
        ("twice.csv", table({"arch": JSONS, "ms": MS, "ms ": MS}), "has 2 columns 'ms': rename all but one"),
        ("many.csv", table({"arch": JSONS, "us": ["8,613"] * 12}), "us '8,613' may be 8613 or 8.613: write the num"),
        ("cut.npz", "PK\x03\x04", "is not an npz of numbers"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, text: str, message: str, tmp_path: Path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_measurements(tmp_path / name, NAME)
    assert "\n" not in str(caught.value)


@pytest.fixture
def import_csv(tmp_path: Path) -> Callable[..., float]:
    """Import a table of columns as a profile, and give the error that it states."""

    def make(columns: dict[str, list[object]], **options: object) -> float:
        (tmp_path / "times.csv").write_text(table(columns))
        arguments = {"runtime": "onnxruntime", "folder": tmp_path / "devices", "space": NAME, **options}
        profile = import_profile("box", tmp_path / "times.csv", **arguments)  # type: ignore[arg-type]
        assert profile.model_error is not None
        return profile.model_error

    return make


def test_repeats_of_a_network_do_not_lower_the_error(
    import_csv: Callable[..., float], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Twelve networks ten times each know as much as once each; their spread is the noise of a time."""
    rng = np.random.default_rng(3)
    ms = np.array(MS) * np.exp(rng.normal(0, 0.08, 12))
    once = import_csv({"arch": JSONS, "ms": ms.tolist()})
    repeated = np.repeat(ms, 10) * np.exp(rng.normal(0, 0.01, 120))
    with caplog.at_level(logging.WARNING):
        error = import_csv({"arch": np.repeat(JSONS, 10).tolist(), "ms": repeated.tolist()})
    assert error == pytest.approx(once, rel=0.15)
    assert "120 repeats of 12 networks: they are merged, one measurement differs by 1.0 %" in caplog.text
    profile_model = load_latency_model(*_box(tmp_path))
    assert (profile_model.num_nets, profile_model.num_measurements) == (12, 120)
    assert profile_model.repeat_noise == pytest.approx(0.01, rel=0.2)


def _box(folder: Path):  # type: ignore[no-untyped-def]
    from tutelage.bench.devices.profiles import read_profile

    return read_profile(folder / "devices" / "box.yaml"), folder / "devices"


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"device": ["a"] * 6 + ["b"] * 6}, {}, "mixes 2 values of device: a, b: .*--where device=a"),
        ({"batch_size": [8] * 12}, {}, "the file says batch 8, the profile would say 1: give --batch 8"),
        ({"num_threads": [4] * 12}, {"threads": 2}, "the file says threads 4, the profile would say 2"),
        ({"device": ["a"] * 6 + ["b"] * 6, "host": ["lab"] * 12}, {}, "mixes 2 values of device: a, b"),
        ({"Host name": ["lab"] * 12, "phone": ["a"] * 6 + ["b"] * 6}, {}, "mixes 2 values of phone"),
        ({"dtype": ["INT8"] * 12}, {}, "the file says dtype INT8, the profile would say fp32: give --precision int8"),
        ({"in_channels": [1] * 12}, {}, "the file says channels 1, the profile would say 3: give --channels 1"),
        ({"ms": [1000 / ms for ms in MS]}, {}, "larger networks take less time .rank correlation with MACs -"),
        ({"ms": [ms / 40 for ms in MS]}, {}, r"would be 4\.0e\+11 MACs a second for each of 1 threads, above"),
        ({"ms": [ms * (3 if i % 3 == 0 else 1) for i, ms in enumerate(MS)]}, {}, "4 of 12 measurements .*3 times"),
        ({"ms": [ms * (7 if i == 4 else 1) for i, ms in enumerate(MS)]}, {}, "measurement 5 is .* like it take"),
    ],
)
def test_what_looks_wrong_is_named_before_a_profile_is_written(
    import_csv: Callable[..., float], tmp_path: Path, columns: dict[str, list[object]], options, message: str
):
    with pytest.raises(InputError, match=message):
        import_csv({"arch": JSONS, "ms": MS, **columns}, **options)
    assert not (tmp_path / "devices").exists()


def test_one_device_of_several_is_chosen_by_its_column(import_csv: Callable[..., float], tmp_path: Path):
    both = {"arch": JSONS * 2, "device": ["a"] * 12 + ["b"] * 12, "ms": [*MS, *(3 * ms for ms in MS)]}
    import_csv(both, where=["device=b"])
    mean, _, _ = load_latency_model(*_box(tmp_path)).predict(ARCHS)
    np.testing.assert_allclose(mean, 3 * np.array(MS), rtol=0.05)
    with pytest.raises(InputError, match=r"--where device=c: no measurement .* has it; device is a, b"):
        import_csv(both, where=["device=c"])


def test_eight_threads_may_be_eight_times_as_fast(import_csv: Callable[..., float]):
    """What one thread cannot reach, and what is unusual, is distinguished from what several can."""
    assert import_csv({"arch": JSONS, "ms": [ms / 40 for ms in MS]}, threads=8) < 0.05


def _ofas_latency_table() -> ModuleType:
    """Load OFA's own reader of its tables; its package wants a downloader that is not needed here."""
    found = importlib.util.find_spec("ofa")
    assert found is not None
    assert found.origin is not None
    spec = importlib.util.spec_from_file_location(
        "ofa_latency_table", Path(found.origin).parent / "tutorial" / "latency_table.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_table_of_blocks_gives_what_ofa_sums_and_says_that_no_network_was_timed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    space = SPACES["ofa_mbv3_w1.2"].with_resolutions((160,))
    archs = [space.smallest(), space.largest(), *space.decode(space.random(300, np.random.default_rng(1)))]
    specs = {spec.key: spec for arch in archs for spec in block_specs(arch, 1000, 3)}
    lut: dict[str, dict[str, float]] = {}
    for spec in specs.values():
        for key in ofa_table.block_keys(spec):
            lut.setdefault(key, {"mean": 0.01 + (spec.macs / 1e7) / len(ofa_table.block_keys(spec)), "count": 10})
    path = tmp_path / "160_lookup_table.yaml"
    path.write_text(yaml.safe_dump(lut))
    read, ms = read_measurements(path, NAME)  # another space than the table's
    assert {arch.space for arch in read} == {"ofa_mbv3_w1.2"}
    assert "160_lookup_table.yaml is a table of ofa_mbv3_w1.2 at 160 px" in caplog.text
    latency_table = _ofas_latency_table()
    theirs = latency_table.LatencyEstimator.__new__(latency_table.LatencyEstimator)
    theirs.lut = lut
    for arch, value in list(zip(read, ms, strict=True))[:10]:
        spec = {"ks": arch.ks, "e": arch.e, "d": arch.d, "r": [arch.r]}
        assert value == pytest.approx(theirs.predict_network_latency_given_spec(spec))
    with caplog.at_level(logging.WARNING):
        profile = import_profile("note10", path, runtime="litert", folder=tmp_path, in_channels=1)
    assert profile.model_error is None
    assert "holds times of blocks, not of networks" in caplog.text
    mean, low, high = load_latency_model(profile, tmp_path).predict(read)
    np.testing.assert_allclose(mean, ms, rtol=0.03)
    assert ((high - low) / mean > 2 * 1.6 * BLOCK_TABLE_NOISE).all()
    broken = {key: value for key, value in lut.items() if "AvgPool" not in key}
    path.write_text(yaml.safe_dump(broken))
    with pytest.raises(InputError, match="has no block AvgPool2D-input"):
        read_measurements(path, "")


@pytest.mark.parametrize("side", [",224", "9" * 30, "-1"])
def test_a_table_of_blocks_at_no_resolution_is_refused(side: str, tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump({f"Conv-input:{side}x{side}x3-output:112x112x16": {"mean": 1.0}}))
    with pytest.raises(InputError, match="no first convolution"):
        read_measurements(path)
