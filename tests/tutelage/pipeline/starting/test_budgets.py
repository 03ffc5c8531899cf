"""`init` with a budget on memories or energy: the recipe holds it, and a search by that recipe keeps it."""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bench.boards.tiny import a_byte_a_nanosecond
from tutelage.bench.converters.litert import converter_ready
from tutelage.bench.micro.arena import Arena
from tutelage.pipeline.recipe import load_recipe
from tutelage.pipeline.stages import finalists
from tutelage.records import Arch
from tutelage.search.costs.counts import count

from ...command import Done, assert_exit, image_folder, tutelage

SPEAKER = Path(__file__).parents[3] / "bench" / "boards" / "speaker.py"
# What finalists' files for a target are made with.
needs_converter = pytest.mark.skipif(not converter_ready(), reason="LiteRT's converter was not set up")
# One epoch and a dozen subnets: no more is asked of these networks than to have a size.
QUICK = ("supernet.epochs=1", "search.evaluations=12", "search.strategy=random")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images and a workspace `w`, whose device `pixel` is a program with a counter: 1 mJ an inference."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    image_folder(tmp_path / "images")
    command = shlex.join([sys.executable, "-I", "-S", str(SPEAKER), '"energy": true'])
    a_byte_a_nanosecond(tmp_path / "w" / "devices", command=command)
    return tmp_path


def init(place: Path, *words: str) -> Done:
    out = ["--path", str(place / "images"), "--out", str(place / "r.yaml"), "-w", str(place / "w")]
    return tutelage("init", "--device", "pixel", "--minutes", "1", "--no-timing", "--force", *out, *words)


def searched(place: Path, *changes: str) -> dict[str, Any]:
    quick = [word for change in (*QUICK, *changes) for word in ("--set", change)]
    done = tutelage("search", "--recipe", str(place / "r.yaml"), "-w", str(place / "w"), "--json", *quick)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def costs(rows: list[dict[str, Any]], figure: str) -> list[float]:
    return [float(one) for one in getattr(count([Arch.from_dict(row["arch"]) for row in rows], 2, 1), figure)]


FLASH = 1 << 20  # bytes of stm32f746
FLASH_AND_RAM = ("--max-flash", "2MB", "--max-ram", "120KB", "--max-energy", "3mJ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "kept", "bounds"),
    [
        (
            FLASH_AND_RAM, {"max_size": "2MB", "max_ram": "120KB", "max_energy": "3mJ", "target": None},
            {"size_bytes": 2_000_000, "ram_bytes": 120_000},
        ),
        pytest.param(
            ("--target", "stm32f746"), {"target": "stm32f746", "max_ram": None},
            {"int8_file_bytes": FLASH, "int8_ram_bytes": 320 << 10}, marks=needs_converter,
        ),
        pytest.param(
            ("--target", "stm32f746", "--max-ram", "60KB"), {"target": "stm32f746", "max_ram": "60KB"},
            {"int8_file_bytes": FLASH, "int8_ram_bytes": 60_000}, marks=needs_converter,
        ),
    ],
)  # fmt: skip
def test_a_search_keeps_the_budgets_of_the_written_recipe(
    place: Path, words: tuple[str, ...], kept: dict[str, str | None], bounds: dict[str, int]
) -> None:
    done = init(place, *words)
    assert done.returncode == 0, done.stderr
    recipe = load_recipe(str(place / "r.yaml"))
    assert {name: getattr(recipe.search, name) for name in kept} == kept
    found = searched(place)
    assert found["bounds"] == bounds
    rows, winners = found["evaluated"], found["verified"]["winners"]
    keeps = [all(costs([row], figure)[0] <= bound for figure, bound in bounds.items()) for row in rows]
    assert keeps == [row["feasible"] for row in rows]
    assert 0 < sum(keeps) < len(rows)  # the largest subnet, at least, is beyond a bound
    assert winners
    for winner in winners:
        assert all(costs([winner], figure)[0] <= bound for figure, bound in bounds.items())
        assert winner["energy_mj"] == ({"pixel": pytest.approx(1.0)} if kept.get("max_energy") else {})
        if kept.get("target"):
            assert 0 < winner["file_bytes"]["stm32f746"] <= FLASH
            assert 0 < winner["arena_bytes"]["stm32f746"] <= bounds["int8_ram_bytes"]


def test_a_budget_or_target_that_cannot_be_is_one_line(place: Path) -> None:
    profile = place / "w" / "devices" / "pixel.yaml"
    mute = profile.read_text().replace('"energy": true', '"energy": false').replace("name: pixel", "name: mute")
    profile.with_name("mute.yaml").write_text(mute)
    refused: list[tuple[tuple[str, ...], int, str]] = [
        (("--max-ram", "1KB"), 3, "ram_bytes <= 1 kB: the smallest has 65.45 kB; raise --max-ram to at least 65.45kB"),
        (("--max-flash", "1KB"), 3, "size_bytes <= 1 kB: the smallest has"),
        (("--max-ram", "1GBB"), 2, "'1GBB'"),
        (("--max-ram", ""), 2, "''"),
        (("--max-energy", "5"), 2, "'5'"),
        (("--max-energy", "3mJ", "--device", "mute"), 2, "max_energy 3mJ: device mute has no energy counter"),
        (("--target", "pixel"), 2, "pixel is a device that is measured or predicted"),
        (("--target", "stm32f747"), 2, "no device named 'stm32f747'"),
        (("--device", "stm32f746"), 2, "give --target stm32f746"),
    ]
    for words, code, said in refused:
        assert_exit(init(place, *words), code, said)
        assert not (place / "r.yaml").exists(), words


@needs_converter
@pytest.mark.slow
def test_a_finalist_whose_very_file_is_too_large_for_the_target_gives_way(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = init(place, "--target", "stm32f746")
    assert done.returncode == 0, done.stderr
    first = searched(place, "search.winners=1")["verified"]["winners"][0]["arch"]
    arena = finalists.arena_of

    def larger(path: Path) -> Arena:  # than was counted of the architecture
        found = arena(path)
        return replace(found, tail=found.tail + FLASH) if path.name.startswith(name) else found

    name = Arch.from_dict(first).id
    monkeypatch.setattr(finalists, "arena_of", larger)
    verified = searched(place, "search.winners=1", "measure.samples=101")["verified"]
    assert verified["broke_budget"] == 1
    assert [winner["arch"] == first for winner in verified["winners"]] == [False]
