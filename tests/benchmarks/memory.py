"""Memory on a microcontroller: what is counted of an architecture and of its file against TFLite Micro's own report.

`make bench-memory`: twenty random subnets and three networks of timm, fp32 and int8, and how many of 1,000 subnets of
the spaces for microcontrollers fit 256 KB of RAM and 1 MB of flash. It needs `tutelage[micro]` and LiteRT's converter.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn

from tutelage.bench.converters.conversion import Conversion
from tutelage.bench.converters.litert import convert_to_litert
from tutelage.bench.micro.arena import arena_of
from tutelage.bench.micro.convert import for_micro
from tutelage.bench.micro.interpreter import allocations, run_micro
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.records import Arch, InputError
from tutelage.search.costs.counts import count, count_genes
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet.elastic import build_arch

CLASSES = 10
# Space, resolution, channels; each so many subnets.
SUBNETS = (
    *(("mbconv_micro_w0.25", side, channels) for side, channels in ((48, 1), (64, 3), (96, 3), (112, 1), (160, 3))),
    *(("mbconv_micro_w0.35", side, 3) for side in (48, 80, 128)),
    *(("mbconv_micro_w0.5", side, 3) for side in (50, 64, 96, 144)),
    *(("mbconv_small_w1.0", side, channels) for side, channels in ((32, 3), (64, 1))),
    *(("mbconv_small_w1.0_stem1", side, 1) for side in (28,)),
    *(("ofa_mbv3_w1.0", side, 3) for side in (64, 96)),
    *(("ofa_proxyless_w1.3", side, 3) for side in (64, 97)),
    ("ofa_mbv3_w1.2", 64, 3),
)
TIMM = (("mobilenetv2_050", 96), ("resnet10t", 64), ("mobilenetv4_conv_small_050", 96), ("mnasnet_small", 64))
RAM, FLASH = 256 * 1024, 1_000_000


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subnets", type=int, default=len(SUBNETS), help="how many of the twenty")
    options = parser.parse_args()
    print_fits()
    nets: list[tuple[str, nn.Module, Arch | None, int, int]] = []
    for number, (name, side, channels) in enumerate(SUBNETS[: options.subnets]):
        space = SPACES[name].with_resolutions((side,))
        arch = space.decode(space.random(1, np.random.default_rng(number)))[0]
        nets.append((name, build_arch(arch, CLASSES, channels, seed=number), arch, side, channels))
    nets += [(name, timm.create_model(name, num_classes=CLASSES), None, side, 3) for name, side in TIMM]
    print("| network | px | precision | arena counted of the arch | of the file | reported | differ | counted | file |")
    print("|---|---|---|---|---|---|---|---|---|")
    differ: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        conversions = []
        for number, (_, net, _, side, channels) in enumerate(nets):
            settle(net, side, channels, number)
            onnx = Path(folder, f"{number}.onnx")
            export_onnx(net, onnx, (1, channels, side, side), dynamic_batch=False)
            conversions.append(Conversion(onnx, onnx.with_suffix(".tflite"), (1, channels, side, side)))
        convert_to_litert(conversions)
        for (name, net, arch, side, channels), made in zip(nets, conversions, strict=True):
            differ += compared(name, net, arch, side, channels, made.target)
    print(f"\n{len(differ)} files; the count differs from the report by at most {max(differ):.2%}")


def settle(net: nn.Module, side: int, channels: int, seed: int) -> None:
    """Give batch norms statistics and scales as training does, so that no channel is constant and int8 has ranges."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
                module.momentum = None
        net.train()(torch.randn(16, channels, side, side, generator=generator))
    net.eval()


def compared(name: str, net: nn.Module, arch: Arch | None, side: int, channels: int, source: Path) -> list[float]:
    """Print two rows of one network; give how far its counts are from the reports."""
    images = np.random.default_rng(0).normal(size=(32, channels, side, side)).astype(np.float32)
    found = []
    for precision, calibration in (("fp32", None), ("int8", images)):
        path = source.with_name(f"{source.stem}-{precision}.tflite")
        try:
            for_micro(source, path, calibration)
            reported = allocations(path).total
        except InputError as error:
            print(f"| {name} | {side} | {precision} | not run: {str(error).splitlines()[0][:90]} |")
            continue
        file, of_arch, flash = arena_of(path).total, "", ""
        numbers = [file]
        if arch is not None:
            counts = count([arch], CLASSES, channels)
            numbers.append(int((counts.ram_bytes if calibration is None else counts.int8_ram_bytes)[0]))
            of_arch = f"{numbers[-1]:,}"
            flash = "" if calibration is None else f"{int(counts.int8_file_bytes[0]):,}"
        found += [abs(one / reported - 1) for one in numbers]
        with torch.no_grad():
            exact = net(torch.from_numpy(images[:4])).numpy()
        outputs = run_micro(path, np.ascontiguousarray(images[:4].transpose(0, 2, 3, 1)))
        if calibration is None:
            np.testing.assert_allclose(outputs, exact, atol=1e-3 * np.abs(exact).max())
        print(
            f"| {name} | {side} | {precision} | {of_arch} | {file:,} | {reported:,} | {found[-1]:.2%} | {flash} "
            f"| {path.stat().st_size:,} |",
            flush=True,
        )
    return found


def print_fits() -> None:
    """Say how many of 1,000 random subnets fit the memories at int8, over the space's own resolutions."""
    for name in [one for one in SPACES if one.startswith("mbconv_micro")]:
        space = SPACES[name]
        counts = count_genes(space, space.random(1000, np.random.default_rng(0)), CLASSES, 3)
        fits = (counts.int8_ram_bytes <= RAM) & (counts.int8_file_bytes <= FLASH)
        print(f"{name}: {int(fits.sum())} of 1,000 random subnets fit 256 KB of RAM and 1 MB of flash at int8")


if __name__ == "__main__":
    main()
