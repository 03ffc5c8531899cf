"""`search --max-energy` on a device whose program reads a counter, as it is given on the command line."""

import json
import shlex
import sys
from functools import partial
from pathlib import Path

import pytest

from tutelage.bench.protocol.measure import measure
from tutelage.pipeline.stages import finalists

from ...tutelage.command import Done, assert_exit, tutelage
from .tiny import RECIPE, a_byte_a_nanosecond

SPEAKER = Path(__file__).with_name("speaker.py")


@pytest.mark.slow
def test_a_finalist_over_the_energy_budget_is_refused_and_the_next_one_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finalists, "measure", partial(measure, rounds=8))
    recipe, dear, place = tmp_path / "tiny.yaml", tmp_path / "dear", tmp_path / "w"
    recipe.write_text(json.dumps(RECIPE))
    dear.write_text("")

    def command(**said: object) -> str:
        return shlex.join([sys.executable, "-I", "-S", str(SPEAKER), json.dumps({**said, "dear": str(dear)})[1:-1]])

    def searched(*words: str) -> Done:
        space = ["--workspace", str(place), "--recipe", str(recipe)]
        return tutelage("search", "--device", "pixel", "--max-energy", "3mJ", *space, *words)

    a_byte_a_nanosecond(place / "devices", command=command(energy=False))
    assert_exit(searched(), 2, "max_energy 3mJ: device pixel has no energy counter", "leave the budget out")
    assert not list(place.glob("artifacts/*"))  # before anything was made

    profile = place / "devices" / "pixel.yaml"
    profile.write_text(profile.read_text().replace('"energy": false', '"energy": true'))
    done = searched("--json")
    assert done.returncode == 0, done.stderr
    (first,) = json.loads(done.stdout)["verified"]["winners"]
    assert first["energy_mj"] == {"pixel": pytest.approx(1.0)}

    dear.write_text(str(round(1e6 * first["p50_ms"]["pixel"])))  # the bytes of the winner's file
    again = ["--set", "measure.samples=101"]  # what was measured of it is known by now
    done = searched(*again)
    assert done.returncode == 0, done.stderr
    assert "finalists broke a budget (max_energy 3mJ) when measured again" in done.stdout
    assert "1.000" in done.stdout  # of the winner, in the table
    verified = json.loads((place / "runs" / RECIPE["name"] / "search-winners.json").read_text())
    (second,) = verified["winners"]
    assert second["arch"] != first["arch"]
    assert second["energy_mj"] == {"pixel": pytest.approx(1.0)}
    assert verified["broke_budget"] >= 1
    correction = verified["corrections"]["pixel"]  # of the latency model, by what was measured
    assert correction["num_nets"] == verified["finalists"]
    assert correction["low"] < correction["factor"] < correction["high"]
    assert f"Predictions for pixel are corrected: times {correction['factor']:.2f} by" in done.stdout
