"""A real PostgreSQL server for tests, started where Debian's `postgresql` is installed, and an empty database of it."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text


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
