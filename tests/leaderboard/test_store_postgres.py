"""The same store on a real PostgreSQL server, started here where Debian's `postgresql` is installed."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tutelage.leaderboard.store import Store
from tutelage.records import InputError, Row

pytestmark = pytest.mark.slow

WRITER = """
import sys
from tutelage.leaderboard.store import Store
from tutelage.records import Row
store = Store(sys.argv[1])
for start in range(0, 1000, 10):
    store.add([Row(model=f"{sys.argv[2]}-{n}", role="student", dataset="toy") for n in range(start, start + 10)])
"""


@pytest.fixture(scope="module")
def server():
    """A server of its own on a free port, in a folder that is removed; skipped with the reason where it cannot be."""
    pytest.importorskip("psycopg", reason="no PostgreSQL driver: pip install 'psycopg[binary]'")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not binaries:
        pytest.skip("no PostgreSQL server: apt-get install postgresql")
    user = None
    if os.geteuid() == 0:  # the server refuses to run as root
        try:
            user = pwd.getpwnam("postgres").pw_name
        except KeyError:
            pytest.skip("running as root and there is no user postgres to run the server as")
    folder = Path(tempfile.mkdtemp(prefix="tutelage-pg-"))
    if user:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = binaries[-1].parent
    aside = {"user": user, "cwd": folder, "check": True, "capture_output": True, "text": True, "timeout": 120}
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    log = folder / "server.log"
    try:
        subprocess.run([home / "initdb", "-D", folder / "data", "-A", "trust", "-U", "tester", "--no-sync"], **aside)
        subprocess.run([home / "pg_ctl", "-D", folder / "data", "-l", log, "-w", "-o", options, "start"], **aside)
    except subprocess.CalledProcessError as error:
        pytest.fail(f"{error.stderr}\n{log.read_text() if log.is_file() else ''}")
    yield f"postgresql://tester@127.0.0.1:{port}"
    subprocess.run([home / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"], **aside)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def url(server, request):
    """An empty database for each test."""
    name = f"test_{abs(hash(request.node.name)) % 10**8}"
    engine = create_engine(
        f"{server.replace('postgresql', 'postgresql+psycopg')}/postgres", isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{server}/{name}"


def test_rows_come_back_and_filters_agree_with_sqlite(url, tmp_path, demo):
    server, file = Store(url), Store(tmp_path / "leaderboard.db")
    assert server.add(*demo) == len(demo[0])
    assert server.add(*demo) == 0
    file.add(*demo)
    assert server.rows() == demo[0]
    assert server.measurement(demo[0][0].measurement) in demo[1]
    bounds = {"latency_p50_ms_lo": 1.25, "latency_p50_ms_hi": 2e-05}
    for store in (server, file):
        store.add([Row(model="with bounds", role="student", dataset="d", details=bounds)])
        found = store.columns("dataset=d", tuple(bounds))
        assert found == {name: [value] for name, value in bounds.items()}
    for wanted in (
        "latency_p50_ms<0.5 and role=student",
        "not teacher=empty or energy_mj=empty",
        "model~INT8 and size_bytes>1.5MB",
        "device in (host-ort) and not energy_mj<5",
    ):
        assert server.rows(wanted) == file.rows(wanted), wanted
    assert server.frame().equals(file.frame())
    assert server.merge(file) == len(demo[0]) + 1
    server.close()


def test_the_server_keeps_rows_append_only_and_refuses_lost_samples(url):
    store = Store(url)
    store.add([Row(model="m", role="student", dataset="d")])
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg"))
    for statement in ("UPDATE rows SET auc = 1", "DELETE FROM rows", "TRUNCATE measurements CASCADE"):
        with pytest.raises(Exception, match="append-only"), engine.begin() as connection:
            connection.execute(text(statement))
    with pytest.raises(InputError, match="names a measurement"):
        store.add([Row(model="bad", role="student", dataset="d", measurement="0123456789abcdef")])
    assert store.count() == 1
    engine.dispose()
    store.close()


def test_eight_processes_write_to_the_server(url):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, url, f"writer{n % 7}"], stderr=subprocess.PIPE, text=True)
        for n in range(8)
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=300)
        assert writer.returncode == 0, errors
    store = Store(url)
    assert sorted(row.model for row in store.rows()) == sorted(f"writer{n}-{i}" for n in range(7) for i in range(1000))
    store.close()


def test_a_server_that_is_away_is_told_in_one_line_without_the_password():
    with pytest.raises(InputError) as caught:
        Store("postgresql://tester:secret@127.0.0.1:1/none")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "server is up" in str(caught.value)
