"""The process that runs models and times them: Python, numpy and one runtime are all it needs, here or on another host
(with the runtime's own file, `entry.py`, `graph.py`, `state.py` and `energy.py` beside it).

It reads one JSON job from the first line of standard input, then one JSON request a line, and replies to each with one
JSON line on standard output. Between requests it waits blocked on standard input, so an idle runner costs no processor
time; when the input ends (the parent is gone, the connection is lost) it ends too.

    job       {"runtime", "adapter": its file, "threads", "precision", "cores": [..]|null, "environment": {name: value},
               "models": [{"path", "shape": [b, c, h, w]}, ..]}
              with "idle": seconds, the runner kills itself when no request comes for so long;
              with "keeper": true, a parent process of its own stops it between requests, see `keep`;
              with "choose_cores": number, it replies {"cores": [..]}, the least busy ones, and ends
              with "find_meter": true, it replies as to "meter", and ends
    requests  {"do": "load", "model": i} | {"do": "warm", "model": i, "seconds": s} | {"do": "copy", "model": i}
              {"do": "time", "model": i, "settle": m, "repeats": n} | {"do": "memory"} | {"do": "state"}
              {"do": "meter", "runtime": r}: {"method"}, or {"missing"}: why this host has no energy counter for it
              {"do": "idle", "runtime": r, "seconds": s}: {"mj", "seconds"}; "energy" has what "time" has, too
              {"do": "layers", "model": i, "profiler": j, "function": f}: {"layers": [[kernel, [ms, ..]], ..]}, the file
              of model j being bench/layers/profilers.py
              any request may carry "limit": seconds after which the runner kills itself
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import glob
import importlib.util
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from itertools import chain
from typing import Any, Callable, Iterator, TextIO  # noqa: UP035 - other hosts may have Python 3.8

Run = Callable[[Any], Any]

# A runtime that hangs while it is loaded is ended after so long: on a loaded or slow host a second or two become many.
START_SECONDS = 120.0
# Warm-up ends when two neighbouring windows of this many inferences agree within the tolerance.
WARM_WINDOW = 5
WARM_TOLERANCE = 0.05
# A keeper gives its runner's own watchdog so long to go off first, and a runner whose input has ended to end.
_GRACE_SECONDS = 10.0


def serve(lines: Iterator[str], reply: Callable[[dict[str, Any]], None]) -> None:
    """Take the job, then serve requests until the input ends."""
    _watchdog(START_SECONDS)
    job = json.loads(next(lines))
    _follow_parent(job.get("parent"))
    if job.get("choose_cores"):
        reply({"cores": quiet_cores(job["choose_cores"])})
        return
    if job.get("find_meter"):
        reply(_energy({"do": "meter", **job}, []))
        return
    # Before numpy and the runtime are imported: their thread pools read the environment and inherit the cores then.
    os.environ.update(job.get("environment") or {})
    if job.get("cores") and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a core that this host lacks: run unpinned
            os.sched_setaffinity(0, job["cores"])
    models: list[Any] = [None] * len(job["models"])
    try:
        adapter = _adapter(job["runtime"], job["adapter"])
        version = adapter.prepare()
    except Exception as error:  # noqa: BLE001 - every failure of a runtime must reach the parent as a reply
        reply({"error": f"{type(error).__name__}: {error}"})
        return
    gc.disable()
    gpu, limit = adapter.gpu() if hasattr(adapter, "gpu") else ("", "")
    machine = {
        "cpu": processor(),
        "processor": gpu or processor(),
        "power_state": ", ".join(filter(None, [power_state(), limit])),
        "system": system(),
    }
    reply({"version": version, "rss": memory()["rss"], "pid": os.getpid(), **machine})
    # A dead connection may look open from the remote end for hours: end after a long time without a request.
    _watchdog(job.get("idle"))
    for line in lines:
        request = json.loads(line)
        _watchdog(request.get("limit"))
        try:
            reply(_obey(request, job, adapter, models))
        except Exception as error:  # noqa: BLE001
            reply({"error": f"{type(error).__name__}: {error}"})
        _watchdog(job.get("idle"))


def keep(first: str, lines: Iterator[str], out: TextIO) -> int:
    """Start a runner as a child, stop it (SIGSTOP) between its requests, pass the lines on; returns its exit code.

    A runner on another host is out of reach of the signals that stop a local one while others are measured. The kernel
    ends the child with its keeper, even while it is stopped; the keeper's own watchdog covers a line that is dead.
    """
    job = json.loads(first)
    child = subprocess.Popen(
        [sys.executable, "-I", os.path.abspath(__file__)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **job["environment"]},
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    lines = chain([json.dumps({**job, "keeper": False, "parent": os.getpid()}) + "\n"], lines)
    with contextlib.suppress(BrokenPipeError):  # it ended: its exit code says how
        for line in lines:
            _watchdog(json.loads(line).get("limit", START_SECONDS) + _GRACE_SECONDS)
            child.send_signal(signal.SIGCONT)
            child.stdin.write(line.encode())
            child.stdin.flush()
            reply = child.stdout.readline()
            if not reply:
                break
            child.send_signal(signal.SIGSTOP)
            out.write(reply.decode())
            out.flush()
            _watchdog(job.get("idle"))
    _watchdog(_GRACE_SECONDS)
    child.send_signal(signal.SIGCONT)
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    return child.wait()


def quiet_cores(num: int, seconds: float = 0.2) -> list[int] | None:
    """Choose the `num` least busy cores of this host to pin measurements to; `None` where the system cannot pin."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    if num >= len(allowed):
        return allowed
    busy = _busy_cores(seconds)
    if not set(allowed) <= set(busy):  # a container may number its cores otherwise than /proc/stat lists them
        return allowed[-num:]
    # Of equally quiet cores the last ones: systems tend to put interrupts on the first.
    return sorted(sorted(allowed, key=lambda core: (busy[core], -core))[:num])


def processor() -> str:
    """Name this host's processor as Linux does, or else its architecture."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def system() -> str:
    """Name this host's operating system and C library, e.g. `Linux 6.1.0, glibc 2.36`."""
    kernel = f"{platform.system()} {platform.mac_ver()[0] or platform.release()}"
    return ", ".join(filter(None, [kernel, " ".join(platform.libc_ver()).strip()]))


def power_state(root: str = "/sys") -> str:
    """Say what sets the clock of this host, e.g. `governor powersave, turbo on, on battery`, as far as it is known.

    Times of two power states of one processor are as far apart as those of two processors. Cores of several governors
    are named together: `governor performance+powersave`.
    """
    system = os.path.join(root, "devices", "system", "cpu")
    governors = _contents(system, "cpu[0-9]*/cpufreq/scaling_governor")
    said = ["governor " + "+".join(sorted(set(governors)))] if governors else []
    no_turbo, boost = _contents(system, "intel_pstate/no_turbo"), _contents(system, "cpufreq/boost")
    if no_turbo or boost:
        said.append("turbo on" if "0" in no_turbo or "1" in boost else "turbo off")
    mains = _contents(root, "class/power_supply/*/online")
    if mains and "1" not in mains:
        said.append("on battery")
    return ", ".join(said)


def _contents(root: str, pattern: str) -> list[str]:
    """Read the small files that match a pattern; those that cannot be read are left out."""
    found = []
    for path in sorted(glob.glob(os.path.join(root, pattern))):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            found.append(file.read().strip())
    return found


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
    if what == "state":
        from state import read_state  # type: ignore[import-not-found] # beside this file, whose folder is on the path since the adapter was imported

        return dict(read_state())
    if what in ("meter", "idle", "energy"):
        return _energy(request, models)
    index = request["model"]
    spec = job["models"][index]
    if what == "layers":
        profilers = _module(job["models"][request["profiler"]]["path"])
        profiler = getattr(profilers, request["function"])
        found = profiler(spec["path"], tuple(spec["shape"]), job["threads"], job["precision"])
        return {"layers": [[list(kernel), list(times)] for kernel, times in found]}
    if what == "load":
        start = time.perf_counter_ns()
        run, effective = adapter.load(spec["path"], tuple(spec["shape"]), job["threads"], job["precision"])
        images = _images(spec["shape"])
        run(images)  # the first inference belongs to loading: runtimes allocate and pack in it
        models[index] = ([run], images)
        return {"load_ms": (time.perf_counter_ns() - start) / 1e6, "effective": effective}
    runs, images = models[index]
    if what == "copy":
        run, _ = adapter.load(spec["path"], tuple(spec["shape"]), job["threads"], job["precision"])
        run(images)
        runs.append(run)
        return {"copies": len(runs)}
    if what == "warm":
        run = _next(runs)
        return warm_up(lambda number: _times(run, images, number), request["seconds"])
    if what == "time":
        return _timed(request, models)
    raise ValueError(f"unknown request {what}")


def _next(runs: list[Run]) -> Run:
    runs.append(runs.pop(0))  # copies alternate, each at other addresses
    return runs[0]


def _timed(request: dict[str, Any], models: list[Any]) -> dict[str, Any]:
    runs, images = models[request["model"]]
    run = _next(runs)
    for _ in range(request.get("settle", 1)):  # caches hold another model's data: the first inferences do not count
        run(images)
    return {"ms": _times(run, images, request["repeats"])}


def _energy(request: dict[str, Any], models: list[Any]) -> dict[str, Any]:
    """Read this machine's energy counter: say which there is, or what it counts while idle or at work."""
    _import_beside()
    from energy import NoMeter, find_meter, metered  # type: ignore[import-not-found]

    meter = find_meter(request["runtime"])
    if isinstance(meter, NoMeter):
        if request["do"] != "meter":
            raise OSError(f"the energy counter has gone: {meter.reason}")
        return {"missing": meter.reason}
    if request["do"] == "meter":
        return {"method": meter.method}
    if request["do"] == "idle":
        mj, seconds, _ = metered(meter, lambda: time.sleep(request["seconds"]))
        return {"mj": mj, "seconds": seconds}
    mj, seconds, timed = metered(meter, lambda: _timed(request, models))
    return {"mj": mj, "seconds": seconds, **timed}


def _import_beside() -> str:
    """Let modules be imported that lie beside this file, which another host may have without the package."""
    here = os.path.dirname(os.path.abspath(__file__))
    if here not in sys.path:
        sys.path.insert(0, here)
    return here


def _adapter(name: str, file: str) -> Any:
    """Import a runtime's own file, and with it numpy: not before the job has set the environment.

    `file` is a path, or a name beside this file on a host that may have no such package.
    """
    module = _module(file)
    for entry in vars(module).values():
        if getattr(entry, "adapter", None) and getattr(entry, "name", "") == name:
            return entry.adapter()
    raise ImportError(f"{file} declares no runtime {name}")


def _module(file: str) -> Any:
    path = os.path.join(_import_beside(), file)  # an absolute path stays as it is
    spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _images(shape: Any) -> Any:
    import numpy as np

    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _busy_cores(seconds: float) -> dict[int, float]:
    """Give the fraction of the next `seconds` that each core of this host was busy; empty where Linux does not say."""
    before = _core_ticks()
    time.sleep(seconds)
    busy = {}
    for core, ticks in _core_ticks().items():
        passed = [now - then for now, then in zip(ticks, before.get(core, ticks))]  # noqa: B905 - Python 3.8
        idle = sum(passed[3:5])  # idle and waiting for a disk
        busy[core] = 1 - idle / sum(passed) if sum(passed) > 0 else 0.0
    return busy


def _core_ticks() -> dict[int, list[int]]:
    """Read what each core has spent in ticks: user, nice, system, idle, iowait, irq, softirq, steal."""
    ticks = {}
    with contextlib.suppress(OSError), open("/proc/stat") as lines:
        for line in lines:
            name, *numbers = line.split()
            if name.startswith("cpu") and name[3:].isdigit():
                ticks[int(name[3:])] = [int(number) for number in numbers[:8]]  # guests are in user time already
    return ticks


def _times(run: Run, images: Any, repeats: int) -> list[float]:
    if hasattr(run, "times"):  # by the clock of a GPU, which works on while Python goes on
        return [float(ms) for ms in run.times(images, repeats)]
    clock = time.perf_counter_ns
    samples = []
    for _ in range(repeats):
        start = clock()
        run(images)
        samples.append((clock() - start) / 1e6)
    return samples


def warm_up(times: Callable[[int], list[float]], seconds: float) -> dict[str, Any]:
    """Run until two neighbouring windows agree, or until the time is over; returns the last window's median.

    `times` runs so many inferences and gives the milliseconds of each, or of all as one mean.
    """
    end = time.perf_counter() + seconds
    last = statistics.median(times(WARM_WINDOW))
    while time.perf_counter() < end:
        now = statistics.median(times(WARM_WINDOW))
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
    """Have Linux kill this process when its parent dies, even while it is stopped."""
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Write JSON to the real standard output, and send whatever a runtime prints there to standard error."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _watchdog(START_SECONDS)
    lines = iter(sys.stdin.readline, "")
    first = next(lines, "")
    if not first:
        return
    if json.loads(first).get("keeper") and sys.platform.startswith("linux") and sys.executable:
        code = keep(first, lines, out)
        if code < 0:  # end as it ended, so that the parent can say how
            with contextlib.suppress(OSError):  # SIGKILL has no handler to reset
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        sys.exit(code)
    serve(chain([first], lines), lambda reply: print(json.dumps(reply), file=out, flush=True))


if __name__ == "__main__":
    main()
