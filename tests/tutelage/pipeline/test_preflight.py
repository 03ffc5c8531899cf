"""A recipe that cannot end: all of its faults, one line each, before any stage; and each of them alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import save_file

from tutelage.bench.devices.profiles import write_profile
from tutelage.distill.teachers.zoo import build_teacher
from tutelage.pipeline.preflight import open_checked
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.records import DeviceProfile, InputError
from tutelage.search.result import SearchResult

from ..command import assert_exit, image_folder, tutelage

NET = "resnet10t"
USUAL: dict[str, Any] = {
    "name": "tiny",
    "data": {"dataset": "phantom", "size": 32, "limit": 96},
    "teachers": [{"name": NET, "epochs": 1, "batch_size": 8, "warmup_epochs": 0}],
    "students": [{"name": NET, "options": {"stem_width": 16}, "title": "small"}],
    "devices": [{"name": "here"}],
    "distill": {"epochs": 1, "batch_size": 8, "warmup_epochs": 0},
}


def refused(tmp_path: Path, recipe: dict[str, Any], *more: str, code: int = 2) -> list[str]:
    """Run a recipe that must be refused; give its lines, without `tutelage: `, when no stage was begun."""
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    done = tutelage("run", str(file), "-w", str(tmp_path / "w"), *more)
    assert done.returncode == code, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "w" / "artifacts").exists(), "a stage was begun"
    return [line.removeprefix("tutelage: ") for line in done.stderr.splitlines() if line.startswith("tutelage: ")]


def test_six_faults_are_six_lines(tmp_path: Path) -> None:
    recipe = USUAL | {
        "data": {"dataset": "folder", "path": str(tmp_path / "absent"), "size": 32},
        "teachers": [{"name": NET, "weights": str(tmp_path / "absent.pth"), "epochs": 0}],
        "students": [{"name": "resnett10"}],
        "devices": [{"name": "here", "runtime": "onnxruntim"}],
        "quantize": {"method": "minmaxx"},
        "distill": {"method": "magic"},
    }
    lines = refused(tmp_path, recipe)
    words = ("minmaxx", f"no data at {tmp_path}/absent", "resnett10", "'magic'", "absent.pth", "onnxruntim")
    assert len(lines) == len(words), lines
    for word in words:
        assert sum(word in line for line in lines) == 1, (word, lines)


def five_classes(tmp_path: Path) -> str:
    path = tmp_path / "five.safetensors"
    save_file(build_teacher(NET, 5, 1, resolution=32).state_dict(), path)
    return str(path)


def one_patient(tmp_path: Path, splits: list[str] | None = None) -> dict[str, Any]:
    """Write a table of 24 images of three patients; give the data section that reads it."""
    root = image_folder(tmp_path / "images")
    rows = [
        [str(path), path.parent.name, f"patient {number % 3}", "" if splits is None else splits[number % len(splits)]]
        for number, path in enumerate(sorted(root.rglob("*.png")))
    ]
    lines = [",".join(row) for row in [["path", "label", "group", "split"], *rows]]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines))
    return {"dataset": "table", "path": str(table), "size": 32}


def replaying(case: str, tmp_path: Path) -> dict[str, Any]:
    """Give the sections of a search that replays an earlier one of two parameters less."""
    file, parallel = tmp_path / "search.json", 1 if case == "replay without parallel" else 2
    if case != "replay of nothing":
        order = () if case == "replay without order" else (1, 0)
        SearchResult(
            space="ofa_mbv3_w1.0", strategy="default", seed=0, evaluations=2, objectives={"error": "min"},
            cheap={"error": False}, bounds={}, order=order,
        ).to_json(file)  # fmt: skip
    search = {"parallel": parallel, "replay": str(file), "objectives": ["error", "params"], "max_params": "9M"}
    return {"students": [], "supernet": {"batch_size": 8}, "search": search}


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no device", "has no device"),
        ("absent table", "no data at"),
        ("folds", "folds: 5 of data set table are more than its 3 groups"),
        ("one split", "split 'train' of data set table holds no image"),
        ("batch", "distill.batch_size is 512, and the train split holds"),
        (
            "parts",
            "search.images is 9, and the val split holds 16 images, too few to evaluate a subnet on others again",
        ),
        ("other classes", "has a classifier of 5 classes, these images have 4"),
        ("size", "cannot see images of 16 px"),
        ("profile", "the recipe asks for threads 2, the profile has 1"),
        ("runtime", "runtime ncnn is not installed: pip install 'tutelage[ncnn]'"),
        ("pruned", "pruned.of = 'nobody'"),
        ("supernet", "unknown space 'nothing'"),
        ("baseline", "'no-such-net'"),
        ("budget of a named student", "max_latency bounds a search"),
        ("scheme", "quantize.method percentile makes .onnx files"),
        ("replay of nothing", "search.replay: FOLDER/search.json cannot be read"),
        ("replay without parallel", "replay is of a search with several evaluations at once: give its parallel, too"),
        ("replay without order", "holds no order: it is of a search with search.parallel: 1"),
        (
            "replay of another",
            "search.replay: FOLDER/search.json is of another search (the replayed search has bounds {}",
        ),
    ],
)
def test_one_fault_is_refused_before_any_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, words: str
) -> None:
    recipe: dict[str, Any] = dict(USUAL)
    match case:
        case "no device":
            recipe["devices"] = []
        case "absent table":
            recipe["data"] = {"dataset": "table", "path": str(tmp_path / "absent.csv")}
        case "folds":
            recipe["data"] = one_patient(tmp_path) | {"fold": 0}
        case "one split":
            recipe["data"] = one_patient(tmp_path, ["test"])
        case "batch":
            recipe["distill"] = {"batch_size": 512}
        case "parts":
            recipe |= {"students": [], "supernet": {"batch_size": 8}, "search": {"images": 9}}
        case "other classes":
            recipe["teachers"] = [{"name": NET, "weights": five_classes(tmp_path), "epochs": 0}]
        case "size":
            recipe["data"] = USUAL["data"] | {"size": 16}
            recipe["teachers"] = [USUAL["teachers"][0] | {"name": "dla34"}]
        case "profile":
            write_profile(DeviceProfile(name="here", runtime="onnxruntime"), tmp_path / "w" / "devices")
            recipe["devices"] = [{"name": "here", "threads": 2}]
        case "runtime":
            monkeypatch.setattr("tutelage.bench.runtimes.entry.Runtime.installed", lambda self: self.name != "ncnn")
            recipe["devices"] = [{"name": "there", "runtime": "ncnn"}]
        case "pruned":
            recipe["pruned"] = [{"of": "nobody"}]
        case "supernet":
            recipe |= {"students": [], "supernet": {"space": "nothing", "batch_size": 8}}
        case "baseline":
            recipe["baselines"] = ["no-such-net"]
        case "budget of a named student":
            recipe["devices"] = [{"name": "here", "max_latency": "3ms"}]
        case "scheme":
            recipe |= {"devices": [{"name": "here", "runtime": "openvino"}], "quantize": {"method": "percentile"}}
        case _ if case.startswith("replay"):
            recipe |= replaying(case, tmp_path)
    (line,) = refused(tmp_path, recipe)
    assert words.replace("FOLDER", str(tmp_path)) in line


def test_a_budget_that_nothing_meets_is_the_only_fault_or_one_of_several(tmp_path: Path) -> None:
    searched = USUAL | {
        "students": [],
        "supernet": {"space": "ofa_mbv3_w1.0", "batch_size": 8},
        "search": {"max_params": "1k"},
    }
    (line,) = refused(tmp_path, searched, code=3)
    assert "params" in line
    lines = refused(tmp_path, searched | {"teachers": [{"name": NET, "weights": "absent.pth"}]})
    assert len(lines) == 2
    assert "absent.pth" in lines[0]


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/none", "mysql://a/b"])
def test_a_store_that_cannot_be_reached_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("TUTELAGE_STORE", url)
    lines = refused(tmp_path, USUAL | {"baselines": ["no-such-net"]})
    assert len(lines) == 2
    assert "postgresql://" in lines[1]
    assert "no-such-net" in lines[0]


def test_a_workspace_that_cannot_be_written_is_a_fault_among_others(tmp_path: Path) -> None:
    (tmp_path / "w").symlink_to("/proc")  # a folder in which nobody can make a file
    lines = refused(tmp_path, USUAL | {"baselines": ["no-such-net"]})
    assert len(lines) == 2
    assert "cannot be written" in lines[0]


def test_two_wrong_values_and_a_wrong_change_are_three_lines(tmp_path: Path) -> None:
    lines = refused(tmp_path, USUAL | {"seed": -1, "seeds": 0}, "--set", "teachers.nobody.epochs=3")
    assert [sum(word in line for line in lines) for word in ("nobody", "seed = -1", "seeds = 0")] == [1, 1, 1]
    assert len(lines) == 3
    assert not (tmp_path / "w").exists()


def opened(tmp_path: Path, **changes: Any) -> None:
    open_checked(Recipe.model_validate(USUAL | changes), Workspace(tmp_path / "w"), silent, 1, "run")


def test_a_profile_at_int8_that_nothing_weighs_is_no_fault(tmp_path: Path) -> None:
    write_profile(DeviceProfile(name="here-int8", runtime="onnxruntime", precision="int8"), tmp_path / "w" / "devices")
    searched: dict[str, Any] = {"students": [], "supernet": {"batch_size": 8}}
    opened(tmp_path, **searched)
    weighs = {"search": {"objectives": ["error", "latency_ms@here:int8"]}}
    with pytest.raises(InputError, match="here-int8 was measured without a latency model"):
        opened(tmp_path, **searched, **weighs)


def test_one_architecture_is_distilled_by_no_supernet(tmp_path: Path) -> None:
    alone = Recipe.model_validate({**USUAL, "students": [], "distill": {**USUAL["distill"], "supernet_teacher": True}})
    with pytest.raises(InputError, match="--arch trains one architecture without one"):
        open_checked(alone, Workspace(tmp_path / "w"), silent, 1, "arch")


def test_a_schedule_that_nothing_is_trained_on_needs_no_whole_batch(tmp_path: Path) -> None:
    weights = tmp_path / "four.safetensors"
    save_file(build_teacher(NET, 4, 1, resolution=32).state_dict(), weights)
    as_it_is = {"teachers": [], "students": [{"name": NET, "weights": str(weights), "epochs": 0}]}
    large = {"distill": {"batch_size": 512}}
    opened(tmp_path, **as_it_is, **large)
    for more in ({"baselines": [{"name": "resnet18"}]}, {"quantize": {"qat_epochs": 1}}):
        with pytest.raises(InputError, match=r"distill\.batch_size is 512"):
            opened(tmp_path, **as_it_is, **large, **more)


def test_a_batch_holds_two_images_of_each_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.raises(InputError) as error:
        opened(tmp_path)
    lines = str(error.value).splitlines()
    assert [line.partition(".batch_size is 8, ")[0] for line in lines] == [f"teachers.{NET}", "distill"]
    assert all("two images in each of 5 processes: give at least 10" in line for line in lines)
    monkeypatch.setenv("WORLD_SIZE", "4")
    opened(tmp_path)


def test_networks_are_not_compiled_in_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path, compile=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"^compile: true in 2 processes is not supported: set compile to false, or"):
        opened(tmp_path, compile=True)


def test_a_dry_run_plans_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(USUAL))
    here = ("run", str(file), "-w", str(tmp_path / "w"), "--dry-run")
    done = tutelage(*here, "--json")
    assert done.returncode == 0, done.stderr
    stages = json.loads(done.stdout)["stages"]
    assert {"train teacher", "distil", "measure"} <= {one["stage"] for one in stages}
    assert {one["reason"] for one in stages} == {"new"}
    assert not (tmp_path / "w" / "artifacts").exists()
    assert not (tmp_path / "w" / "devices").exists()
    assert_exit(tutelage(*here, "--fresh"), 2, "--fresh")
    file.write_text(yaml.safe_dump(USUAL | {"students": [], "supernet": {"batch_size": 8}}))
    searched = tutelage(*here)
    assert "measured first: here" in searched.stdout, searched
    assert_exit(tutelage(*here, "--set", "baselines=[no-such-net]"), 2, "no-such-net")
