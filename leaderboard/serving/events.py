"""Tell readers what changes while they look, as server-sent events (`Events`): the page, a run, its learning."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tutelage.records import InputError

log = logging.getLogger(__name__)

# Seconds between two looks, of one thread for all readers: a look takes the largest numbers of three tables by their
# keys, and counts nothing.
LOOK_SECONDS = 1.0
# A silent stream says so often that it lives, and ends so late: the reader comes back and shows again who it is.
_ALIVE_SECONDS, _MOST_SECONDS = 15.0, 600.0


class Events:
    """The stream of a page's readers; a thread looks at the store only while there are readers."""

    def __init__(
        self, version: Callable[[], str], state: Callable[[], Mapping[str, Any]], seconds: float = LOOK_SECONDS
    ) -> None:
        self._version, self._state, self._seconds = version, state, seconds
        self._changed = threading.Condition()
        self._said: dict[str, str] = {}
        self._num_readers = 0
        self._is_looking = False

    def follow(self, most_seconds: float = _MOST_SECONDS) -> Iterator[str]:
        """Yield events as a stream has them: all that is known first, then what changes."""
        ends = time.monotonic() + most_seconds
        sent: dict[str, str] = {}
        with self._changed:
            self._num_readers += 1
            if not self._is_looking:
                self._is_looking = True
                threading.Thread(target=self._look, daemon=True).start()
        try:
            yield "retry: 3000\n\n"
            while time.monotonic() < ends:
                with self._changed:
                    self._changed.wait_for(lambda: self._said != sent, timeout=_ALIVE_SECONDS)  # noqa: B023 - at once
                    news = {name: text for name, text in self._said.items() if sent.get(name) != text}
                    sent = dict(self._said)
                yield "".join(f"event: {name}\ndata: {text}\n\n" for name, text in news.items()) or ": alive\n\n"
        finally:
            with self._changed:
                self._num_readers -= 1

    def _look(self) -> None:
        while True:
            try:
                run = dict(self._state())
                learning = run.pop("learning", [])  # apart: it changes once an epoch, and the rest every second
                said = {"version": self._version(), "run": _written(run), "learning": _written(learning)}
            except Exception as error:  # noqa: BLE001 - a file that went meanwhile, say: the next look may succeed
                log.warning("%s", error if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
                said = dict(self._said)
            with self._changed:
                if said != self._said:
                    self._said = said
                    self._changed.notify_all()
                if not self._num_readers:
                    self._is_looking = False
                    return
            time.sleep(self._seconds)


def _written(value: Any) -> str:
    """Write a value as JSON, which is one line."""
    return json.dumps(value, separators=(",", ":"))
