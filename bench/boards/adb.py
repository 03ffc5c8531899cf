"""The adb program: which devices are connected, a shell there, and files that go there.

It is Google's own client, found on the PATH or in the package adbutils (`tutelage[adb]`), which brings it. It talks to
its server on this machine and starts that where it does not run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tutelage.bench.protocol.lines import LostDeviceError
from tutelage.records import InputError, NotAvailableError

SECONDS = 60.0
COPY_SECONDS = 600.0
PREFIX = "adb:"  # of a profile's `host`, before the serial
# What stands for the serial where one device is connected.
ONLY = "auto"
# What adb says of a device that it lists and cannot use.
_REMEDIES = {
    "unauthorized": "unlock it and allow USB debugging from this computer",
    "authorizing": "unlock it and allow USB debugging from this computer",
    "offline": "unplug it and plug it in again, or `adb reconnect`",
    "no permissions": "give this user the right to its USB port (udev rules of Android), then `adb kill-server`",
    "recovery": "restart it into Android",
    "sideload": "restart it into Android",
    "bootloader": "restart it into Android",
}
# How lines begin in which the client itself, and no command there, says that the device is gone.
_LOST = ("adb: device ", "error: device ", "error: closed", "adb: no devices", "error: no devices")


@dataclass(frozen=True)
class Done:
    """What a command on the device printed, standard error last, and its exit code."""

    code: int
    text: str


def find_adb() -> str:
    """Find the adb program: that of the PATH, or the one that adbutils brings."""
    found = shutil.which("adb")
    if found:
        return found
    try:
        from adbutils import adb_path  # type: ignore[import-untyped]
    except ImportError as error:
        raise NotAvailableError(
            "no adb on this machine: install Android's platform tools (apt install adb), or pip install 'tutelage[adb]'"
        ) from error
    return str(adb_path())


class Adb:
    """One connected device. Raises InputError where there is no such device, or one that cannot be used."""

    def __init__(self, serial: str) -> None:
        self._adb = find_adb()
        self.serial = self._connected(serial)

    def shell(self, command: str, seconds: float = SECONDS) -> Done:
        """Run a command there by the device's shell. Raises LostDeviceError where the device went away meanwhile."""
        done = self._run(["-s", self.serial, "shell", "-T", command], seconds)
        text = (done.stdout + done.stderr).decode(errors="replace").replace("\r\n", "\n")
        if done.returncode:
            self._check_there(done.stderr.decode(errors="replace"))
        return Done(done.returncode, text)

    def push(self, path: Path, target: str) -> None:
        """Copy a file there, whole or not at all."""
        aside = f"{target}.part"
        done = self._run(["-s", self.serial, "push", str(path), aside], COPY_SECONDS)
        said = (done.stderr + done.stdout).decode(errors="replace")
        if done.returncode:
            self._check_there(said)
            self.shell(f"rm -f '{aside}'")
            if "no space" in said.lower():
                raise InputError(
                    f"no space on device {self.serial} for {path.name} ({path.stat().st_size} bytes): free some, e.g. "
                    f"`adb -s {self.serial} shell rm -r {Path(target).parent}`, what was copied there before"
                )
            raise InputError(f"cannot copy {path.name} to device {self.serial}: {_last(said)}")
        moved = self.shell(f"mv '{aside}' '{target}'")
        if moved.code:
            raise InputError(f"cannot copy {path.name} to device {self.serial}: {_last(moved.text)}")

    def _connected(self, serial: str) -> str:
        listed = self._listed()
        if serial == ONLY:
            if len(listed) != 1:
                seen = ", ".join(listed) or "none"
                remedy = "name one" if listed else "plug one in, allow USB debugging, or `adb connect` it"
                raise InputError(f"--adb {ONLY} takes the only device, and adb sees {len(listed)} ({seen}): {remedy}")
            serial = next(iter(listed))
        if serial not in listed:
            seen = ", ".join(f"{name} ({state})" for name, state in listed.items()) or "none"
            raise NotAvailableError(
                f"adb sees no device {serial!r} (it sees: {seen}): plug it in, allow USB debugging, or `adb connect` it"
            )
        state = listed[serial]
        if state != "device":
            remedy = next((text for name, text in _REMEDIES.items() if state.startswith(name)), "restart it")
            raise NotAvailableError(f"device {serial} is {state}: {remedy}")
        return serial

    def _listed(self) -> dict[str, str]:
        """Give the state of each device that the server sees, by serial."""
        done = self._run(["devices"], SECONDS)
        if done.returncode:
            raise NotAvailableError(f"adb does not work here: {_last(done.stderr.decode(errors='replace'))}")
        pairs = [line.split("\t", 1) for line in done.stdout.decode(errors="replace").splitlines() if "\t" in line]
        return {serial.strip(): state.strip() for serial, state in sorted(pairs)}

    def _check_there(self, said: str) -> None:
        """Raise LostDeviceError where a command failed because the device is not there, not by itself."""
        gone = any(line.startswith(_LOST) for line in said.splitlines())
        if not gone and self._listed().get(self.serial) == "device":
            return
        raise LostDeviceError(
            f"device {self.serial} was lost: {_last(said) or 'it is no longer connected'}; connect it and give the "
            "same command again, what was exported, converted and copied is kept"
        )

    def _run(self, words: list[str], seconds: float) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                [self._adb, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, env=os.environ
            )
        except subprocess.TimeoutExpired as error:
            raise LostDeviceError(f"adb {words[-1].split()[0]}: no reply within {seconds:.0f} s") from error
        except OSError as error:
            raise NotAvailableError(f"cannot run {self._adb}: {error.strerror}") from error


def _last(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1].strip() if lines else ""
