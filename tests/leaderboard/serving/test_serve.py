"""A real server on 127.0.0.1: read-only, three names, no way to a file."""

import http.client
import socket
import threading
import time

import pytest

from tutelage.leaderboard.page.verdicts import Verdicts
from tutelage.leaderboard.serving.handler import ADDRESSES
from tutelage.leaderboard.serving.server import make_server
from tutelage.leaderboard.store import Store
from tutelage.records import InputError, Row


@pytest.fixture
def served(tmp_path, demo):
    store = Store(tmp_path / "leaderboard.db")
    store.add(demo[0][:5], demo[1][:5])
    (tmp_path / "secret.txt").write_text("secret")
    server = make_server(tmp_path / "leaderboard.db")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield store, server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def ask(port, path, method="GET", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.putrequest(method, path, skip_host=bool(headers))
    for name, value in (headers or {}).items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_the_page_and_its_version_follow_the_store(served):
    store, port = served
    status, page = ask(port, "/")
    assert status == 200
    assert '"live":"rows-5"' in page
    assert "connect-src 'self'" in page
    assert ask(port, "/version") == (200, "rows-5")
    store.add([Row(model="new", role="student", dataset="d")])
    assert ask(port, "/version") == (200, "rows-6")
    assert ask(port, "/rows.csv")[1].count("\n") == 7
    assert ask(port, "/", "HEAD") == (200, "")


@pytest.mark.parametrize(
    "path",
    [
        *("/secret.txt", "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "//etc/passwd", "/etc/passwd"),
        *("/leaderboard.db", "/rows.csv/../secret.txt", "/version/"),
    ],
)
def test_no_path_leads_to_a_file(served, path):
    status, text = ask(served[1], path)
    assert status == 404
    assert "secret" not in text
    assert "root:" not in text


def test_who_asks_for_no_address_is_told_which_there_are(served):
    store, port = served
    (row,) = store.rows()[:1]
    for address in ADDRESSES:
        asked = address.replace("ROW", row.key)
        found = ask(port, asked, "HEAD" if asked == "/events" else "GET")
        assert found[0] == 200 or "of row" in found[1], address  # this board has no files
    status, text = ask(port, "/nowhere")
    assert (status, text.count("\n")) == (404, 1)
    assert all(address in text for address in ADDRESSES)


def test_it_only_reads(served):
    store, port = served
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert ask(port, "/", method)[0] == 501
    assert store.count() == 5


def test_another_host_name_is_refused(served):
    assert ask(served[1], "/", headers={"Host": "evil.example:80"})[0] == 403
    assert ask(served[1], "/version", headers={"Host": f"localhost:{served[1]}"})[0] == 200


def test_it_listens_on_this_machine_alone_and_says_when_a_port_is_taken(tmp_path):
    Store(tmp_path / "leaderboard.db")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="choose another --port"):
            make_server(tmp_path / "leaderboard.db", port=taken.getsockname()[1])
    server = make_server(tmp_path / "leaderboard.db")
    assert server.server_address[0] == "127.0.0.1"
    server.server_close()
    with pytest.raises(InputError, match="no leaderboard"):
        make_server(tmp_path / "absent.db")


def test_a_large_board_is_served_as_it_was_until_its_new_page_is_made(tmp_path, demo):
    store = Store(tmp_path / "leaderboard.db")
    store.add(demo[0][:5], demo[1][:5])
    made, release = [], threading.Event()

    def decide(rows):
        made.append(len(rows))
        assert len(made) == 1 or release.wait(60)
        return Verdicts()

    server = make_server(store.place, decide=decide, limit=3)
    assert made == [3], "the page is made before the server answers"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    port = server.server_address[1]
    try:
        assert "3 of 5 rows: those on a front" in ask(port, "/")[1]
        store.add([Row(model="new", role="student", dataset="d")])
        assert ask(port, "/version") == (200, "rows-5")
        assert '"live":"rows-5"' in ask(port, "/")[1]
        release.set()
        while ask(port, "/version")[1] != "rows-6":
            time.sleep(0.02)
        assert "3 of 6 rows: those on a front" in ask(port, "/")[1]
        assert made == [3, 3], "one page a state of the store"
        assert ask(port, "/rows.csv")[1].count("\n") == 7
    finally:
        release.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_only_the_head_of_an_export_is_sent_to_who_asks_for_it(served):
    with socket.create_connection(("127.0.0.1", served[1]), timeout=300) as client:
        client.sendall(b"HEAD /rows.csv HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    head, end, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200")
    assert b"Content-Type: text/csv; charset=utf-8" in head
    assert (end, body) == (b"\r\n\r\n", b"")
