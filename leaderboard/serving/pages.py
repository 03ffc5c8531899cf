"""The page of the newest state of a store, made once for each state (`Pages`)."""

from __future__ import annotations

import logging
import threading

from tutelage.leaderboard.page.bodies import Details
from tutelage.leaderboard.page.build import page_text
from tutelage.leaderboard.page.choose import chosen
from tutelage.leaderboard.page.verdicts import Decide, decided_ids
from tutelage.leaderboard.store import Store
from tutelage.records import InputError

log = logging.getLogger(__name__)


class Pages:
    """The page of the newest state of a store that it was made for."""

    def __init__(self, store: Store, title: str, decide: Decide, limit: int, details: Details | None = None) -> None:
        """details: what pages show of single rows, by id; by default what the store holds."""
        self._store, self._title, self._decide, self._limit = store, title, decide, limit
        self._details = details or store.details
        self._lock = threading.Lock()
        self._made = ("", b"")
        self._making: threading.Thread | None = None

    def current(self) -> tuple[str, bytes]:
        """Give the version and the bytes of the page: of a large board the one of before, until the new one is made."""
        with self._lock:
            version = f"rows-{self._store.version()}"  # rows are only ever added, newer ones of the same id, too
            if version == self._made[0]:
                return self._made
            if not self._made[0] or self._store.count() <= self._limit:
                self._made = self._make(version)
            elif self._making is None or not self._making.is_alive():
                self._making = threading.Thread(target=self._make_beside, args=(version,), daemon=True)
                self._making.start()
            return self._made

    def _make_beside(self, version: str) -> None:
        try:
            made = self._make(version)
        except InputError as error:
            log.warning("%s", error)
            return
        with self._lock:
            self._made = made

    def _make(self, version: str) -> tuple[str, bytes]:
        # The version is older than the reading: a row that comes in meanwhile makes the page load once more.
        shown = chosen(self._store, limit=self._limit)
        verdicts = self._decide(self._store.rows(ids=decided_ids(shown.rows)))
        text = page_text(
            shown.rows, self._title, live=version, details=self._details, verdicts=verdicts, note=shown.note
        )
        return version, text.encode()  # once, and not for each reader: it may be of many megabytes
