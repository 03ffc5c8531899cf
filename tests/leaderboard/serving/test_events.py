"""What an open page receives: new rows, and what a run is doing."""

import http.client
import json
import os
import re
import time

import pytest

from tutelage.leaderboard.serving.access import Access
from tutelage.leaderboard.serving.events import Events
from tutelage.leaderboard.serving.limits import Limits
from tutelage.live import note_plan, recording, state_of
from tutelage.pipeline.curves import with_learning
from tutelage.pipeline.workspace import CHECKPOINT
from tutelage.progress import silent
from tutelage.records import Row, utc_now

from .conftest import TOKEN

NEW = Row(model="new", role="student", dataset="d")


class Stream:
    """The events that a server sends, one after the other."""

    def __init__(self, served, headers=None):
        self.connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=300)
        self.connection.request("GET", "/events", headers=headers or {})
        self.answer = self.connection.getresponse()

    def next(self, wanted):
        """Give the data of the next event of a name."""
        name = ""
        while line := self.answer.readline().decode():
            name = line[7:].strip() if line.startswith("event: ") else name
            if line.startswith("data: ") and name == wanted:
                return line[6:].strip()
        raise AssertionError("the stream ended")

    def close(self):
        self.answer.close()
        self.connection.close()


def test_new_rows_and_the_state_of_a_run_are_sent_as_they_come(serve):
    state = {}
    served = serve(state=lambda: dict(state))
    stream = Stream(served)
    assert stream.answer.headers["Content-Type"].startswith("text/event-stream")
    assert (stream.next("version"), stream.next("run")) == ("rows-5", "{}")
    served.store.add([NEW])
    assert stream.next("version") == "rows-6"
    state["recipe"] = "line\nbreak"
    assert json.loads(stream.next("run")) == state
    late = Stream(served)
    assert (late.next("version"), json.loads(late.next("run"))) == ("rows-6", state)
    stream.close()
    late.close()


def test_learning_curves_are_sent_apart_from_what_changes_every_second(serve):
    state = {"recipe": "r", "learning": [{"title": "train a", "epoch": [1], "loss": [2.0]}]}
    served = serve(state=lambda: dict(state))
    stream = Stream(served)
    assert json.loads(stream.next("run")) == {"recipe": "r"}
    assert json.loads(stream.next("learning")) == state["learning"]
    state["learning"] = [{"title": "train a", "epoch": [1, 2], "loss": [2.0, 1.5]}]
    assert json.loads(stream.next("learning"))[0]["epoch"] == [1, 2]
    stream.close()


def test_the_epochs_of_a_training_are_read_of_its_checkpoint(tmp_path):
    import torch

    from tutelage.distill.training.checkpoint import save_checkpoint

    key = "0123456789abcdef"
    folder = tmp_path / "artifacts" / f"{key}-1" / CHECKPOINT
    state = {"recipe": "r", "folders": {"train a": f"{key}-1", "evil": "../../x", "absent": key}}
    assert with_learning(state, tmp_path) == {"recipe": "r"}
    history = []
    for epoch in range(3):
        history.append({"epoch": epoch, "loss": 2.0 - epoch, "val_accuracy": 0.5, "val_auc": None, "seconds": 1.0})
        save_checkpoint(folder, epoch + 1, {"model": {"w": torch.zeros(2)}}, {}, {"history": history})
        (found,) = with_learning(state, tmp_path)["learning"]
        assert found["epoch"] == list(range(1, epoch + 2))
    assert found == {"title": "train a", "epoch": [1, 2, 3], "loss": [2.0, 1.0, 0.0], "val_accuracy": [0.5] * 3}
    (folder / "epoch-00003" / "state.json").write_text('{"torn')
    assert with_learning(state, tmp_path) == {"recipe": "r"}


def test_who_may_not_read_follows_nothing_and_followers_are_few(serve):
    served = serve(access=Access(TOKEN), limits=Limits(followers=3, followers_each=2))
    assert served.ask("/events")[0] == 401
    headers = {"Authorization": f"Bearer {TOKEN}"}
    held = [Stream(served, headers) for _ in range(2)]
    assert served.ask("/events", headers=headers)[0] == 503
    assert served.ask("/version", headers=headers)[0] == 200
    for stream in held:
        stream.close()


def test_nobody_looks_while_nobody_follows_and_a_stream_ends():
    looks, version = [], ["rows-0"]
    events = Events(lambda: looks.append(1) or version[0], dict, seconds=0.001)
    stream = events.follow(most_seconds=3600)
    assert next(stream) == "retry: 3000\n\n"
    assert "event: version\ndata: rows-0\n\n" in next(stream)
    version[0] = "rows-1"
    assert "event: version\ndata: rows-1\n\n" in next(stream), "looked on until something changed"
    stream.close()
    assert list(events.follow(most_seconds=0.0)) == ["retry: 3000\n\n"]
    while events._is_looking:
        time.sleep(0.001)
    num = len(looks)
    time.sleep(0.05)  # a slow host looks no more often
    assert len(looks) == num


def test_a_look_that_fails_is_not_the_last_one(caplog):
    """A file went while it was looked at: readers still get what the next look finds."""
    tries = []

    def state():
        tries.append(1)
        if len(tries) == 1:
            raise FileNotFoundError("artifacts/a/checkpoint")
        return {"recipe": "r"}

    stream = Events(lambda: "rows-0", state, seconds=0.001).follow(most_seconds=3600)
    assert next(stream) == "retry: 3000\n\n"
    assert 'event: run\ndata: {"recipe":"r"}' in next(stream)
    stream.close()
    assert "artifacts/a/checkpoint" in caplog.text


def test_a_run_says_what_it_does_and_that_it_ended(tmp_path):
    assert state_of(tmp_path) == {}
    with recording(silent, tmp_path) as report:
        report("train a", 1, 4)
        note_plan(tmp_path, "tiny", [("train a", "k1"), ("train b", "k2"), ("evaluate", "k3"), ("search s", "")])
        events = [("start", "train 0", "k0"), ("done", "train 0", "k0"), ("start", "train a", "k1")]
        lines = [
            json.dumps({"event": event, "stage": stage, "key": key, "time": utc_now()}) for event, stage, key in events
        ]
        (tmp_path / "journal.jsonl").write_text("\n".join([*lines, '{"torn']))
        said = state_of(tmp_path)
        (task,) = said["tasks"]
        assert (task["text"], task["done"], task["total"]) == ("train a", 1, 4)
        assert task["left"] == pytest.approx(3 * task["seconds"], abs=3)
        assert said["recipe"] == "tiny"
        expected = [["train a", "running"], ["train b", "waiting"], ["evaluate", "waiting"], ["search s", "waiting"]]
        expected.append(["train 0", "done"])
        assert said["stages"] == expected
        searching = json.dumps({"event": "done", "stage": "search s", "key": "k9", "time": utc_now()})
        (tmp_path / "journal.jsonl").write_text("\n".join([*lines, searching]))
        assert state_of(tmp_path)["stages"] == [*expected[:3], ["search s", "done"], expected[4]]
        report("train a", 4, 4)
        assert state_of(tmp_path)["tasks"] == []
        written = json.loads((tmp_path / "progress.json").read_text())
        assert written["pid"] == os.getpid()
        (tmp_path / "progress.json").write_text(json.dumps({**written, "pid": 2**22 + 7}))
        assert state_of(tmp_path) == {}, "a run that was killed does not go on"
        (tmp_path / "progress.json").write_text(json.dumps({**written, "pid": 2**22 + 7, "host": "elsewhere"}))
        assert state_of(tmp_path), "of another machine nobody knows"
        (tmp_path / "progress.json").write_text(json.dumps({**written, "born": 0.0}))
        assert state_of(tmp_path) == {}, "after a restart its number is another process's"
    assert state_of(tmp_path) == {}
    with recording(silent, tmp_path / "absent"):
        pass
    assert not (tmp_path / "absent").exists(), "a command that is refused leaves nothing"


@pytest.mark.slow
def test_the_page_shows_the_run_and_new_rows_without_being_asked(serve, browser):
    evil = "<img src=x onerror=window.hacked=1>"
    state = {"recipe": evil, "tasks": [{"text": evil, "done": 1, "total": 4, "seconds": 30, "left": 90}]}
    state["stages"] = [["train a", "done"], [evil, "running"], ["train b", "waiting"]]
    served = serve(state=lambda: dict(state))
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    page.goto(f"http://127.0.0.1:{served.port}/")
    page.fill("#query", "densenet121")
    page.wait_for_selector("#run progress")
    assert "stages: 1 finished, 1 waiting" in page.inner_text("#run")
    assert f"{evil}: 1 of 4, 30 s, about 2 min left" in page.inner_text("#run")
    assert page.evaluate("window.hacked") is None
    served.store.add([NEW])
    page.wait_for_selector("text=6 rows")
    assert page.input_value("#query") == "densenet121"
    page.wait_for_selector("#run progress")
    state.clear()
    page.wait_for_selector("#run", state="hidden")
    assert re.search("6 rows", page.inner_text("#summary"))
    page.close()
