"""Other hosts: a real sshd on the loopback address that the test starts, and launcher templates."""

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

from tutelage.bench.anchors import AnchorNet, anchor_onnx
from tutelage.bench.measure import measure
from tutelage.bench.remote import check_template, open_launcher
from tutelage.records import DeviceProfile, InputError

SHAPE = (32, 20, 20)
SHORT = {"rounds": 8, "samples": 40, "min_seconds": 0.0, "tolerance": 1.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    path = tmp_path_factory.mktemp("models") / "net.onnx"
    path.write_bytes(anchor_onnx(AnchorNet("dense", 32, 20, 1, 4)))
    return {"net": path}


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """Start an sshd of our own with its own keys; gives the client's command line for it."""
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not (sshd and shutil.which("ssh") and shutil.which("ssh-keygen")):
        pytest.skip("no sshd on this machine: install openssh-server to test remote devices")
    folder = tmp_path_factory.mktemp("sshd")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    # A shell's start-up files may change PATH: the Python to use there is named as a user of that host would.
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "PidFile": folder / "pid",
        "AuthorizedKeysFile": folder / "authorized", "StrictModes": "no", "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no", "UsePAM": "no", "PermitRootLogin": "yes",
        "SetEnv": f"TUTELAGE_PYTHON={sys.executable}",
    }  # fmt: skip
    (folder / "config").write_text("\n".join(f"{key} {value}" for key, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd as root wants its empty folder
    server = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.PIPE)
    client = (
        "ssh", "-F", "none", "-p", str(port), "-i", str(folder / "user"), "-o", "IdentitiesOnly=yes",
        "-o", f"UserKnownHostsFile={folder / 'known'}",
    )  # fmt: skip
    try:
        end = time.monotonic() + 10
        while subprocess.run([*client, "127.0.0.1", "true"], capture_output=True).returncode:
            if server.poll() is not None or time.monotonic() > end:
                server.kill()
                assert server.stderr is not None
                pytest.skip(f"sshd does not run here: {server.stderr.read().decode()[-300:]}")
            time.sleep(0.1)
        yield client
    finally:
        server.terminate()
        server.wait(timeout=10)
        if server.stderr is not None:
            server.stderr.close()


@pytest.fixture
def device() -> DeviceProfile:
    return DeviceProfile(name="far", runtime="onnxruntime", host=f"{getpass.getuser()}@127.0.0.1")


def left_behind() -> set[str]:
    """List the runner processes of remote folders that are alive."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue  # it ended meanwhile
            if any(part.startswith("/tmp/tmp.") and part.endswith("/runner.py") for part in command):
                found.add(entry.name)
    return found


@pytest.mark.slow
def test_measure_over_ssh(ssh: tuple[str, ...], device: DeviceProfile, models: dict[str, Path]):
    before = set(Path("/tmp").glob("tmp.*"))
    with open_launcher(device, ssh=ssh) as launcher:
        result = measure(models, device, SHAPE, launcher=launcher, **SHORT)["net"]
    assert result.device == "far"
    assert len(result.samples_ms) >= 40
    assert result.runtime_version
    assert result.peak_rss_bytes > result.runtime_rss_bytes
    time.sleep(0.3)
    assert not left_behind()
    assert not {path for path in set(Path("/tmp").glob("tmp.*")) - before if (path / "runner.py").exists()}


def test_an_unknown_host_key_is_refused(ssh: tuple[str, ...], device: DeviceProfile, tmp_path: Path):
    (tmp_path / "none").touch()
    stranger = [part if "UserKnownHostsFile" not in part else f"UserKnownHostsFile={tmp_path / 'none'}" for part in ssh]
    with pytest.raises(InputError, match="ost key verification failed"), open_launcher(device, ssh=stranger):
        pass


def test_a_wrong_key_and_a_dead_port_are_one_line(ssh: tuple[str, ...], device: DeviceProfile, tmp_path: Path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    other = [str(tmp_path / "k") if part.endswith("/user") else part for part in ssh]
    with pytest.raises(InputError, match="Permission denied") as caught, open_launcher(device, ssh=other):
        pass
    assert "\n" not in str(caught.value)
    dead = ["1" if part == ssh[4] else part for part in ssh]
    with pytest.raises(InputError, match="refused"), open_launcher(device, ssh=dead):
        pass


def test_a_lost_connection_leaves_nothing_running(ssh: tuple[str, ...], device: DeviceProfile, models: dict[str, Path]):
    from tutelage.bench.worker import ModelFile, Worker

    with open_launcher(device, ssh=ssh) as launcher:
        argv, seen = launcher([ModelFile(str(models["net"]), (1, *SHAPE))])
        worker = Worker("onnxruntime", seen, threads=1, precision="fp32", argv=argv)
        worker.greet()
        assert left_behind()
        worker._process.kill()  # the line is cut: ssh dies without a word
        worker.stop()
        end = time.monotonic() + 10
        while left_behind() and time.monotonic() < end:
            time.sleep(0.1)
        assert not left_behind()


def test_a_full_disk_there_is_told(ssh: tuple[str, ...], device: DeviceProfile, models: dict[str, Path]):
    from tutelage.bench.remote import SSH_OPTIONS, _copy

    with pytest.raises(InputError, match=r"No space left|disk full"):
        _copy([*ssh, *SSH_OPTIONS], device.host, models["net"], "/dev/full")


def test_a_command_template_starts_the_runner(models: dict[str, Path]):
    device = DeviceProfile(name="box", runtime="onnxruntime", command=f"env X={{folder}} {sys.executable} {{runner}}")
    result = measure(models, device, SHAPE, **SHORT)["net"]
    assert len(result.samples_ms) >= 40


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("python3", "must hold {runner}"),
        ("python3 {runner} {model}", "not {model}"),
        ("python3 '{runner}", "quote it"),
        ("", "must hold {runner}"),
    ],
)
def test_bad_templates_are_refused(template: str, message: str):
    with pytest.raises(InputError, match=message):
        check_template(template)


def test_hosts_that_are_options_are_refused():
    bad = DeviceProfile(name="far", runtime="onnxruntime", host="-oProxyCommand=touch /tmp/x")
    with pytest.raises(InputError, match="USER@HOST"), open_launcher(bad):
        pass
