"""Make the bundle of a row that no run bundled, when a reader of a served board asks for it (`Bundler`)."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from tutelage.leaderboard.serving.downloads import AbsentError, BusyError
from tutelage.pipeline.curves import Details
from tutelage.pipeline.workspace import IN_USE

from .downloads import BUNDLES, REQUESTED, has_whole_bundle

log = logging.getLogger(__name__)

# A row whose bundle could not be made is not tried again for so long.
_PAUSE_SECONDS = 60.0


class Bundler:
    """Makes bundles as `tutelage bundle make` does: one at a time, each in a process of its own, a few are kept."""

    def __init__(self, workspace: Path, details: Details, *, seconds: float = 600.0, most: int = 20) -> None:
        """seconds: that one may take; most: bundles that are kept, the oldest goes first."""
        self._workspace, self._details, self._seconds, self._most = workspace, details, seconds, most
        self._place = workspace / BUNDLES / REQUESTED
        self._turn = threading.Lock()
        self._failed: dict[str, float] = {}

    def make(self, row_id: str) -> None:
        """Make the bundle of a row; BusyError while another is made or a run goes on, else AbsentError."""
        if row_id.startswith("-") or row_id not in self._details([row_id]):  # no word of a command
            raise AbsentError(f"no row {row_id[:8]} is on the board: it may be superseded or retracted")
        if not self._turn.acquire(blocking=False):
            raise BusyError("another bundle is being made: try again")
        try:
            self._failed = {
                one: since for one, since in self._failed.items() if time.monotonic() < since + _PAUSE_SECONDS
            }
            if has_whole_bundle(self._workspace, row_id):  # made since this reader looked
                return
            if row_id in self._failed or not self._made(row_id):
                self._failed.setdefault(row_id, time.monotonic())
                raise AbsentError(f"no bundle of row {row_id[:8]} could be made here: the server's messages say why")
            kept = sorted(self._place.glob("[!.]*"), key=lambda folder: folder.stat().st_mtime_ns)
            for old in kept[: -self._most]:
                shutil.rmtree(old, ignore_errors=True)
        finally:
            self._turn.release()

    def _made(self, row_id: str) -> bool:
        out = self._place / row_id
        shutil.rmtree(out, ignore_errors=True)  # one that is not whole any more
        command = [sys.executable, "-P", "-m", "tutelage", "bundle", "make", row_id, "--out", str(out)]
        command += ["--workspace", str(self._workspace)]
        try:
            self._place.mkdir(parents=True, exist_ok=True)
            for left in self._place.glob(".*"):  # by a command that was killed; a younger one may be another server's
                if left.stat().st_mtime < time.time() - self._seconds:
                    shutil.rmtree(left, ignore_errors=True)
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=self._seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            log.warning("bundle of row %s: it took more than %.0f seconds", row_id, self._seconds)
            return False
        except OSError as error:
            log.warning("bundle of row %s: %s", row_id, error)
            return False
        why = (done.stderr.strip().splitlines() or ["no message"])[-1] if done.returncode else ""
        if IN_USE in why:
            raise BusyError("a run goes on in the workspace: try again when it has ended")
        if not why and not has_whole_bundle(self._workspace, row_id):
            why = "it was made, but is not whole"
        if why:
            log.warning("bundle of row %s: %s", row_id, why)
        return not why
