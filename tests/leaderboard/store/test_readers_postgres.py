"""Who may only read a board on a real PostgreSQL server: what they see, and that they change nothing."""

import threading
import urllib.request
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tutelage.cli.app import app
from tutelage.leaderboard.serving.server import make_server
from tutelage.leaderboard.store import Store, ranking
from tutelage.leaderboard.store.page import Request
from tutelage.records import InputError, Row

pytestmark = pytest.mark.slow


def test_a_reader_of_the_server_changes_nothing_and_creates_nothing(url):
    with pytest.raises(InputError, match="holds no leaderboard yet"):
        Store(url, read_only=True)
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg"))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar() == 0
    writer = Store(url)
    writer.add([Row(model="m", role="student", dataset="d")])
    reader = Store(url, read_only=True)
    assert reader.count() == 1
    with reader._read() as connection, pytest.raises(Exception, match="read-only transaction"):
        connection.execute(text("CREATE TABLE mine (x int)"))
    for store in (reader, writer):
        store.close()
    engine.dispose()


def served_pages(place: str, *paths: str) -> list[str]:
    """Serve a board as `leaderboard serve` does, and get some of its pages."""
    server = make_server(place)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        return [urllib.request.urlopen(address + path, timeout=300).read().decode() for path in paths]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def viewers_verbs(viewer: str, rows: list[Row], folder: Path, monkeypatch, capsys) -> None:
    """Look at the board by every verb that reads, and see those that write refused in one line."""
    monkeypatch.setenv("TUTELAGE_STORE", viewer)
    workspace = ["-w", str(folder / "none")]

    def printed(*words: str) -> str:
        app(["leaderboard", *words, *workspace], standalone_mode=False)
        return capsys.readouterr().out

    assert all(row.model in printed("show", "--filter", "auc>0") for row in rows)
    assert "m1" in printed("show", rows[1].key)
    assert rows[1].key in printed("show", rows[1].key, "--how")
    assert "No paired test" in printed("compare", rows[0].key, rows[1].key)
    assert printed("export", "--format", "csv").count("\n") == 1 + len(rows)
    assert f"{len(rows)} rows" in printed("build", "--out", str(folder / "page.html"))
    assert "m2" in (folder / "page.html").read_text()
    page, table = served_pages(viewer, "/", "/rows.csv")
    assert "m2" in page
    assert table.count("\n") == 1 + len(rows)
    for words in (["retract", rows[0].key, "--reason", "no"], ["tag", rows[0].key, "+mine"]):
        with pytest.raises(InputError, match="permission denied") as caught:
            app(["leaderboard", *words, "--workspace", str(folder / "none")], standalone_mode=False)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)


def test_a_role_that_may_only_read_sees_the_board_and_changes_nothing(url, tmp_path, monkeypatch, capsys):
    """As docs/leaderboard.md grants it."""
    writer = Store(url)
    rows = [Row(model=f"m{n}", role="student", dataset="d", auc=0.5 + n / 10) for n in range(3)]
    writer.add(rows)
    docs = Path(__file__).parents[3] / "docs" / "leaderboard.md"
    granted = docs.read_text().split("```sql\n")[1].split("```")[0].replace("'...'", "'secret'")
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(text(granted))
    viewer = url.replace("tester@", "viewer:secret@")
    reader = Store(viewer, read_only=True)
    assert reader.rows() == rows
    page = ranking.page_of(reader, Request("auc>0", sort="auc"), ("row_id",))
    assert page.marks == ["*", "", ""]
    assert len(list(ranking.export_parts(reader)())) == 1
    with pytest.raises(InputError, match="permission denied"):
        Store(viewer).add([Row(model="mine", role="student", dataset="d")])
    with pytest.raises(InputError, match="permission denied"):
        Store(viewer).retract(rows[0].key, "not theirs")
    viewers_verbs(viewer, rows, tmp_path, monkeypatch, capsys)
    assert writer.count() == 3
    assert [writer.former(row.key)["retracted"] for row in rows] == ["", "", ""]
    for store in (reader, writer):
        store.close()
    with engine.begin() as connection:
        connection.execute(text("DROP OWNED BY viewer; DROP ROLE viewer"))
    engine.dispose()
