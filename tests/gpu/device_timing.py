"""Add a device with a torch runtime as `tutelage device add` does and check it: a process that `check_gpu.py` can stop.

    python tests/gpu/device_timing.py --name NAME --runtime torch-cuda --batch 64 --folder WORKSPACE [--any-noise]

It prints a line of JSON when the profile is there, and one more when other networks were measured against its latency
model. A profile that an earlier call finished is read; progress goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

NETS = 6  # with one more than five a net left out is predicted by a model that five make
CLASSES, CHANNELS, SIDE = 10, 3, 32


def main() -> None:
    """Measure a few networks by `add_device`, fit the latency model, then measure unseen ones by `check_device`."""
    signal.signal(signal.SIGTERM, _stop)  # as an exception, so that the measuring processes are ended
    options = _options()
    from tutelage.bench.devices.profiles import find_profile, load_latency_model, profile_names
    from tutelage.pipeline.operations.devices import DeviceRequest, add_device, check_device
    from tutelage.pipeline.workspace import Workspace
    from tutelage.records import InputError, UnsteadyDeviceError
    from tutelage.search.spaces.space import SPACES

    space, workspace = SPACES["ofa_mbv3_w1.0"].with_resolutions((SIDE,)), Workspace(options.folder)
    request = DeviceRequest(
        options.name, options.runtime, space, CLASSES, CHANNELS, batch=options.batch, minutes=options.minutes,
        nets=NETS, tolerance=math.inf if options.any_noise else 0.05,
    )  # fmt: skip
    report = _reporter()
    try:
        with workspace.locked():
            if options.name not in profile_names(options.folder):
                add_device(workspace, report, request)
            profile, folder = find_profile(options.name, options.folder)
            model = load_latency_model(profile, folder)
            ends = model.predict([space.smallest(), space.largest()])[0]
            _say(nets=model.num_nets, error=model.error, smallest_ms=ends[0], largest_ms=ends[1])
            checked = check_device(workspace, report, options.name)
            _say(unseen_error=checked.error, inside=checked.covered)
    except (InputError, UnsteadyDeviceError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def _say(**figures: float) -> None:
    print(json.dumps({name: float(value) for name, value in figures.items()}), flush=True)


def _stop(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)


def _reporter() -> Callable[[str, int, int], None]:
    began = time.monotonic()

    def report(text: str, done: int, total: int) -> None:
        print(f"{text} {done}/{total} after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    return report


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="workspace, which keeps profiles and exports")
    parser.add_argument(
        "--minutes", type=float, default=0.5, help="as of `device add`; two sessions are always measured"
    )
    parser.add_argument("--any-noise", action="store_true", help="keep a profile of a host that is busy, to test this")
    return parser.parse_args()


if __name__ == "__main__":
    main()
