"""The four papers' recipes, each run whole on small made pictures that lie on disk exactly as the real set does."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tutelage.distill.data.check import check_path
from tutelage.distill.data.images import decode
from tutelage.distill.data.sets.chest import CHESTXRAY14_LABELS
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.context import open_context
from tutelage.pipeline.operations.bundle import bundle_row
from tutelage.pipeline.recipe import Recipe, load_recipe
from tutelage.pipeline.stages.named import named_students
from tutelage.pipeline.workspace import Workspace
from tutelage.records import InputError, Row

SIDE = 48  # of the files; the runs see 32 px
# What makes a paper's run a test's: sizes, lengths, and how often is measured. Everything else is the recipe's own.
SMALL = (
    *("data.size=32", "data.augment_variants=1", "seeds=1", "quantize.calibration_images=8", "quantize.method=minmax"),
    *("measure.bootstrap=100", "measure.tolerance=0.9", "distill.epochs=1", "distill.batch_size=8"),
)


# The recipes' teachers start from ImageNet's weights; a test has no network.
FROM_SCRATCH = ("teachers.*.weights=null",)

# Of those that train a supernet: one epoch of the largest and the smallest subnet.
SMALL_SUPERNET = ("supernet.epochs=1", "supernet.batch_size=8", "supernet.num_random=0")


def save(path: Path, bright: tuple[int, ...], seed: int, colour: bool = False) -> None:
    """Write noise with one bright bar for each number in `bright`, so that there is something to learn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 60, (SIDE, SIDE, 3) if colour else (SIDE, SIDE))
    for bar in bright:
        pixels[3 * bar : 3 * bar + 3] += 150
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def sars_cov_2_ct(root: Path) -> Path:
    for number in range(1, 31):
        save(root / "COVID" / f"Covid ({number}).png", (2,), number)
        save(root / "non-COVID" / f"Non-Covid ({number}).png", (9,), 100 + number)
    return root


def chexpert(root: Path) -> Path:
    header = ("Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,"
              "Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,"
              "Pleural Other,Fracture,Support Devices")  # fmt: skip
    values = ["1.0", "0.0", "", "-1.0", "0.0"]
    for file, start, num in (("train", 0, 45), ("valid", 64540, 10)):
        lines = [header]
        for patient in range(start, start + num):
            for view, side in (("view1_frontal", "Frontal,AP"), ("view2_lateral", "Lateral,")):
                path = f"CheXpert-v1.0-small/{file}/patient{patient + 1:05d}/study1/{view}.jpg"
                labels = [values[(patient * 3 + k * k) % 5] for k in range(14)]
                lines.append(f"{path},Female,68,{side},{','.join(labels)}")
                save(root / path.split("/", 1)[1], tuple(k for k in range(14) if labels[k] == "1.0"), patient)
        (root / f"{file}.csv").write_text("\n".join(lines))
    return root


def covid_qu_ex(root: Path) -> Path:
    inner = root / "Lung Segmentation Data" / "Lung Segmentation Data"
    seed = 0
    for split, num in (("Train", 12), ("Val", 5), ("Test", 6)):
        for kind, name in enumerate(("COVID-19", "Non-COVID", "Normal")):
            for _ in range(num):
                seed += 1
                save(inner / split / name / "images" / f"{name.lower()}_{seed}.png", (4 * kind,), seed)
                save(inner / split / name / "lung masks" / f"{name.lower()}_{seed}.png", (), 0)
    return root


def lc25000(root: Path) -> Path:
    for organ, names in (("lung", ("lung_aca", "lung_n", "lung_scc")), ("colon", ("colon_aca", "colon_n"))):
        for kind, name in enumerate(names):
            for number in range(1, 13):
                file = root / f"{organ}_image_sets" / name / f"{name.replace('_', '')}{number}.jpeg"
                save(file, (4 * kind, number), number, colour=True)
    return root


def chestxray14(root: Path) -> Path:
    lines = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
             "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"]  # fmt: skip
    names = []
    for number in range(90):
        patient, visit = divmod(number, 2)
        name = f"{patient + 1:08d}_{visit:03d}.png"
        kinds = tuple((patient + 5 * k) % 14 for k in range(2)) if patient % 4 else ()
        words = [CHESTXRAY14_LABELS[kind] for kind in kinds] or ["No Finding"]
        lines.append(f"{name},{'|'.join(words)},{visit},{patient + 1},058,M,PA,2682,2749,0.143,0.143,")
        save(root / f"images_{number % 2 + 1:03d}" / "images" / name, kinds, number)
        names.append(name)
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n")
    (root / "train_val_list.txt").write_text("\n".join(names[:60]) + "\n")
    (root / "test_list.txt").write_text("\n".join(names[60:]))
    return root


def teacher_of(recipe: str, **changes: object) -> str:
    """Cut a recipe's teachers to its first, on its own schedule but for one epoch, and the changes given."""
    first = load_recipe(recipe).teachers[0].model_dump(mode="json", exclude={"weights"})
    return f"teachers=[{ {**first, 'epochs': 1, 'batch_size': 8, **changes} }]".replace("None", "null")


SMALL_DENSENET = {"growth_rate": 12, "block_config": [2, 2, 2, 2]}  # DenseNets of 7 to 28 million parameters else


def run(name: str, root: Path, workspace: Path, *changes: str) -> dict[tuple[str, str, str], Row]:
    recipe = load_recipe(name, [f"data.path={root}", *SMALL, *changes])
    _, published = pipeline.run(recipe, Workspace(workspace), lambda text, done, total: None, 1)
    assert (workspace / "runs" / name / "report.html").is_file()
    check_bundle(
        next(row for row in published.rows if row.role == "student" and row.scheme == "int8-ptq"), root, workspace
    )
    rows = sorted(published.rows, key=lambda row: row.role)  # a student may have its teacher's name: its row stays
    return {(row.model, row.teacher, row.scheme): row for row in reversed(rows) if row.runtime == "onnxruntime"}


def check_bundle(row: Row, root: Path, workspace: Path) -> None:
    """Bundle a row of a run and let its predict.py classify two pictures, as who deploys it would."""
    made = bundle_row(row, Workspace(workspace), lambda *_: None, 1, out=workspace / "bundle")
    how = made.preprocess
    pictures = [path for path in sorted(root.rglob("*")) if path.suffix in (".png", ".jpg", ".jpeg")][:2]
    command = [sys.executable, str(made.folder / "predict.py"), *map(str, pictures)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    pixels = np.stack([decode(path, how.height, how.channels, fit=how.fit)[0] for path in pictures])
    scaled = pixels.reshape(2, how.height, how.width, how.channels).astype(np.float32) / 255
    images = ((scaled - np.float32(how.mean)) / np.float32(how.std)).transpose(0, 3, 1, 2)
    expected = [made.run(image[None])[0] for image in images]
    np.testing.assert_allclose([line["logits"] for line in lines], expected, atol=1e-3)
    threshold = row.details["threshold"]
    if made.thresholds.multi_label:
        assert list(made.thresholds.values) == pytest.approx(list(threshold))
    for line in lines:
        probabilities = dict(zip(made.labels, line["probabilities"], strict=True))
        if made.thresholds.multi_label:
            cuts = dict(zip(made.labels, threshold, strict=True))
            assert line["labels"] == [name for name in made.labels if probabilities[name] >= cuts[name]]
        elif threshold is None:
            assert line["labels"] == [max(probabilities, key=probabilities.__getitem__)]
        else:
            assert line["labels"] == [made.labels[int(line["probabilities"][1] >= threshold)]]


@pytest.mark.long
def test_chest_ct_kd_ptq(tmp_path: Path) -> None:
    name = "chest-ct-kd-ptq"
    devices = "devices=[{name: host-ort, runtime: onnxruntime, minutes: 0.2}]"
    searched = (*SMALL_SUPERNET, "search.evaluations=6", "search.winners=1")
    block = "data.options={block: 5}"  # the real set's blocks of 50 slices would leave two groups here
    # The paper's DenseNet121 is student and teacher, of one name; its other students are as large.
    few = f"students=[{{name: DenseNet121, options: {SMALL_DENSENET}}}, {{name: mobilenetv2_050}}]"
    small = teacher_of(name, options=SMALL_DENSENET)
    rows = run(name, sars_cov_2_ct(tmp_path / "ct"), tmp_path / "w", small, devices, block, few, *searched)
    (winner,) = {row.model for row in rows.values() if row.details["start"] == "supernet"}
    students = {key for key, row in rows.items() if row.role == "student"}
    assert students == {
        (model, teacher, scheme)
        for model in ("DenseNet121", "mobilenetv2_050", winner)
        for teacher in ("", "DenseNet121")
        for scheme in ("fp32", "int8-ptq")
    }
    fp32, int8 = (rows["mobilenetv2_050", "DenseNet121", scheme] for scheme in ("fp32", "int8-ptq"))
    assert (int8.size_bytes or 0) < 0.4 * (fp32.size_bytes or 0)
    for row in (fp32, int8):
        assert row.details["gain_over_control"]["verdict"]
        assert row.details["gain_over_control"]["corrected_for"] == 3
        assert (row.details["start"], row.details["epochs"]) == ("fresh", 2)
        assert set(row.details["against_teachers"]) == {"DenseNet121"}
    assert "search" not in fp32.details
    assert rows[winner, "", "fp32"].details["search"]["finalists"] >= 1
    assert rows[winner, "", "fp32"].details["epochs"] == 1


@pytest.mark.long
def test_chexpert_mobilenetv2(tmp_path: Path) -> None:
    name = "chexpert-mobilenetv2"
    shares = ("data.val_fraction=0.2", "data.test_fraction=0.25")  # 5 % of 45 patients is two
    options = "data.options={uncertain: ones, valid_as: extra}"
    more = ("seeds=2", "explain.images=2", *shares, options)
    small = teacher_of(name, options={"drop_rate": 0.394, **SMALL_DENSENET})
    rows = run(name, chexpert(tmp_path / "chexpert"), tmp_path / "w", small, *more)
    row = rows["mobilenetv2_100", "DenseNet121", "fp32"]
    assert row.details["second_test"]["num_images"] == 20  # valid.csv
    assert set(row.details["per_class"]) == set(row.details["gain_over_control"]["per_label"])
    assert len(row.details["threshold"]) == 5
    assert row.details["gain_over_control"]["num_seeds"] == 2
    assert row.details["seeds"]["seeds"] == [0, 1]
    seeds = row.details["seeds"]
    assert row.accuracy == pytest.approx(np.mean(seeds["accuracy"]))
    assert row.auc == pytest.approx(np.mean(seeds["auc"]))
    assert (seeds["file"]["seed"], seeds["file"]["accuracy"]) == (0, seeds["accuracy"][0])
    assert row.details["gain_over_control"]["verdict"].startswith("inconclusive: ")
    assert row.details["explanation"]["insertion_auc"] is not None
    assert {row.seed for row in rows.values()} == {0}


@pytest.mark.long
def test_cxr_ofa595(tmp_path: Path) -> None:
    name = "cxr-ofa595"
    # Its teachers have 28 to 140 million parameters: a small Visformer stands in for the three.
    small = "teachers=[{name: visformer_tiny, epochs: 1, batch_size: 8, lr: 5.0e-4, options: {depth: [1, 1, 1]}}]"
    rows = run(name, covid_qu_ex(tmp_path / "covidqu"), tmp_path / "w", small, "explain.images=1", *SMALL_SUPERNET)
    assert {model for model, _, _ in rows} == {"OFA-595", "visformer_tiny"}
    fp32, int8 = (rows["OFA-595", "visformer_tiny", scheme].details["explanation"] for scheme in ("fp32", "int8-ptq"))
    assert fp32["method"] == int8["method"] == "scorecam"
    assert -1 <= fp32["teacher_spearman"] <= 1
    assert 0 < int8["fp32_spearman"] <= 1
    assert rows["OFA-595", "", "fp32"].arch is not None
    assert rows["OFA-595", "", "fp32"].details["start"] == "supernet"


@pytest.mark.long
def test_cxr14_eeea_c2(tmp_path: Path) -> None:
    name = "cxr14-eeea-c2"
    small = teacher_of(name, options=SMALL_DENSENET)
    rows = run(name, chestxray14(tmp_path / "nih"), tmp_path / "w", small, "explain.images=1", *SMALL_SUPERNET)
    row = rows["EEEA-Net-C2", "DenseNet161", "fp32"]
    assert row.params == 4_732_838 - 16 * 3 * 3 * 2  # FACTS: 14 classes, RGB; one channel in the stem here
    assert row.details["test_images"] == 30  # the official test list
    assert row.auc is not None
    assert row.details["explanation"]["sanity_spearman"] is not None


MADE: dict[str, Callable[[Path], Path]] = {
    "chest-ct-kd-ptq": sars_cov_2_ct,
    "chexpert-mobilenetv2": chexpert,
    "cxr-ofa595": covid_qu_ex,
    "cxr14-eeea-c2": chestxray14,
}


@pytest.mark.parametrize("name", MADE)
def test_a_recipe_opens_its_data_as_it_stands(name: str, tmp_path: Path) -> None:
    root = MADE[name](tmp_path / "data")
    found = check_path(root)
    assert found.kind == load_recipe(name).data.dataset
    assert found.class_counts
    options = ["data.options={block: 5}"] if name == "chest-ct-kd-ptq" else []
    ctx = open_context(load_recipe(name, [f"data.path={root}", "data.size=32", *options]), *_setting(tmp_path))
    assert ctx.dataset.class_counts("train")
    text = (resources.files("tutelage.recipes") / f"{name}.yaml").read_text()
    for word in ("Paper:", "Data:", "Published", "Deviations:", "# not stated in the paper; ours"):
        assert word in text, f"{name} does not say {word}"


def test_the_second_set_of_the_ofa_paper(tmp_path: Path) -> None:
    changes = ["data.dataset=lc25000", f"data.path={lc25000(tmp_path / 'lc')}", "data.size=32"]
    ctx = open_context(load_recipe("cxr-ofa595", changes), *_setting(tmp_path))
    assert ctx.dataset.class_names == ("lung_aca", "lung_n", "lung_scc", "colon_aca", "colon_n")


def test_what_cannot_be_taught_is_reported_before_a_teacher_is_trained(tmp_path: Path) -> None:
    root = chestxray14(tmp_path / "nih")
    cases = {
        "students=[{name: mobilenetv9}]": "unknown teacher 'mobilenetv9'",
        "students=[{name: OFA-595, options: {drop_rate: 0.1}}]": "takes no options",
        "distill.method=dkd": "defined for one label an image",
        "devices=[{name: host-ort, max_latency: 3ms}]": "this recipe names its students",
    }
    for change, message in cases.items():
        changes = [f"data.path={root}", "data.size=32", *FROM_SCRATCH, change]
        recipe = load_recipe("cxr14-eeea-c2", changes)
        with pytest.raises(InputError, match=message):
            pipeline.run(recipe, *_setting(tmp_path))
    with pytest.raises(InputError, match="searches nothing"):
        pipeline.search(load_recipe("cxr14-eeea-c2"), *_setting(tmp_path))
    assert not [event for event in Workspace(tmp_path / "w").journal() if event["event"] == "start"]


def _setting(tmp_path: Path) -> tuple[Workspace, Any, int]:
    return Workspace(tmp_path / "w"), lambda text, done, total: None, 1


def test_a_student_is_named_by_its_genes(tmp_path: Path) -> None:
    root = chestxray14(tmp_path / "nih")
    genes = "{space: ofa_mbv3_w1.0, ks: [3, 5, 3, 3, 7, 3, 3, 3, 5, 3], e: [3, 3, 4, 3, 3, 6, 3, 3, 3, 4],"
    genes += " d: [2, 2, 2, 2, 2], r: 224}"
    changes = [f"data.path={root}", "data.size=32", f"students=[{{name: found, arch: {genes}}}]"]
    recipe = load_recipe("cxr14-eeea-c2", changes)
    (student,) = named_students(open_context(recipe, *_setting(tmp_path)))
    assert student.model == "found"
    assert student.arch is not None
    assert student.arch.r == 32
    assert [gene for gene in student.arch.ks if gene] == [3, 5, 3, 3, 7, 3, 3, 3, 5, 3]
    for right, wrong, message in (("mbv3", "mbv9", "no space 'ofa_mbv9_w1.0'"), ("ks: [3, 5", "ks: [4, 5", "ks")):
        change = changes[2].replace(right, wrong)
        with pytest.raises(InputError, match=message):
            named_students(open_context(load_recipe("cxr14-eeea-c2", [*changes[:2], change]), *_setting(tmp_path)))


def test_the_ct_papers_students_are_its_own_and_two_light_ones() -> None:
    names = [student.name for student in load_recipe("chest-ct-kd-ptq").students]
    assert names == ["DenseNet121", "EfficientNet-B3", "NASNetMobile", "mobilenetv2_100", "mobilenetv3_small_100"]


def test_recipes_name_real_students() -> None:
    for name in MADE:
        recipe: Recipe = load_recipe(name)
        assert recipe.students
        assert recipe.seeds >= 3
