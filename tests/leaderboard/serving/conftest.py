"""Real servers on 127.0.0.1, and requests of them."""

import contextlib
import http.client
import threading

import pytest

from tutelage.leaderboard.serving import server
from tutelage.leaderboard.serving.limits import Rate
from tutelage.leaderboard.serving.server import make_server
from tutelage.leaderboard.store import Store

TOKEN = "kept-0123456789-in-nobodys-page"


class Served:
    """A board that is served, and what asks it."""

    def __init__(self, store, port):
        self.store, self.port = store, port

    def ask(self, path, method="GET", headers=None, body=None, source="127.0.0.1"):
        """Give status, headers and text of an answer; source: the address of 127.0.0.0/8 that asks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300, source_address=(source, 0))
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()


@pytest.fixture
def no_time_passes(monkeypatch):
    """Let no request be granted anew while a test asks: a busy host may take longer than a rate's minute."""
    monkeypatch.setattr(server, "Rate", lambda most: Rate(most, clock=lambda: 0.0))


@pytest.fixture
def serve(tmp_path, demo):
    """Give a function that serves five rows, and others, by the options of `make_server`."""
    with contextlib.ExitStack() as stack:

        def start(rows=(), **options):
            store = Store(tmp_path / "leaderboard.db")
            store.add([*demo[0][:5], *rows], demo[1][:5])
            made = make_server(store.place, **options)
            thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            stack.callback(thread.join)
            stack.callback(made.server_close)
            stack.callback(made.shutdown)
            return Served(store, made.server_address[1])

        yield start
