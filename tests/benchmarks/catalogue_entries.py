"""Write the catalogue's entries that are not measured by us: `python tests/benchmarks/catalogue_entries.py DATA OUT`.

HELP's GPUs (Lee et al. 2021): the model of each is fitted on 500 of the table's 5,000 subnets and tested on the other
4,500. They are drawn: along the table the pace of a GPU changes, and its first 500 know nothing of that.
Boards: RAM and flash by their datasheets, no latency.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from latency_tables import read_table
from scipy.stats import spearmanr

from tutelage.bench.devices.entries import PROVENANCE, Provenance, write_provenance
from tutelage.bench.devices.profiles import make_checked, write_profile
from tutelage.bench.devices.table import table_path, write_table
from tutelage.bench.latency.model import LatencyModel
from tutelage.records import UNREACHABLE, Arch

NETS = 500


def drawn_nets(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the indices of the nets that the entries hold, and of the others."""
    order = np.random.default_rng(0).permutation(num)
    return np.sort(order[:NETS]), np.sort(order[NETS:])


GPUS = {"titan_rtx": ("titan-rtx", "NVIDIA TITAN RTX"), "2080ti": ("rtx-2080-ti", "NVIDIA GeForce RTX 2080 Ti")}
SOURCE = (
    "Lee et al., HELP: Hardware-Adaptive Efficient Latency Prediction for NAS via Meta-Learning, NeurIPS 2021, "
    "https://github.com/HayeonLee/HELP, data/ofa/latency"
)
COPYRIGHT = "Copyright (c) 2021 Hayeon Lee, Sewoong Lee, Song Chong and Sung Ju Hwang (HELP)"
# RAM and flash in KB of 1,024 bytes, as the datasheets have them.
BOARDS = {
    "stm32f746": (320, 1024, "STM32F746NG (Cortex-M7, 216 MHz): 320 KB system SRAM, 1 MB flash",
                  "STMicroelectronics, DS10916, STM32F745xx STM32F746xx datasheet"),
    "stm32h743": (512, 2048, "STM32H743ZI (Cortex-M7, 480 MHz): 512 KB AXI SRAM, its largest in one piece, 2 MB flash",
                  "STMicroelectronics, DS12110, STM32H742xI/G STM32H743xI/G datasheet"),
    "nrf52840": (256, 1024, "nRF52840 (Cortex-M4F, 64 MHz; Arduino Nano 33 BLE): 256 KB RAM, 1 MB flash",
                 "Nordic Semiconductor, nRF52840 product specification"),
    "raspberry-pi-pico": (264, 2048, "Raspberry Pi Pico (RP2040, Cortex-M0+, 133 MHz): 264 KB SRAM, 2 MB flash",
                          "Raspberry Pi Ltd, RP2040 datasheet and Raspberry Pi Pico datasheet"),
}  # fmt: skip
MIT = """MIT License

{copyright}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def write_gpu(into: Path, column: str, archs: list[Arch], ms: np.ndarray) -> None:
    """Fit one column of the table, test the model on the nets that the entry does not hold, and write the entry."""
    gpu, _, batch = column.removesuffix("_ms").rpartition("_batch")
    short, card = GPUS[gpu]
    name = short if batch == "1" else f"{short}-b{batch}"
    folder = into / name
    drawn, others = drawn_nets(len(archs))
    nets = [archs[i] for i in drawn]
    model = LatencyModel.fit(nets, ms[drawn])
    mean, low, high = model.predict([archs[i] for i in others])
    true = ms[others]
    tested = (
        f"on the {len(true):,} other nets the mean error is {100 * np.mean(np.abs(mean / true - 1)):.1f} %, Spearman "
        f"{spearmanr(mean, true).statistic:.3f}, and {100 * np.mean((low <= true) & (true <= high)):.0f} % lie in "
        "their 90 % interval"
    )
    profile = make_checked(
        {
            "name": name, "runtime": "torch-cuda", "batch": int(batch), "cpu_model": card, "host": UNREACHABLE,
            "latency_model": f"{name}.latency.json", "spaces": model.spaces, "resolutions": model.resolutions,
            "model_error": round(model.error, 5), "created": "2021-06-16",
        }
    )  # fmt: skip
    write_table(table_path(folder, name), nets, ms[drawn])
    write_profile(profile, folder, model)
    (folder / "LICENSE").write_text(MIT.format(copyright=COPYRIGHT))
    write_provenance(
        folder / PROVENANCE,
        Provenance(
            kind="public-table",
            description=f"{card}, PyTorch, batch {batch}, subnets of OFA's MobileNetV3 at 128 to 224 px",
            made=f"tests/benchmarks/catalogue_entries.py, from {NETS} of the table's 5,000 nets, drawn; {tested}",
            source=SOURCE, licence="MIT", copyright=COPYRIGHT, date="2021-06-16",
            left_out_error=round(model.error, 5), left_out_nets=model.num_nets,
        ),
    )  # fmt: skip
    print(f"{name}: {tested}", flush=True)


def write_board(into: Path, name: str) -> None:
    """Write a memory-only entry: what a microcontroller holds, and no latency."""
    ram, flash, what, source = BOARDS[name]
    profile = make_checked(
        {
            "name": name, "runtime": "litert", "precision": "int8", "host": UNREACHABLE,
            "cpu_model": what.split(" (")[0], "ram_bytes": ram * 1024, "flash_bytes": flash * 1024,
            "created": "2026-11-27",
        }
    )  # fmt: skip
    write_profile(profile, into / name)
    write_provenance(
        into / name / PROVENANCE,
        Provenance(
            kind="memory-only", description=what, made="read from the datasheet; nothing was measured", source=source,
            licence="CC0-1.0", date="2026-11-27",
        ),
    )  # fmt: skip


def main() -> None:
    for board in BOARDS:
        write_board(Path(sys.argv[2]), board)
    archs, times = read_table(Path(sys.argv[1]))
    for column, ms in times.items():
        write_gpu(Path(sys.argv[2]), column, archs, ms)


if __name__ == "__main__":
    main()
