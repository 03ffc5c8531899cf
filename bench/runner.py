"""The process that runs models and times them: Python, numpy and one runtime are all it needs, here or on another host
(with `adapters.py` beside it).

Enters: one JSON job on the first line of standard input, then one JSON request a line. Leaves: one JSON answer a line
on standard output. Between requests it waits blocked on standard input, so an idle runner costs no processor time;
when the input ends (the parent is gone, the connection is lost) it ends too.

    job       {"runtime", "threads", "precision", "cores": [..]|null, "models": [{"path", "shape": [b, c, h, w]}, ..]}
              with "idle": seconds, the runner kills itself when it hears nothing for so long
    requests  {"do": "load", "model": i} | {"do": "warm", "model": i, "seconds": s} | {"do": "copy", "model": i}
              {"do": "time", "model": i, "settle": m, "repeats": n} | {"do": "memory"}
              any request may carry "limit": seconds after which the runner kills itself
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import platform
import signal
import sys
import time
from typing import Any, Callable, Iterator  # noqa: UP035 - other hosts may have Python 3.8

import numpy as np

if __package__:
    from .adapters import ADAPTERS, Run, open_model
else:  # started as a program, on a host that may have no such package
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from adapters import ADAPTERS, Run, open_model  # type: ignore[import-not-found,no-redef]

__all__ = ["ADAPTERS", "memory", "open_model", "processor", "serve"]

# A runtime that hangs while it is loaded is ended after so long: on a loaded or slow host a second or two become many.
START_SECONDS = 120.0
# Warm-up ends when two neighbouring windows of this many inferences agree within the tolerance.
WARM_WINDOW = 5
WARM_TOLERANCE = 0.05


def serve(lines: Iterator[str], answer: Callable[[dict[str, Any]], None]) -> None:
    """Take the job, then answer requests until the input ends."""
    _watchdog(START_SECONDS)
    job = json.loads(next(lines))
    _follow_parent(job.get("parent"))
    if job.get("cores") and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a core that this host lacks: run unpinned
            os.sched_setaffinity(0, job["cores"])
    models: list[Any] = [None] * len(job["models"])
    try:
        adapter = ADAPTERS[job["runtime"]]()
        version = adapter.prepare()
    except Exception as error:  # noqa: BLE001 - every failure of a runtime must reach the parent as an answer
        answer({"error": f"{type(error).__name__}: {error}"})
        return
    gc.disable()
    answer({"version": version, "rss": memory()["rss"], "pid": os.getpid(), "cpu": processor()})
    # A dead line may look open from the far side for hours: whoever hears nothing for long is left alone.
    _watchdog(job.get("idle"))
    for line in lines:
        request = json.loads(line)
        _watchdog(request.get("limit"))
        try:
            answer(_obey(request, job, adapter, models))
        except Exception as error:  # noqa: BLE001
            answer({"error": f"{type(error).__name__}: {error}"})
        _watchdog(job.get("idle"))


def processor() -> str:
    """Name this host's processor as Linux does, or else its architecture."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def memory() -> dict[str, int | None]:
    """Give the resident memory of this process in bytes: now, and at its peak."""
    sizes = {}
    try:
        with open("/proc/self/status") as status:  # the peak of getrusage would include the parent's before exec
            for line in status:
                key, _, value = line.partition(":")
                if key in ("VmRSS", "VmHWM"):
                    sizes[key] = int(value.split()[0]) * 1024
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sizes = {"VmRSS": peak, "VmHWM": peak}
    return {"rss": sizes.get("VmRSS"), "peak": sizes.get("VmHWM")}


def _obey(request: dict[str, Any], job: dict[str, Any], adapter: Any, models: list[Any]) -> dict[str, Any]:
    what = request["do"]
    if what == "memory":
        return memory()
    index = request["model"]
    spec = job["models"][index]
    if what == "load":
        start = time.perf_counter_ns()
        run, effective = adapter.load(spec["path"], tuple(spec["shape"]), job["threads"], job["precision"])
        images = np.random.default_rng(0).standard_normal(spec["shape"], dtype=np.float32)
        run(images)  # the first inference belongs to loading: runtimes allocate and pack in it
        models[index] = ([run], images)
        return {"load_ms": (time.perf_counter_ns() - start) / 1e6, "effective": effective}
    runs, images = models[index]
    if what == "copy":
        run, _ = adapter.load(spec["path"], tuple(spec["shape"]), job["threads"], job["precision"])
        run(images)
        runs.append(run)
        return {"copies": len(runs)}
    runs.append(runs.pop(0))  # copies take turns, each from other addresses
    run = runs[0]
    if what == "warm":
        return _warm(run, images, request["seconds"])
    if what == "time":
        for _ in range(request.get("settle", 1)):  # caches hold another model's data: the first inferences do not count
            run(images)
        return {"ms": _times(run, images, request["repeats"])}
    raise ValueError(f"unknown request {what}")


def _times(run: Run, images: Any, repeats: int) -> list[float]:
    clock = time.perf_counter_ns
    samples = []
    for _ in range(repeats):
        start = clock()
        run(images)
        samples.append((clock() - start) / 1e6)
    return samples


def _warm(run: Run, images: Any, seconds: float) -> dict[str, Any]:
    """Run until two neighbouring windows agree, or until the time is over; returns the last window's median."""
    end = time.perf_counter() + seconds
    last = float(np.median(_times(run, images, WARM_WINDOW)))
    while time.perf_counter() < end:
        now = float(np.median(_times(run, images, WARM_WINDOW)))
        if abs(now - last) <= WARM_TOLERANCE * last:
            return {"ms": now, "steady": True}
        last = now
    return {"ms": last, "steady": False}


def _watchdog(seconds: float | None) -> None:
    """Let the kernel end this process after some seconds, even while it hangs inside a runtime's native code."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds or 0)


def _follow_parent(parent: int | None) -> None:
    """Ask Linux to kill this process when its parent dies, even if it is stopped just then."""
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Speak JSON on the real standard output, and send whatever a runtime prints there to standard error."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    serve(iter(sys.stdin.readline, ""), lambda reply: print(json.dumps(reply), file=out, flush=True))


if __name__ == "__main__":
    main()
