"""CPU quotas of cgroup v1 and v2, from the process's own group up to what is mounted."""

import errno
from pathlib import Path

import pytest

from tutelage.bench.protocol import host, remote
from tutelage.bench.protocol.cgroup import cpu_quota
from tutelage.cli import app as cli
from tutelage.records import DeviceProfile


@pytest.fixture
def tree(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Write a process's files and a mounted tree, and give the quota that is read."""

    def quota(group: str, root: str, mounted: dict[str, str], *, version: int) -> float | None:
        mount, proc = tmp_path / "cgroup fs", tmp_path / "proc"
        proc.mkdir(exist_ok=True)
        kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,cpu,cpuacct"
        escaped = str(mount).replace(" ", "\\040")
        (proc / "mountinfo").write_text(f"1 2 0:1 / /proc rw - proc proc rw\n3 2 0:2 {root} {escaped} rw - {kind}\n")
        (proc / "cgroup").write_text(f"0::{group}\n" if version == 2 else f"4:memory:/x\n3:cpu,cpuacct:{group}\n")
        for name, text in mounted.items():
            path = mount / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return cpu_quota(proc)

    return quota


def v1(folder: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return {f"{folder}cpu.cfs_quota_us": f"{quota}\n", f"{folder}cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("group", "root", "files", "version", "cores"),
    [
        ("/", "/", {"cpu.max": "150000 100000\n"}, 2, 1.5),
        ("/", "/", {"cpu.max": "max 100000\n"}, 2, None),
        ("/a/b", "/", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 2, 0.5),  # set above the process
        ("/a/b", "/", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "200000 100000"}, 2, 2.0),  # the tightest counts
        ("/../../sibling", "/", {"cpu.max": "100000 50000"}, 2, 2.0),  # a namespace whose root is beside the process
        ("/docker/1/init", "/docker/1", {"cpu.max": "300000 100000"}, 2, 3.0),  # mounted from the container's group
        ("/", "/", v1("", 50_000), 1, 0.5),
        ("/", "/", v1("", -1), 1, None),
        ("/job/step", "/", {**v1("job/", 100_000), **v1("job/step/", -1)}, 1, 1.0),
        ("/docker/1", "/docker/1", v1("", 250_000), 1, 2.5),
        ("/", "/", {"cpu.max": "broken"}, 2, None),
    ],
)
def test_the_tightest_quota_counts(tree, group, root, files, version, cores):  # type: ignore[no-untyped-def]
    assert tree(group, root, files, version=version) == cores


def test_threads_follow_the_quota_and_are_at_least_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda pid: set(range(8)))
    for quota, cores in ((None, 8), (0.5, 1), (2.5, 2), (64.0, 8)):
        monkeypatch.setattr(host, "cpu_quota", lambda quota=quota: quota)
        assert host.available_cores() == cores
        assert host.describe_host()["cpu_quota"] == quota


def test_no_files_are_no_quota(tmp_path: Path):
    assert cpu_quota(tmp_path / "absent") is None


def test_a_profile_that_asks_for_more_threads_than_there_are_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(remote, "available_cores", lambda: 2)
    remote.check_reachable(DeviceProfile(name="box", runtime="onnxruntime", threads=2))
    assert not caplog.text
    remote.check_reachable(DeviceProfile(name="box", runtime="onnxruntime", threads=8))
    assert "box asks for 8 threads, this process may use 2 cores" in caplog.text


def test_a_full_tmpdir_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What tempfile raises where no folder can be written has no file name."""

    def no_room(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(cli, "_carry_out", no_room)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert "No usable temporary directory found in ['/tmp']: make room there, or set TMPDIR" in capsys.readouterr().err
