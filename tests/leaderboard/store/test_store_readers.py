"""Readers of a store write nothing and wait for nobody, even where they may not write."""

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tutelage.leaderboard.store import Store
from tutelage.records import InputError, Row


def test_a_reader_writes_nothing(tmp_path):
    Store(tmp_path / "leaderboard.db")
    with pytest.raises(InputError, match="read only"):
        Store(tmp_path / "leaderboard.db", read_only=True).add([Row(model="m", role="student", dataset="d")])


def test_a_reader_does_not_wait_for_a_writer(tmp_path):
    path = tmp_path / "leaderboard.db"
    Store(path).add([Row(model="m", role="student", dataset="d")])
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    reader = Store(path, read_only=True)  # would wait for BUSY_SECONDS and fail
    assert reader.count() == 1
    writer.close()


# Ends without closing, while another connection is open, so that nobody folds the log into the file.
KILLED = """
import os, sqlite3, sys
from tutelage.leaderboard.store import Store
from tutelage.records import Row
held = sqlite3.connect(sys.argv[1])
held.execute("SELECT * FROM rows").fetchone()
Store(sys.argv[1]).add([Row(model="b", role="student", dataset="d")])
os._exit(0)
"""

# Reads a store as somebody who may write neither to it nor to its folder.
READER = """
import encodings.idna, os, sys
from tutelage.leaderboard.export import export
from tutelage.leaderboard.serving.server import make_server
from tutelage.leaderboard.store import Store
make_server(sys.argv[2]).server_close()  # imports what this interpreter's folder may refuse to others
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    open(sys.argv[1], "ab")
    sys.exit("the file can be written")
except PermissionError:
    pass
store = Store(sys.argv[1], read_only=True)
make_server(sys.argv[1]).server_close()
print([row.model for row in store.rows("dataset=d")], store.count())
"""


@pytest.mark.parametrize("log", [False, True])
def test_a_read_only_folder_can_be_read_to_the_last_row(log, tmp_path):
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        path = folder / "leaderboard.db"
        Store(path).add([Row(model="a", role="student", dataset="d")])
        shutil.copy(path, tmp_path / "own.db")
        if log:  # what a killed writer leaves: rows that are in the log alone
            subprocess.run([sys.executable, "-c", KILLED, str(path)], check=True)
            assert path.with_name("leaderboard.db-wal").stat().st_size > 0
            path.with_name("leaderboard.db-shm").unlink()
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        command = [sys.executable, "-c", READER, str(path), str(tmp_path / "own.db")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == ("['a', 'b'] 2" if log else "['a'] 1"), done.stderr
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
        folder.chmod(0o755)
