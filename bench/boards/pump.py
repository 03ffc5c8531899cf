"""Standard input and output of a process elsewhere: this script stands for it, over a socket of the session.

Started as `python pump.py SOCKET`. It says its own process id first; when the socket ends, it says what `end-PID`
beside the socket holds: an exit code and the last words. It needs nothing but Python.
"""

import os
import socket
import sys
import threading

_BYTES = 1 << 20


def main(path: str) -> int:
    """Carry bytes both ways until the other end closes; give the exit code of the process there."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        line.sendall(f"{os.getpid()}\n".encode())
        threading.Thread(target=_send, args=(line,), daemon=True).start()
        while chunk := line.recv(_BYTES):
            _write_all(chunk)
    try:
        with open(os.path.join(os.path.dirname(path), f"end-{os.getpid()}")) as file:
            code, _, said = file.read().partition("\n")
    except FileNotFoundError:  # the session is over
        return 0
    sys.stderr.write(said)
    return int(code)


def _send(line: socket.socket) -> None:
    while chunk := os.read(0, _BYTES):
        try:
            line.sendall(chunk)
        except OSError:
            return
    line.shutdown(socket.SHUT_WR)


def _write_all(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
