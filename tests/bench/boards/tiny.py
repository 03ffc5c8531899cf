"""The smallest search, and a profile of a device whose clock is a nanosecond a byte of the file."""

from pathlib import Path
from typing import Any

import numpy as np

from tutelage.bench.devices.profiles import write_profile
from tutelage.bench.latency import LatencyModel
from tutelage.bench.protocol.anchors import STREAMING, anchor_files
from tutelage.records import DeviceProfile
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import SPACES

# As small as a search goes: no teacher, one epoch of the supernet.
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {"dataset": "phantom", "size": 32, "limit": 120, "augment_variants": 1},
    "supernet": {"space": "mbconv_small_w1.0", "epochs": 1, "batch_size": 32},
    "search": {"strategy": "random", "evaluations": 6, "winners": 1},
}


def a_byte_a_nanosecond(folder: Path, **reached: str) -> None:
    """Write the profile `pixel` of a device that is reached so, with a latency model that knows its clock."""
    folder.mkdir(parents=True)
    space = SPACES["mbconv_small_w1.0"].with_resolutions((32,))
    archs = space.decode(space.random(30, np.random.default_rng(0)))
    counts = count(archs, 4, 1)
    model = LatencyModel().fit(archs, 4e-6 * counts.params + 0.02, num_classes=4, in_channels=1)
    anchors = anchor_files("onnxruntime", folder.parent)[-len(STREAMING) :]
    model.anchor_ms = float(np.exp(np.mean([np.log(Path(one.path).stat().st_size / 1e6) for one in anchors])))
    profile = DeviceProfile.from_dict(
        {
            "name": "pixel", "runtime": "onnxruntime", "spaces": [space.name], "resolutions": space.resolutions,
            "latency_model": "pixel.latency.json", **reached,
        }
    )  # fmt: skip
    write_profile(profile, folder, model)
