"""What a client may take of a served board: sizes, times, rates and threads are bounded, and others are answered."""

import contextlib
import dataclasses
import http.client
import socket
import threading
import time

import pytest

from tutelage.leaderboard.serving.access import Access
from tutelage.leaderboard.serving.limits import Limits, Rate, Room, client_of

from .conftest import TOKEN


def sent(port, data, source="127.0.0.1"):
    """Open a connection and send some bytes of a request."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=300, source_address=(source, 0))
    connection.sendall(data)
    return connection


def answer(connection):
    """Read an answer to its end."""
    parts = []
    with connection, contextlib.suppress(ConnectionError):
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts).decode()


def test_a_rate_lets_a_burst_go_and_then_so_many_a_minute():
    now = [0.0]
    rate = Rate(6, clock=lambda: now[0])
    assert [rate.spend("a") for _ in range(7)] == [0, 0, 0, 0, 0, 0, 10.0]
    assert rate.spend("b") == 0, "a rate of one client is not another's"
    now[0] += 4.0
    assert rate.wait("a") == pytest.approx(6.0)
    now[0] += 6.5
    assert rate.spend("a") == 0
    assert rate.spend("a") > 0
    now[0] += 3600
    assert [rate.spend("a") for _ in range(7)][5:] == [0, 10.0], "nobody saves up more than a minute's"
    for n in range(5_000):
        rate.spend(str(n))
    assert len(rate._left) <= 4_096, "addresses are forgotten, not kept without end"


def test_a_room_holds_so_many_and_so_many_of_one():
    room = Room(3, 2)
    assert [room.enter(one) for one in ("a", "a", "a", "b", "c")] == [True, True, False, True, False]
    room.leave("a")
    assert room.enter("c")


@pytest.mark.parametrize(
    ("address", "client"),
    [
        *(("10.1.2.3", "10.1.2.3"), ("::ffff:10.1.2.3", "10.1.2.3"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")),
        *(("fe80::1%eth0", "fe80::"), ("odd", "odd")),
    ],
)
def test_a_client_is_an_address_and_of_ipv6_a_network(address, client):
    assert client_of(address) == client


def test_one_client_asks_so_often_and_another_still_may(serve, no_time_passes):
    served = serve(limits=Limits(requests_a_minute=5))
    statuses = [served.ask("/version", source="127.0.0.9")[0] for _ in range(7)]
    assert statuses == [200] * 5 + [429] * 2
    assert served.ask("/version", source="127.0.0.8")[0] == 200


def test_the_users_of_a_proxy_have_a_rate_each(serve, no_time_passes):
    access = Access(proxy_header="X-Remote-User", proxies=("127.0.0.5",))
    served = serve(access=access, limits=Limits(requests_a_minute=3, connections_each=1))
    for user in ("ada", "ben"):
        asked = {"headers": {"X-Remote-User": user}, "source": "127.0.0.5"}
        assert [served.ask("/version", **asked)[0] for _ in range(4)] == [200] * 3 + [429]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 30_000, "431"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 3_000, "431"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 30_000, "431"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 101 + b"\r\n", "431"),
        (b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n", "413"),
        (b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n", "413"),
        (b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", "411"),
        (b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: \xb2\r\n\r\n", "411"),
        (b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0", "411"),
        (b"GET / HTTP/9.9\r\n\r\n", "505"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"),
        (b"<script> / HTTP/1.0\r\nHost: localhost\r\n\r\n", "501"),
        (b"GET http://[ HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer TOKEN\r\n\r\n", "404"),
        (b"GET http://[<script>/ HTTP/1.0\r\nHost: localhost\r\n\r\n", "401"),
        (b"POST http://[/login HTTP/1.0\r\nHost: localhost\r\n\r\n", "501"),
        (
            b"GET http://evil.example/<script>/ HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer TOKEN\r\n\r\n",
            "404",
        ),
    ],
)
def test_what_is_too_large_or_no_request_is_refused_in_a_line(serve, request_, status):
    served = serve(access=Access(TOKEN))
    answered = answer(sent(served.port, request_.replace(b"TOKEN", TOKEN.encode())))
    assert answered.split()[1] == status
    assert "<" not in answered.partition("\r\n\r\n")[2], "nothing of a request is repeated"
    assert served.ask("/version", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200


def test_one_address_has_so_many_connections_and_others_are_answered(serve):
    served = serve(limits=Limits(connections_each=3, request_seconds=600))
    slow = [sent(served.port, b"GET / HTTP/1.1\r\n", source="127.0.0.9") for _ in range(3)]
    answered = answer(sent(served.port, b"GET /version HTTP/1.0\r\nHost: localhost\r\n\r\n", source="127.0.0.9"))
    assert " 503 " in answered
    assert served.ask("/version", source="127.0.0.8")[0] == 200
    for connection in slow:
        connection.close()


def test_a_request_that_trickles_in_is_ended_however_its_bytes_come(serve):
    served = serve(limits=Limits(connections_each=3, request_seconds=0.6))
    slow = [sent(served.port, b"GET / HTTP/1.1\r\n", source="127.0.0.9") for _ in range(3)]
    ended = threading.Event()

    def trickle():
        with contextlib.suppress(OSError):
            while not ended.wait(0.05):
                slow[0].sendall(b"X: y\r\n")

    thread = threading.Thread(target=trickle)
    thread.start()
    assert [answer(connection) for connection in slow] == [""] * 3
    ended.set()
    thread.join()
    assert status_in_the_end(served, source="127.0.0.9") == 200, "the threads are free again"


def status_in_the_end(served, **asked):
    """Ask until there is a free thread, and until the host sends a whole request in time."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            if (status := served.ask("/version", **asked)[0]) != 503:
                return status
        time.sleep(0.01)
    return None


def test_an_answer_that_nobody_takes_is_ended(serve, demo):
    rows = [
        row.model_copy(update={"recipe": f"{n}" + "r" * 200_000, "measurement": ""})
        for n, row in enumerate(demo[0][:60])
    ]
    served = serve(rows, limits=Limits(answer_seconds=0.3, bytes_a_second=10**9, exports=1))
    lazy = sent(served.port, b"GET /rows.csv HTTP/1.0\r\nHost: localhost\r\n\r\n")
    end = time.monotonic() + 120
    while (said := served.ask("/rows.csv")[0]) != 200 and time.monotonic() < end:
        time.sleep(0.25)  # others are exporting: until the lazy one is disconnected
    assert said == 200
    answered = answer(lazy)
    assert 0 < len(answered) < 12_000_000


def test_more_connections_than_threads_are_told_so_at_once(serve):
    served = serve(limits=Limits(connections=4, connections_each=2, request_seconds=600))
    held = [sent(served.port, b"G", source=f"127.0.0.{10 + n // 2}") for n in range(4)]
    assert " 503 " in answer(sent(served.port, b"GET / HTTP/1.0\r\n\r\n", source="127.0.0.20"))
    for connection in held:
        connection.close()
    assert status_in_the_end(served) == 200


def test_the_limits_are_what_the_guide_says():
    from pathlib import Path

    said = (Path(__file__).resolve().parents[3] / "docs" / "serving.md").read_text()
    for name, value in dataclasses.asdict(Limits()).items():
        assert f"{value:,g}" in said, name
