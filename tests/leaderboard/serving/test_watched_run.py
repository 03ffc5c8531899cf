"""A real run watched in a browser: stages, tasks, learning curves and rows come to the page by themselves."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tutelage.leaderboard.serving.server import make_server
from tutelage.live import recording, state_of
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.curves import with_learning
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import Workspace

pytestmark = pytest.mark.slow

RECIPE: dict[str, Any] = {
    "name": "watched",
    "data": {"dataset": "phantom", "size": 32, "limit": 60, "augment_variants": 1},
    "teachers": [{"name": "resnet10t", "epochs": 3, "batch_size": 32}],
    "students": [{"name": "mobilenetv3_small_050"}],
    "devices": [{"name": "host-ort", "runtime": "onnxruntime"}],
    "distill": {"epochs": 1, "batch_size": 32},
    "quantize": {"method": "minmax", "calibration_images": 8},
    "bundle": {"rows": "none"},
    "measure": {"bootstrap": 100, "tolerance": 0.99},  # a test must not hang on how busy the machine is
}


@contextmanager
def serving(workspace: Path) -> Iterator[str]:
    """Serve a workspace as `leaderboard serve` does, and give the address."""
    server = make_server(workspace / "leaderboard.db", state=lambda: with_learning(state_of(workspace), workspace))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Watcher:
    """Looks at the page whenever the run reports, and waits there for what the run has done: the run waits for it."""

    def __init__(self, workspace: Path, open_page: Callable[[str], Any], served: ExitStack) -> None:
        self.workspace, self.page = workspace, None
        self._open, self._served = open_page, served
        self.seen: list[str] = []

    def report(self, text: str, done: int, total: int) -> None:
        if self.page is None:
            if (self.workspace / "leaderboard.db").is_file():
                self.page = self._open(self._served.enter_context(serving(self.workspace)))
            return
        state = with_learning(state_of(self.workspace), self.workspace)
        if "waiting" in str(state.get("stages")) and self._once("stages"):
            self.page.wait_for_selector("#run progress")
            assert "waiting" in self.page.text_content("#run .stages")
            assert "A run goes on: watched" in self.page.text_content("#run h2")
        if any(one["epoch"][-1] >= 2 for one in state.get("learning", ())) and self._once("learning"):
            self.page.wait_for_selector("#run .learning :text('after 2 epochs')")
            title = self.page.text_content("#run .learning h3")
            assert [title, "running"] in state["stages"]
            assert self.page.locator("#run .learning svg[role=img] .curve").count() == 4  # accuracy, AUC, both losses
            assert self.page.locator("#run .learning svg").first.is_visible()
        if text.startswith("evaluate") and done == total:
            self.seen.append(text)

    def _once(self, what: str) -> bool:
        is_new = what not in self.seen
        self.seen += [what] * is_new
        return is_new


def test_a_run_is_watched_from_its_first_stage_to_its_last_row(browser: Any, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    loads: list[str] = []

    def open_page(address: str) -> Any:
        page = browser.new_page()
        page.on("load", lambda _: loads.append(page.text_content("#summary")))
        page.on("pageerror", lambda error: loads.append(f"error: {error}"))
        page.goto(address)
        return page

    with ExitStack() as served:
        watcher = Watcher(workspace, open_page, served)
        with recording(watcher.report, workspace) as report:
            _, published = pipeline.run(
                Recipe.model_validate(RECIPE), Workspace(workspace), report, 1, announce=lambda _: None
            )
        page = watcher.page
        assert page is not None
        page.wait_for_selector(f"#summary:has-text('{len(published.rows)} rows')")
        page.wait_for_selector("#run", state="hidden")
        assert page.locator("#table tbody tr").count() == len(published.rows)
        page.close()
    assert {"stages", "learning"} <= set(watcher.seen)
    assert len(loads) >= 3, "the page loaded again when rows came in"
    assert not [one for one in loads if one.startswith("error")]
