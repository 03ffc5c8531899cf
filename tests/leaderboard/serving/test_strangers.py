"""What a stranger tries on a served board: names that are markup, paths, methods and sizes on every address it has."""

import contextlib
import hashlib
import socket
import sqlite3
import time

import pytest

from tutelage.leaderboard.columns import known
from tutelage.leaderboard.serving.access import Access
from tutelage.leaderboard.serving.limits import Limits
from tutelage.pipeline.sharing.downloads import Downloads
from tutelage.records import Row

from .conftest import TOKEN

EVIL = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
SECRET = b"nobody's to know"
MODEL = b"m" * 40_000_000


def named(text: str, seed: int) -> Row:
    """A row whose every text is this one, those of its details and the names in them too."""
    fields = {name: text for name, field in Row.model_fields.items() if field.annotation is str}
    details: dict = {}
    for one in known():
        if one.is_text and one.at:
            *folders, last = one.paths[0]
            place = details
            for folder in folders:
                place = place.setdefault(folder, {})
            place[last] = text
    learning = {"epoch": [1, 2], "loss": [2.0, 1.0], "val_auc": [0.7, 0.8], text: [1, 2]}
    trials = {"scored": text, "better": 1, "of": 4, "scores": [0.1, 0.4, 0.2, 0.3], "kept": [1, 1, 1, 0]}
    trials["costs"] = [{"name": text, "values": [1.0, 2.0, 3.0, 4.0]}]
    details |= {
        "per_class": {text: {"auc": 0.9, text: text}, "b": {"auc": 0.8}},
        "confusion": [[1, 2], [3, 4]],
        "curves": {
            "learning": learning,
            "roc": {text: [[0.0, 1.0], [0.0, 1.0]]},
            "calibration": [[0.6, 0.5, 4]],
            "trials": trials,
        },
        "search": {"file": text, "scored": text, "importances": {text: 0.9, "b": 0.1}},
        "layers": [{"name": text, "ms": 0.1, "operator": text}],
        "made": {"command": text, "file": text, "downloads": {"model": 3, text: 4}},
        "explained": [{text: text, "map": f"data:image/png;base64,{text}"}, {"map": text}],
        "explanation": {text: text},
        "versions": {text: text},
        "notes": [text],
        "data_notes": [text],
        "commit": text,
        "imported_from": text,
        text: [text, {text: text}],
    }
    more = {"role": "student", "source": "measured" if seed else "imported", "measurement": "", "created": text}
    return Row(
        **{**fields, **more, "seed": seed, "auc": 0.9 - seed / 100, "latency_p50_ms": 1.0 + seed, "details": details}
    )


@pytest.fixture
def board(serve, tmp_path):
    """A served workspace with a large model, a secret beside it, and its row."""
    folder = tmp_path / "artifacts" / "aa"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(MODEL)
    (tmp_path / "secret.txt").write_bytes(SECRET)
    file = {"path": "artifacts/aa/model.onnx", "sha256": hashlib.sha256(MODEL).hexdigest(), "size_bytes": len(MODEL)}
    row = Row(model="net", role="student", dataset="d", details={"how": {"file": file}}, auc=0.9)

    def start(**options):
        served = serve([row], **options)
        return served, row.key

    def find(row_id, what):
        from tutelage.leaderboard.store import Store

        return Downloads(tmp_path, Store(tmp_path / "leaderboard.db").details).find(row_id, what)

    return lambda **options: start(find=find, **options)


def raw(port, data):
    """Send bytes and read the answer, whatever it is; an event stream is left after its head."""
    with socket.create_connection(("127.0.0.1", port), timeout=300) as client, contextlib.suppress(ConnectionError):
        client.sendall(data)
        found = b""
        while part := client.recv(65_536):
            found += part
            if b"text/event-stream" in found:
                break
        return found
    return b""


@pytest.mark.slow
def test_no_text_that_anybody_can_name_is_markup_on_a_served_page(serve, browser, tmp_path):
    state = {
        "recipe": EVIL,
        "tasks": [{"text": EVIL, "done": 1, "total": 4, "seconds": 3, "left": 9}],
        "stages": [[EVIL, "running"], [EVIL, EVIL]],
        "learning": [{"title": EVIL, "epoch": [1, 2], "loss": [2.0, 1.0], "val_auc": [0.5, 0.6]}],
    }
    rows = [named(EVIL, seed) for seed in range(3)]
    served = serve(rows, title=EVIL, state=lambda: dict(state))
    with sqlite3.connect(tmp_path / "leaderboard.db") as connection:
        for row in rows:
            values = (row.key, EVIL[:40], 1, EVIL, EVIL)
            connection.execute('INSERT INTO tags (row_id, tag, is_set, "by", created) VALUES (?, ?, ?, ?, ?)', values)
    connection.close()
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    seen = []
    page.on("dialog", lambda dialog: seen.append(dialog.message))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.goto(f"http://127.0.0.1:{served.port}/")
    page.wait_for_selector("#run progress")
    page.wait_for_selector("#run .learning h3")
    page.check("#all-groups")
    for view in page.locator("#view option").evaluate_all("all => all.map(one => one.value)"):
        page.select_option("#view", view)
    page.locator("#table tbody tr", has_text="onerror").nth(0).locator("button").first.click()
    page.locator("#table tbody tr", has_text="onerror").nth(1).locator("button").first.click()
    assert EVIL in page.inner_text("#compare")
    page.select_option("#layout", "matrix")
    page.select_option("#layout", "rows")
    for row in rows:
        page.goto(f"http://127.0.0.1:{served.port}/#row={row.key}")
        page.wait_for_selector("#row-page .row-part")
        assert page.inner_text("#row-page").count("<script>") > 10
        assert page.locator("#row-page a[href^='javascript'], #row-page img:not([src^='data:image/'])").count() == 0
    assert page.evaluate("window.hacked") is None
    assert page.locator("[onerror]").count() == 0
    assert page.locator("script").count() == 2
    assert not seen
    page.close()


PATHS = [
    *("/rows/ROW/../../secret.txt", "/rows/%2e%2e%2f%2e%2e%2fsecret.txt/model", "/rows/..%5c..%5csecret.txt/model"),
    *("/rows/ROW/model/../../../secret.txt", "/rows/ROW%2f..%2fsecret.txt/model", "/rows/ROW%00/model"),
    *("/rows/ROW/model;x", "/rows/ROW/model%0d%0aX-Evil:1"),
    *("/rows/ROW/bundle/secret.txt", "/rows/ROW/figures.csv/x"),
    *("/rows/ROW/artifacts/aa/model.onnx", "/artifacts/aa/model.onnx", "/bundles/", "/secret.txt"),
    "/events/../secret.txt",
    *("/rows//model", "/rows/%c0%ae%c0%ae/model", "/rows/--help/bundle", "/rows/*/model", "/rows/ROW/MODEL"),
]  # fmt: skip


def test_no_address_leads_to_what_it_does_not_name(board):
    served, row_id = board()
    for path in PATHS:
        asked = path.replace("ROW", row_id).encode()
        found = raw(served.port, b"GET " + asked + b" HTTP/1.0\r\nHost: localhost\r\n\r\n")
        head, _, body = found.partition(b"\r\n\r\n")
        assert head.split()[1] == b"404", path
        assert len(body) < 200, path
        assert SECRET not in found, path
        assert b"x-evil" not in head.lower(), path
    # A query is read by nobody.
    status, _, text = served.ask(f"/rows/{row_id}/figures.csv?file=../../secret.txt")
    assert status == 200
    assert SECRET.decode() not in text


ADDRESSES = ["/rows/ROW/model", "/rows/ROW/bundle", "/rows/ROW/figures.csv", "/events", "/rows.csv", "/version", "/"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_address_has_the_same_bounds(board, address):
    served, row_id = board(access=Access(TOKEN))
    path, known_by = address.replace("ROW", row_id).encode(), f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    head = b" HTTP/1.0\r\nHost: localhost\r\n"
    assert raw(served.port, b"GET " + path + head + b"\r\n").split()[1] == b"401"
    assert raw(served.port, b"GET " + path + b"?token=" + TOKEN.encode() + head + b"\r\n").split()[1] == b"401"
    assert raw(served.port, b"GET " + path + b"x" * 30_000 + head + known_by).split()[1] == b"431"
    assert raw(served.port, b"GET " + path + head + b"X-A: " + b"a" * 30_000 + b"\r\n" + known_by).split()[1] == b"431"
    for method in (b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT", b"POST", b"get"):
        assert raw(served.port, method + b" " + path + head + known_by).split()[1] == b"501", method
    # The body of a request that has none is not waited for, and not read.
    length = b"Content-Length: 1000000000\r\n"
    status = raw(served.port, b"HEAD " + path + head + length + known_by).split()[1]
    assert status == (b"404" if address.endswith("bundle") else b"200")


def test_a_model_that_nobody_takes_is_ended_and_others_are_answered(board):
    limits = Limits(answer_seconds=0.3, bytes_a_second=10**9, downloads=1, downloads_each=1)
    served, row_id = board(limits=limits)
    asked = f"GET /rows/{row_id}/model HTTP/1.0\r\nHost: localhost\r\n\r\n".encode()
    lazy = socket.create_connection(("127.0.0.1", served.port), timeout=300)
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lazy.sendall(asked)
    assert lazy.recv(12) == b"HTTP/1.0 200"
    deadline = time.monotonic() + 300
    while (found := raw(served.port, asked)).split()[1] == b"503":  # until the lazy one is disconnected
        assert time.monotonic() < deadline
        time.sleep(0.25)  # 240 requests a minute: fewer than one client may ask
    assert found.split()[1] == b"200"
    with lazy, contextlib.suppress(ConnectionError):
        assert sum(iter(lambda: len(lazy.recv(65_536)), 0)) < len(MODEL)
