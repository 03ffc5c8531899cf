"""A leaderboard as a real run leaves it: two data sets, two devices, teachers, controls, students, fp32 and int8."""

import shutil

import numpy as np
import pytest

from tutelage.leaderboard.page.build import build_page
from tutelage.records import Arch, Measurement, Row

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]

CLASSES = {"pneumoniamnist": ("normal", "pneumonia"), "cxr3": ("COVID-19", "normal", "pneumonia")}
DEVICES = {"host-ort": ("onnxruntime", 1.0), "host-openvino": ("openvino", 0.62)}
ARCHS = {
    "student-a": Arch(space="ofa_mbv3_w1.0_stem1", ks=[3] * 10, e=[3] * 10, d=[2] * 5, r=28),
    "student-b": Arch(space="ofa_mbv3_w1.0_stem1", ks=[3, 5] * 6, e=[3, 4] * 6, d=[2, 2, 3, 2, 3], r=28),
    "student-c": Arch(space="ofa_mbv3_w1.2_stem1", ks=[5, 3, 7] * 5, e=[4, 6, 3] * 5, d=[3] * 5, r=28),
}
# name: role, params, MACs, fp32 ms on host-ort, base AUC
NETWORKS = {
    "densenet121": ("teacher", 6_955_906, 56_000_000, 9.8, 0.962),
    "deit_tiny": ("teacher", 5_526_722, 71_000_000, 3.9, 0.955),
    "mobilenetv3_small_100": ("baseline", 1_519_906, 2_100_000, 0.55, 0.941),
    "mobilenetv2_100": ("baseline", 2_226_434, 7_300_000, 0.83, 0.949),
    "student-a": ("student", 1_080_000, 5_400_000, 0.38, 0.956),
    "student-b": ("student", 1_470_000, 8_900_000, 0.52, 0.961),
    "student-c": ("student", 2_730_000, 15_200_000, 0.91, 0.966),
}
TAUGHT = {"": 0.0, "densenet121": 0.006, "deit_tiny": 0.003, "densenet121+deit_tiny": 0.008}


@pytest.fixture(scope="session")
def demo() -> tuple[list[Row], list[Measurement]]:
    """112 rows and their measurements, the same bits every time."""
    rng = np.random.default_rng(7)
    rows, measurements = [], []
    for dataset, ease in (("pneumoniamnist", 0.0), ("cxr3", -0.045)):
        quality = _qualities(rng, ease)
        for device in DEVICES:
            for name, teacher, scheme in quality:
                measured = _measure(rng, name, scheme, device)
                measurements.append(measured)
                rows.append(_row(dataset, device, name, teacher, scheme, quality[name, teacher, scheme], measured))
    return rows, measurements


def _qualities(rng, ease):
    """Accuracy does not depend on the device, so it is drawn once a network."""
    quality = {}
    for name, (role, *_, auc) in NETWORKS.items():
        for teacher, gain in TAUGHT.items() if role == "student" else [("", 0.0)]:
            drawn = auc + gain + ease + rng.normal(0, 0.0025)
            for scheme in ("fp32", "int8-ptq") if role == "student" else ("fp32",):
                cut = rng.uniform(0.0005, 0.003) if scheme != "fp32" else 0.0
                quality[name, teacher, scheme] = float(drawn - cut)
    return quality


def _measure(rng, name, scheme, device):
    runtime, factor = DEVICES[device]
    middle = NETWORKS[name][3] * factor * (0.61 if scheme != "fp32" else 1.0)
    return Measurement(
        device=device,
        runtime=runtime,
        runtime_version="1.31.1" if runtime == "onnxruntime" else "2026.4.1",
        threads=1,
        batch=1,
        precision="int8" if scheme != "fp32" else "fp32",
        effective_precision="int8" if scheme != "fp32" else "fp32",
        samples_ms=tuple((middle * rng.lognormal(0, 0.06, 60)).round(4).tolist()),
        peak_rss_bytes=int(1e6 * rng.uniform(80, 150)),
    )


def _row(dataset, device, name, teacher, scheme, auc, measured):
    role, params, macs, _, _ = NETWORKS[name]
    accuracy = auc - 0.065
    model = f"{name}" + (f" <- {teacher}" if teacher else " alone" if role == "student" else "")
    return Row(
        model=model if scheme == "fp32" else f"{model} int8",
        role=role,
        arch=ARCHS.get(name),
        teacher=teacher,
        recipe=dataset,
        dataset=dataset,
        scheme=scheme,
        runtime=measured.runtime,
        device=device,
        batch=1,
        threads=1,
        accuracy=round(accuracy, 4),
        accuracy_lo=round(accuracy - 0.024, 4),
        accuracy_hi=round(accuracy + 0.021, 4),
        auc=round(auc, 4),
        auc_lo=round(auc - 0.013, 4),
        auc_hi=round(min(1, auc + 0.010), 4),
        params=params,
        macs=macs,
        size_bytes=params * (4 if scheme == "fp32" else 1) + 60_000,
        latency_p50_ms=round(measured.p50_ms, 4),
        latency_p90_ms=round(measured.p90_ms, 4),
        latency_p99_ms=round(measured.p99_ms, 4),
        peak_rss_bytes=measured.peak_rss_bytes,
        seed=1,
        created="2026-11-20T22:10:00Z",
        measurement=measured.id,
        control=f"{name} alone" if teacher else "",
        parent=model if scheme != "fp32" else "",
        details={
            "per_class": [{"name": label, "auc": round(auc - 0.01 * i, 4)} for i, label in enumerate(CLASSES[dataset])],
            "how": {"command": f"tutelage run {dataset}", "recipe": {}, "manifest": "9f2c41d07be1a3aa"},
        },
    )


def _patient(opens):
    """Let what a browser opens wait as long as a busy host needs."""

    def opened(**settings):
        one = opens(**settings)
        one.set_default_timeout(300_000)
        return one

    return opened


@pytest.fixture(scope="session")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium: apt-get install chromium")
    with sync.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=FLAGS)
        for opens in ("new_page", "new_context"):
            setattr(chromium, opens, _patient(getattr(chromium, opens)))
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Open the page of some rows; at the end no error was logged and no request was made."""
    seen, pages = [], []

    def open_it(rows, width=1300, theme="light", link="", verdicts=None):
        file = tmp_path / "page.html"
        build_page(rows, file, "Pneumonia on two devices", verdicts=verdicts)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on(
            "request",
            lambda request: seen.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
        )
        page.goto(file.as_uri() + link)
        pages.append(page)
        return page

    yield open_it
    for page in pages:
        page.close()
    assert seen == []
