"""Wrong values for every verb and option: exit code 2 and one line that names the value, never a traceback.

Each line is refused before anything is trained or measured, so that the table runs in seconds.
"""

import inspect
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer.main
import yaml

from tutelage.cli.app import app
from tutelage.cli.output import run_setting
from tutelage.leaderboard.store import Store
from tutelage.records import InputError, Row

from ..command import assert_exit, image_folder, tutelage

# command line -> words of the one line; {w} is a workspace with a row, {e} an empty one, {t} a folder of odd files
LINES: list[tuple[str, str]] = [
    # an option that is no option, a value of a wrong type
    ("nothing", "nothing"),
    ("run", "recipe"),
    ("run demo --nothing", "--nothing"),
    ("run demo extra", "extra"),
    ("search --evals many", "many"),
    ("search --evals 1.5", "1.5"),
    ("search --seed x", "'x'"),
    ("search --risk x", "'x'"),
    ("explain --images 0", "0"),
    ("leaderboard show --limit 0 -w {w}", "0"),
    ("leaderboard serve --port 99999 -w {w}", "99999"),
    ("leaderboard serve --port -1 -w {w}", "-1"),
    ("leaderboard serve --port x -w {w}", "'x'"),
    ("bench {t}/m.onnx --device d --resolution 0 -w {e}", "0"),
    ("bench {t}/m.onnx --device d --batch 0 -w {e}", "0"),
    ("bench {t}/m.onnx --device d --resolution 99999 -w {e}", "99999"),
    # recipes and --set
    ("run '' -w {e}", "no recipe ''"),
    ("run {t} -w {e}", "no recipe"),
    ("run demo --set data.dataset=folder --set 'data.path=\"\"' -w {e}", "an empty path would be the current folder"),
    ("leaderboard pull '' -w {e}", "the folder is empty"),
    ("run demo --cluster auto --share '' -w {e}", "--share is empty"),
    ("run {t}/list.yaml -w {e}", "list.yaml"),
    ("run {t}/words.yaml -w {e}", "words.yaml"),
    ("run {t}/twice.yaml -w {e}", "'epochs' is given twice"),
    ("run {t}/section.yaml -w {e}", "data"),
    ("run {t}/bytes.yaml -w {e}", "bytes.yaml"),
    ("run {t}/empty.yaml -w {e}", "empty.yaml"),
    ("run demo --set seed.x.y=3 -w {e}", "seed is 0"),
    ("run demo --set seed=-1 -w {e}", "-1"),
    ("run demo --set distill.lr=.nan -w {e}", "nan"),
    ("run demo --set x -w {e}", "'x'"),
    ("run demo --set name=../x -w {e}", "name = '../x'"),
    ("run demo --set name=a/b -w {e}", "name = 'a/b'"),
    ("run demo --set name= -w {e}", "name = ''"),
    ("run demo --set 'baselines=[resnet18, resnet18]' -w {e}", "'resnet18' is named twice"),
    ("run demo --set quantize.max_drop=200 -w {e}", "less than or equal to 100"),
    ("search --max-latency 200% -w {e}", "'200%' is beyond the largest network"),
    ("run demo --set devices=[] -w {e}", "has no device"),
    ("run demo --set 'devices=[{{name: a}}, {{name: a}}]' -w {e}", "'a' is named twice"),
    ("run demo --set data.dataset=nothing -w {e}", "nothing"),
    ("run demo --set data.dataset=folder --set data.path={t}/absent -w {e}", "absent"),
    ("run demo --set data.dataset=table --set data.path={t}/images -w {e}", "is a folder"),
    ("run demo --set data.dataset=folder --set data.path={t}/m.onnx -w {e}", "m.onnx"),
    ("run demo --set teachers.0.weights={t}/absent.pth -w {e}", "absent.pth"),
    ("run demo --set teachers.0.weights={t} -w {e}", "is a folder"),
    ("run {t}/student.yaml -w {e}", "absent.pth"),
    ("run demo --set teachers.0.weights=timm: -w {e}", "weights timm: name no network"),
    ("run demo --set teachers.0.weights=hf-hub:x/y/z -w {e}", "hf-hub:x/y/z names no repository"),
    ("run demo --set teachers.0.weights=hf-hub:x/y..z -w {e}", "hf-hub:x/y..z names no repository"),
    ("distill --set teachers.0.weights=/nowhere/1e3 -w {e}", "/nowhere/1e3"),
    ("explain --set teachers.0.weights=/nowhere/x -w {e}", "/nowhere/x"),
    # budgets, devices, spaces
    ("search --max-latency 5 -w {e}", "'5'"),
    ('device add x -w {e} --command "python \'{{runner}}"', "quote it as for a shell"),
    ("bench {t}/m.onnx --device stm32f746 -w {e}", "`tutelage device add stm32f746 --like stm32f746` makes one"),
    ("search --max-ram 1e400KB -w {e}", "'1e400KB' is not a size: it is too large"),
    ("init --path {t} --device box --max-ram 1GBB -w {e}", "--max-ram: '1GBB' is not a size"),
    ("device add x -w {e} --like stm32f746 --here", "known by its memories alone"),
    ("device add x -w {e} --from-measurements {t}/absent.csv", "absent.csv: No such file or directory"),
    ("search --max-latency 5MB -w {e}", "'5MB'"),
    ("search --max-latency 2ms,1ms -w {e}", "'2ms,1ms': give the budgets in ascending order, each once"),
    ("init --path {t} --device box --max-latency 40%,20%", "--max-latency: '40%,20%': give the budgets in ascending"),
    ("search --max-latency -5ms -w {e}", "'-5ms'"),
    ("search --max-latency nan -w {e}", "'nan'"),
    ("search --max-latency '' -w {e}", "''"),
    ("search --max-latency 5ms --set devices=[] -w {e}", "needs a device"),
    ("search --risk .1 --set devices=[] -w {e}", "needs a device"),
    ("search --max-params 0 -w {e}", "'0'"),
    ("search --max-params 3MB -w {e}", "'3MB'"),
    ("search --max-params '' -w {e}", "''"),
    ("search --max-macs 1e999 -w {e}", "'1e999'"),
    ("search --max-macs '[1]' -w {e}", "'[1]'"),
    ("search --max-size 8M -w {e}", "'8M'"),
    ("search --evals 0 -w {e}", "evaluations = 0"),
    ("search --evals -3 -w {e}", "-3"),
    ("search --winners 0 -w {e}", "search.winners = 0"),
    ("search --winners 500 --evals 3 -w {e}", "500 winners of 3 evaluations: give as many evaluations or more"),
    (  # the budgets of the recipe are replaced: they do not bind the number of winners
        "search --set search.winners=null --set devices.0.max_latency=1ms,2ms --max-latency 1ms,2ms,4ms "
        "--dataset folder --path {t}/absent -w {e}",
        "no data at",
    ),
    ("search --seed -1 -w {e}", "-1"),
    ("search --seed 99999999999999999999 -w {e}", "99999999999999999999"),
    ("search --risk .9 -w {e}", "0.9"),
    ("search --risk nan -w {e}", "nan"),
    ("search --risk -1 -w {e}", "-1"),
    ("search --strategy '' -w {e}", "''"),
    ("search --space nothing --set devices=[] -w {e}", "nothing"),
    ("search --dataset '{{a: 1}}' -w {e}", "{a: 1}"),
    ("search --dataset folder --path 2024 -w {e}", "2024"),
    ("search --path {t}/images -w {e}", "data set phantom is drawn, not read"),
    ("run demo --set data.options.n=5 -w {e}", "give one"),
    ("run demo --set data.limit= --set data.options.n=-1 -w {e}", "option n is -1"),
    ("run demo --set 'search.objectives=[error,error]' -w {e}", "name each once"),
    ("run demo --set 'search.objectives=[error,latency_ms@nope]' -w {e}", "latency_ms@nope"),
    ("run demo --set 'search.objectives=[params]' -w {e}", "name each once"),
    ("search --dataset folder --path 'images #1' -w {e}", "images #1"),
    ("search --dataset folder --path {t}/ünïcode -w {e}", "ünïcode"),
    ("search --supernet-weights {t}/absent.pth -w {e}", "absent.pth"),
    ("search --supernet-weights {t} -w {e}", "is a folder"),
    ("search --device nothing -w {e}", "nothing"),
    ("search --device host-ort-64px --device host-ort-64px -w {e}", "given twice"),
    ("search --recipe nothing -w {e}", "nothing"),
    ("search --recipe pneumoniamnist --set students=[{{name: resnet18}}] -w {e}", "resnet18"),
    ("search -w {t}/m.onnx/x", "m.onnx"),
    # files that are read or written
    ("distill --arch {t}/absent.json -w {e}", "absent.json"),
    ("distill --arch {t} -w {e}", "{t}"),
    ("distill --arch {t}/five.json -w {e}", "five.json"),
    ("distill --arch {t}/odd-arch.json -w {e}", "odd-arch.json"),
    ("quantize {t}/absent.onnx --out {t}/o.onnx -w {e}", "absent.onnx"),
    ("quantize {t}/m.onnx --out {t}/m.onnx -w {e}", "overwritten"),
    ("quantize {t}/m.onnx --out {t}/../t/m.onnx -w {e}", "overwritten"),
    ("quantize {t}/m.onnx --out {t}/o.png -w {e}", "o.png"),
    ("quantize {t}/m.onnx --out {t}/o.onnx --picture {t}/o.onnx -w {e}", ".png"),
    ("quantize {t}/m.onnx --out {t}/o.onnx --images 0 -w {e}", "0"),
    ("quantize {t}/m.onnx --out {t}/o.onnx --max-drop -1 -w {e}", "-1"),
    ("quantize {t}/m.onnx --out {t}/o.onnx --max-drop nan -w {e}", "nan"),
    ("quantize {t}/m.onnx --out {t}/o.onnx --method x -w {e}", "'x'"),
    ("quantize {t}/m.onnx -w {e}", "--out"),
    ("bench {t}/absent.onnx --device d -w {e}", "absent.onnx"),
    ("bench {t} --device d -w {e}", "{t}"),
    ("bench {t}/m.onnx --device nothing -w {e}", "nothing"),
    ("explain --method x -w {e}", "'x'"),
    ("explain --out {t}/m.onnx -w {e}", "m.onnx"),
    ("explain --out {t}/m.onnx/deep -w {e}", "m.onnx"),
    ("data check {t}/absent", "absent"),
    # the leaderboard
    ("leaderboard show -w {t}/images", "no leaderboard"),
    ("leaderboard show zzz -w {w}", "zzz"),
    ("leaderboard show '' -w {w}", "''"),
    ("leaderboard show --how -w {w}", "--how"),
    ("leaderboard show {r} --filter auc>0 -w {w}", "--filter has no effect"),
    ("leaderboard show {r} --limit 3 -w {w}", "--limit has no effect"),
    ("leaderboard show --filter 'latency_p50_ms<5MB' -w {w}", "5MB"),
    ("leaderboard show --filter constructor=1 -w {w}", "constructor"),
    ("leaderboard show --filter 'auc<' --json -w {w}", "auc"),
    ("leaderboard show --front nothing -w {w}", "nothing"),
    ("leaderboard show --front , -w {w}", "','"),
    ("leaderboard show --front nothing --json -w {w}", "nothing"),
    ("leaderboard show --ties x --front auc,size_bytes -w {w}", "x"),
    ("leaderboard show --ties .1 --json -w {w}", "--ties"),
    ("leaderboard show --ties size_bytes=5ms --front auc,size_bytes -w {w}", "size_bytes=5ms"),
    ("leaderboard show --front auc,auc -w {w}", "given twice"),
    ("leaderboard build --filter auc>1 --out {t}/none.html -w {w}", "no row that 'auc>1' keeps"),
    ("leaderboard build --title ' ' --out {t}/x.html -w {w}", "--title ' ' is empty"),
    ("leaderboard build --filter auc@b>0 --out {t}/none.html -w {w}", "no row has auc@b"),
    ("leaderboard pull {t}/images -w {w}", "images holds no rows (rows/*.jsonl)"),
    ("leaderboard build --out {t}/x.png -w {w}", "x.png"),
    ("leaderboard build --out {t} -w {w}", ".html"),
    ("leaderboard build --out {t}/m.onnx/x.html -w {w}", "m.onnx"),
    ("leaderboard build --out {t}/nowhere/x.html -w {w}", "x.html"),
    ("leaderboard build --filter x=1 --out {t}/x.html -w {w}", "'x'"),
    ("leaderboard export --format yaml -w {w}", "yaml"),
    ("leaderboard export --format parquet -w {w}", "parquet"),
    ("leaderboard export --out {w}/leaderboard.db -w {w}", "overwritten"),
    ("leaderboard export --out {t} -w {w}", "is a folder"),
    ("leaderboard export --format csv --out {t}/x.json -w {w}", "ends in .json and --format is csv"),
    ("leaderboard export --out {t}/nowhere/x.csv -w {w}", "x.csv"),
    ("leaderboard import {t}/absent.csv -w {e}", "absent.csv"),
    ("leaderboard import {t} -w {e}", "{t}"),
    ("leaderboard import {t}/five.json -w {e}", "five.json"),
    ("leaderboard import {t}/rows.json -w {e}", "arch"),
    ("leaderboard compare {r} zzz -w {w}", "zzz"),
    ("reproduce {r} --into {w} -w {w}", "own workspace"),
    ("reproduce {r} --into {t}/../w -w {w}", "own workspace"),
    ("reproduce zzz --into {e} -w {w}", "zzz"),
    ("reproduce {r} --into {t}/m.onnx -w {w}", "m.onnx"),
    ("bundle zzz --out {e}/b -w {w}", "zzz"),
    ("bundle {r} --out {t}/m.onnx -w {w}", "m.onnx"),
    ("bundle {r} --out {t} -w {w}", "is not empty"),
    ("bundle {r} --recipe demo --out {e}/b -w {w}", "--recipe has no effect"),
    ("bundle check {t}/absent", "absent"),
    ("bundle check {t}/m.onnx", "m.onnx"),
    # devices
    ("device show nothing -w {e}", "nothing"),
    ("device remove nothing -w {e}", "`tutelage device list` shows them"),
    ("device check nothing -w {e}", "nothing"),
    ("device add 'a b' -w {e}", "a b"),
    ("device add ../x -w {e}", "../x"),
    ("device add d --runtime nothing -w {e}", "nothing"),
    ("device add d --threads 0 -w {e}", "0"),
    ("device add d --threads -1 -w {e}", "-1"),
    ("device add d --threads 999 -w {e}", "device d: 999 threads, and this machine has"),
    ("device add d --threads 999 --here --from-measurements {t}/five.json -w {e}", "999 threads, and this machine"),
    ("run demo --set 'devices=[{{name: d, threads: 999}}]' -w {e}", "device d: 999 threads"),
    ("device add d --batch 0 -w {e}", "0"),
    ("device add d --precision fp8 -w {e}", "fp8"),
    ("device add d --space nothing -w {e}", "nothing"),
    ("device add d --resolution 0 -w {e}", "0"),
    ("device add d --resolution -64 -w {e}", "-64"),
    ("device add d --ssh '' -w {e}", "--ssh is empty"),
    ("device add d --command ' ' -w {e}", "--command is empty"),
    ("device add d --adb '' -w {e}", "--adb is empty"),
    ("device add d --adb x --ssh me@there -w {e}", "--ssh and --adb are given"),
    ("device add d --adb x --runtime torch -w {e}", "torch has no benchmark program"),
    ("device add d --benchmark-program {t}/m.onnx -w {e}", "--benchmark-program is what a device of --adb runs"),
    ("device add d --cores 4-7 -w {e}", "cores is [4, 5, 6, 7]: only a device reached by adb"),
    ("device add d --cores 4- -w {e}", "--cores is '4-': give the numbers of cores"),
    ("device add d --transfer --nets 3 -w {e}", "--nets is 3: --transfer takes 10 networks or more"),
    ("device add d --cores x -w {e}", "--cores is 'x': give the numbers of cores"),
    ("device add d --resolution 100000 -w {e}", "--resolution is 100000: give 16 to 1024"),
    ("device add d --resolution 8 -w {e}", "--resolution is 8"),
    ("device add d --batch 100000 -w {e}", "batch is 100000"),
    ("device add d --classes 9999999 -w {e}", "9999999 classes"),
    ("device add d --channels 100000 -w {e}", "100000 channels"),
    ("device add d --channels 0 -w {e}", "0"),
    ("device add d --classes 0 -w {e}", "0"),
    ("device add d --minutes 0 -w {e}", "0"),
    ("device add d --minutes nan -w {e}", "nan"),
    ("device add d --from-measurements {t}/absent.csv -w {e}", "absent.csv"),
    ("device add d --from-measurements {t} -w {e}", "{t}"),
    ("device add d --from-measurements {t}/five.json --resolution 64 -w {e}", "--resolution has no effect"),
    ("device add d --from-measurements {t}/five.json --minutes 3 -w {e}", "--minutes has no effect"),
    ("device add d --from-measurements {t}/five.json --nets 6 -w {e}", "--nets has no effect"),
    ("device add d --nets 4 -w {e}", "--nets is 4"),
    ("bundle {r} --filter auc>0 --out {e}/b -w {w}", "--filter has no effect"),
    ("bundle '' --out {e}/b -w {w}", "''"),
    ("bundle {r} --coreml {t}/x.onnx --out {e}/b -w {w}", "a .mlpackage folder or a .mlzip file"),
    # names that are nearly right, each with the one that was meant, before anything is trained or measured
    ("run {t}/lits.yaml -w {e}", "(nearest: '{t}/list.yaml')"),
    ("run dmeo -w {e}", "(nearest: 'demo')"),
    ("search --device host-ort-46px -w {e}", "did you mean 'host-ort-64px'?"),
    ("device add d --runtime opnvino -w {e}", "did you mean 'openvino'?"),
    ("device add d --space mbconv_smal_w1.0 -w {e}", "did you mean 'mbconv_small_w1.0'?"),
    ("run demo --set devices.0.runtime=onnxruntim -w {e}", "did you mean 'onnxruntime'?"),
    ("run demo --set teachers.1.name=vit_tny_patch16_224 -w {e}", "did you mean vit_tiny_patch16_224?"),
    ("run demo --set quantize.method=minmx -w {e}", "did you mean 'minmax'?"),
    ("search --space ofa_mbv3_w10 -w {e}", "did you mean 'ofa_mbv3_w1.0'?"),
    ("search --dataset foldr -w {e}", "did you mean 'folder'?"),
    ("search --strategy nsga -w {e}", "did you mean 'nsga2'?"),
    ("distill --method kld -w {e}", "did you mean 'kd'?"),
    ("leaderboard show --filter 'devcie=x' -w {w}", "the nearest is 'device'"),
    ("leaderboard show --front aucc,size_bytes -w {w}", "the nearest is 'auc'"),
    ("leaderboard show --columns aucc -w {w}", "the nearest is 'auc'"),
    ("leaderboard build --filter role=studnet --out {t}/none.html -w {w}", "the nearest is 'student'"),
    ("device add d --from-measurements {t}/five.json -w {e}", "five.json"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("bad")
    odd, board = root / "t", root / "w"
    odd.mkdir()
    board.mkdir()
    row = Row(model="m", role="student", dataset="d", auc=0.9, size_bytes=10)
    Store(board / "leaderboard.db").add([row])
    image_folder(odd / "images", num=2)
    files = {
        "m.onnx": "no model",
        "list.yaml": "- a\n",
        "words.yaml": "just words",
        "empty.yaml": "",
        "twice.yaml": "name: x\ndistill: {epochs: 3, epochs: 4}\n",
        "section.yaml": yaml.safe_dump({"name": "x", "data": ["a", "b"], "devices": [{"name": "d"}]}),
        "five.json": "5",
        "student.yaml": "{name: x, devices: [{name: d}], students: [{name: resnet18, weights: absent.pth}]}",
        "odd-arch.json": '{"space": "ofa_mbv3_w1.0", "d": 5, "r": 64}',
        "rows.json": '[{"model": "m", "role": "student", "dataset": "d", "arch": 5}]',
    }
    for name, text in files.items():
        (odd / name).write_text(text)
    (odd / "bytes.yaml").write_bytes(b"\xff\xfe\x00name")
    return {"t": str(odd), "w": str(board), "e": str(root / "e"), "r": row.key[:8]}


@pytest.mark.parametrize(("line", "words"), LINES, ids=lambda text: text)
def test_bad_input_is_one_line(
    line: str, words: str, places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a default output would land here
    assert_exit(
        tutelage(*shlex.split(line.format(**places))), 2, words.replace("{t}", places["t"]).replace("{r}", places["r"])
    )
    assert not list(Path(places["e"]).glob("artifacts/*")), "something was trained first"


def test_a_line_longer_than_a_file_name_and_bytes_that_are_no_text() -> None:
    assert_exit(tutelage("run", "x" * 5000), 2, "xxx")
    assert_exit(tutelage("run", os.fsdecode(b"\xff.yaml")), 2, "UTF-8")


@pytest.mark.parametrize(
    "url",
    ["mydb", "mysql://a/b", "postgresql://u@h:port/x", "postgresql:/h/x", "postgresql://u:p@h:99999999/x", "http://x"],
)
def test_a_malformed_url_of_the_store_is_one_line(
    url: str, places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_STORE", url)
    assert_exit(tutelage("leaderboard", "show", "-w", places["w"]), 2, "postgresql://")
    assert_exit(tutelage("leaderboard", "import", f"{places['t']}/five.json", "-w", places["e"]), 2)


def test_a_busy_host_is_noted_once_when_the_work_begins_and_not_before_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tutelage.bench.protocol.host.busy_warning", lambda: "the host is busy")
    with pytest.raises(InputError), run_setting(tmp_path):
        raise InputError("no device of that name")
    assert "busy" not in capsys.readouterr().err
    with run_setting(tmp_path) as (_, report, _):
        report("first", 0, 2)
        report("second", 1, 2)
    assert capsys.readouterr().err.count("note: the host is busy") == 1


def _paths(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Give the words of the command line by which each parameter that is a path is given."""
    for name, below in getattr(command, "commands", {}).items():
        yield from _paths(below, (*words, name))
    if hasattr(command, "commands"):
        return
    hints = get_type_hints(inspect.unwrap(command.callback))
    for parameter in command.params:
        if Path in (kind := hints.get(parameter.name), *get_args(kind)):
            yield (*words, parameter.opts[0], "") if parameter.opts[0].startswith("-") else (*words, "")


def test_no_path_may_be_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty path is the current folder to Python: `data check ""` read that."""
    monkeypatch.chdir(tmp_path)
    lines = list(_paths(typer.main.get_command(app)))
    assert len(lines) > 40
    assert ("data", "check", "") in lines
    for *words, given in (*lines, *((*line[:-1], " ") for line in lines)):
        assert_exit(tutelage(*words, given), 2, f"{given!r} is no path")
    assert not list(tmp_path.iterdir())
