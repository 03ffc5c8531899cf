"""What the tests of the store share: a row of a run that goes on, and the check of a database file."""

import sqlite3
from pathlib import Path

from tutelage.records import Row


def integrity(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def run_row(state: str, **figures: float) -> Row:
    made = {
        "recipe": {"name": "tiny"},
        "file": {"path": f"artifacts/{state}/m.onnx", "sha256": "f" * 64},
        "network": {"weights": {"path": "w", "sha256": "w" * 64}},
    }
    return Row(model="m", role="student", dataset="d", details={"state": state, "how": made}, **figures)
