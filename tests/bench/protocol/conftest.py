"""What tests of the measuring protocol share: the network that they send to a runner, and a host behind ssh."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tutelage.bench.protocol.anchors import AnchorNet, anchor_onnx
from tutelage.records import DeviceProfile

from .far import PATIENCE_S, Far


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    path = tmp_path_factory.mktemp("models") / "net.onnx"
    path.write_bytes(anchor_onnx(AnchorNet("dense", 32, 20, 1, 4)))
    return {"net": path}


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    """Start an sshd of our own with its own keys."""
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not (sshd and shutil.which("ssh") and shutil.which("ssh-keygen")):
        pytest.skip("no sshd on this machine: install openssh-server to test remote devices")
    folder = tmp_path_factory.mktemp("sshd")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    with socket.socket() as probe, socket.socket() as other:
        for one in (probe, other):
            one.bind(("127.0.0.1", 0))
        port, narrow = probe.getsockname()[1], other.getsockname()[1]
    key = (folder / "host.pub").read_text()
    (folder / "known").write_text("".join(f"[127.0.0.1]:{one} {key}" for one in (port, narrow)))
    temporary, python = folder / "there", folder / "python"
    temporary.mkdir()
    # A shell's start-up files may change PATH: the Python to use there is named as a user of that host would.
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "PidFile": folder / "pid",
        "AuthorizedKeysFile": folder / "authorized", "StrictModes": "no", "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no", "UsePAM": "no", "PermitRootLogin": "yes",
        "SetEnv": f"TUTELAGE_PYTHON={python} TMPDIR={temporary} OMP_NUM_THREADS=7",
    }  # fmt: skip
    lines = [f"{key} {value}" for key, value in settings.items()]
    lines = [f"Port {narrow}", *lines, f"Match LocalPort {narrow}", "MaxSessions 1"]
    (folder / "config").write_text("\n".join(lines))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd as root wants its empty folder
    log = folder / "log"
    with log.open("w") as written:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "config")], stderr=written)
    client = (
        "ssh", "-F", "none", "-p", str(port), "-i", str(folder / "user"), "-o", "IdentitiesOnly=yes",
        "-o", f"UserKnownHostsFile={folder / 'known'}",
    )  # fmt: skip
    try:
        end = time.monotonic() + PATIENCE_S
        while subprocess.run([*client, "127.0.0.1", "true"], capture_output=True).returncode:
            assert time.monotonic() < end, f"sshd does not answer: {log.read_text()[-300:]}"
            if server.poll() is not None:
                pytest.skip(f"sshd does not run here: {log.read_text()[-300:]}")
            time.sleep(0.1)
        yield Far(client, python, temporary, log, str(narrow))
    finally:
        server.terminate()
        server.wait(timeout=PATIENCE_S)


@pytest.fixture
def far(ssh: Far) -> Far:
    """Give the host with a Python that works and nothing of a test before left there."""
    ssh.python.unlink(missing_ok=True)
    ssh.python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    ssh.python.chmod(0o755)
    assert not ssh.left()
    return ssh


@pytest.fixture
def device() -> DeviceProfile:
    return DeviceProfile(name="far", runtime="onnxruntime", host=f"{getpass.getuser()}@127.0.0.1")
