"""The host that tests of remote devices reach: a real sshd of their own on the loopback address."""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 180.0  # for what happens within a moment, on a host that is busy


@dataclass(frozen=True)
class Far:
    """A host behind ssh: the client's command line, its Python (a script to replace), its folder of temporary files."""

    ssh: tuple[str, ...]
    python: Path
    temporary: Path
    log: Path
    narrow: str  # another port, at which a connection holds one session

    def logins(self) -> int:
        """Count the connections that it has accepted."""
        return self.log.read_text(errors="replace").count("Accepted publickey")

    def runners(self) -> set[int]:
        """List the runner processes that are alive there."""
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                except OSError:
                    continue  # it ended meanwhile
                if any(part.startswith(str(self.temporary)) and part.endswith("/runner.py") for part in command):
                    found.add(int(entry.name))
        return found

    def left(self) -> list[object]:
        """List what is left there after a moment: runners and their folders (runtimes may keep files of their own)."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and (self.runners() or list(self.temporary.glob("tmp.*"))):
            time.sleep(0.05)
        return [*self.runners(), *self.temporary.glob("tmp.*")]

    def ends(self) -> bool:
        """Say whether all runners end within a moment."""
        end = time.monotonic() + PATIENCE_S
        while self.runners() and time.monotonic() < end:
            time.sleep(0.05)
        return not self.runners()

    def lines(self) -> set[int]:
        """Give the processes of sshd that hold a line to a runner; between them stands the runner's keeper."""
        runners = self.runners()
        found = set()
        for runner in runners:
            with suppress(OSError):  # it ended meanwhile
                found.add(parent_of(runner))
        return found - runners


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
