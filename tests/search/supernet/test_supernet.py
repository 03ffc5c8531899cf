"""Supernets: subnets equal to the bit, our forward and its gradients against the package's, weights files."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tutelage.records import Arch, InputError
from tutelage.search.costs.counts import block_specs, count
from tutelage.search.spaces.space import SPACES, Space
from tutelage.search.supernet import (
    build_arch,
    build_block,
    build_supernet,
    extract,
    fast_layers,
    forward_subnet,
    recalibrate_bn,
    set_active,
)
from tutelage.search.supernet.fast_layers import weight_gradient

SIDE = 32
FAMILIES = ["ofa_mbv3_w1.0", "ofa_proxyless_w1.3", "ofa_resnet50", "resnet_small_w1.0_stem1"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


def _space(name: str) -> Space:
    return SPACES[name].with_resolutions((SIDE,))


def _archs(space: Space, n: int = 1, seed: int = 0) -> list[Arch]:
    return [space.largest(), space.smallest(), *space.decode(space.random(n, np.random.default_rng(seed)))]


def _images(channels: int, n: int = 4, side: int = SIDE) -> Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name",
    [
        *("ofa_mbv3_w1.2", "ofa_mbv3_w1.0_stem1", "ofa_proxyless_w1.3", "ofa_resnet50", "resnet_small_w1.0_stem1"),
        "resnet18_w0.25_stem1",
    ],
)
def test_an_extracted_subnet_equals_the_supernet_to_the_bit(name):
    space = _space(name)
    net = build_supernet(space, 5, in_channels=1)
    for arch in _archs(space)[1:]:
        set_active(net, arch)
        recalibrate_bn(net, [_images(1)])  # a fresh network's outputs are next to constant
        net.eval()
        subnet = extract(net, arch)
        with torch.no_grad():
            expected, got = net(_images(1)), subnet(_images(1))
        assert expected.std() > 1e-3
        assert torch.equal(expected, got)
        assert sum(p.numel() for p in subnet.parameters()) == count([arch], 5, 1).params[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILIES, "ofa_mbv3_w1.0_stem1"])
def test_our_forward_has_the_packages_outputs_and_gradients(name):
    space = _space(name)
    net = build_supernet(space, 3).double().train()  # in float32 batch norm at one pixel blows rounding up
    images, labels = _images(3, 8).double(), torch.arange(8) % 3
    for arch in _archs(space, seed=1):
        set_active(net, arch)
        net.zero_grad()
        theirs = net(images)
        nn.functional.cross_entropy(theirs, labels).backward()
        expected = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
        net.zero_grad()
        ours = forward_subnet(net, arch, images)
        nn.functional.cross_entropy(ours, labels).backward()
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        got = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
        assert set(got) == set(expected)
        for key, grad in expected.items():
            torch.testing.assert_close(got[key], grad, rtol=0, atol=1e-6 * float(grad.abs().max()) + 1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_is_close_and_keeps_gradients_in_float32(name):
    space = _space(name)
    net = build_supernet(space, 3).train()
    images = _images(3, 16)
    exact = forward_subnet(net, space.smallest(), images)
    half = forward_subnet(net, space.smallest(), images, bf16=True)
    assert exact.dtype == torch.float32
    assert half.dtype == torch.bfloat16
    assert nn.functional.cosine_similarity(exact.flatten(), half.float().flatten(), dim=0) > 0.9
    half.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", FAMILIES)
def test_running_statistics_move_only_where_they_are_tracked(name):
    """And then as the package moves them."""
    space = _space(name)
    net, arch = build_supernet(space, 3).train(), _archs(space)[2]
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}

    def moved() -> set[str]:
        return {key for key, tensor in net.state_dict().items() if not torch.equal(tensor, before[key])}

    forward_subnet(net, arch, _images(3))
    assert not moved()
    forward_subnet(net, arch, _images(3), track=True)
    ours = {key: net.state_dict()[key].clone() for key in moved()}
    assert {key.rsplit(".", 1)[1] for key in ours} == {"running_mean", "running_var"}
    net.load_state_dict(before)
    set_active(net, arch)
    net(_images(3))
    assert {key for key in moved() if not key.endswith("num_batches_tracked")} == set(ours)
    for key, tensor in ours.items():
        torch.testing.assert_close(tensor, net.state_dict()[key], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("side", "kernel", "stride"),
    [
        (14, 7, 1),
        (9, 5, 1),
        (4, 7, 1),
        (2, 3, 1),
        (15, 7, 2),
        (14, 5, 2),
        (4, 5, 2),
        (2, 3, 2),
        (7, 7, 1),
        (3, 7, 2),
        (1, 5, 2),
    ],
)
def test_the_depthwise_weight_gradient_is_that_of_the_convolution(side, kernel, stride):
    x, weight = _images(16, 3, side).double(), _images(16, 1, kernel)[0][:, None].double().requires_grad_()
    y = nn.functional.conv2d(x, weight, None, stride, kernel // 2, 1, 16)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (expected,) = torch.autograd.grad(y, weight, grad)
    torch.testing.assert_close(weight_gradient(x, grad, kernel, stride), expected)


@pytest.mark.parametrize("side", [2, 3, 4, 6])
def test_a_weight_gradient_never_asks_for_a_kernel_larger_than_the_map(monkeypatch, side):
    """oneDNN computes those by a grouped convolution, a hundred times as long: 3x3 on 2x2, 7x7 on 4x4."""
    shapes = []
    plain = fast_layers._convolution_backward

    def recorded(grad, x, weight, stride, padding, wanted):
        if wanted[1]:
            shapes.append((x.shape[-2:], weight.shape[-2:]))
        return plain(grad, x, weight, stride, padding, wanted)

    monkeypatch.setattr(fast_layers, "_convolution_backward", recorded)
    for kernel in (3, 5, 7):
        for stride in (1, 2):
            weight = torch.ones(2, 1, kernel, kernel, requires_grad=True)
            if kernel > 3 or side < kernel:
                fast_layers.depthwise(_images(2, 2, side), weight, stride).sum().backward()
                assert weight.grad is not None
    assert shapes
    for x, weight in shapes:
        assert x[0] >= weight[0]
        assert x[1] >= weight[1]


def test_building_from_scratch_is_counted_seeded_and_leaves_the_global_generator_alone():
    space = _space("ofa_mbv3_w1.0_stem1")
    arch = _archs(space)[2]
    before = torch.random.get_rng_state()
    one, two = build_arch(arch, 4, 1, seed=3, dropout=0.2), build_arch(arch, 4, 1, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert sum(p.numel() for p in one.parameters()) == count([arch], 4, 1).params[0]
    assert one(_images(1)).shape == (4, 4)


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_in_a_row_have_the_shapes_and_parameters_of_the_arch(name):
    arch = _archs(_space(name))[2]
    x, params = _images(1), 0
    with torch.no_grad():
        for spec in block_specs(arch, 5, 1):
            block = build_block(spec)
            x = block(x)
            params += sum(p.numel() for p in block.parameters())
            assert spec.kind == "head" or x.shape[1:] == (spec.out_channels, spec.out_hw, spec.out_hw)
    assert x.shape == (4, 5)
    assert params == count([arch], 5, 1).params[0]


def test_an_arch_of_another_family_is_refused():
    with pytest.raises(InputError, match=r"this supernet of ofa_mbv3_w1\.0 takes 20"):
        set_active(build_supernet(_space("ofa_mbv3_w1.0"), 3), _space("ofa_proxyless_w1.3").largest())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_official_files_load_reheaded_and_gray(tmp_path: Path, caplog, suffix):
    """The file says `mobile_inverted_conv` and wraps its dict as published ones do; classes and channels differ."""
    official = build_supernet(_space("ofa_mbv3_w1.0"), 10, seed=1)
    old = {
        name.replace(".conv.inverted", ".mobile_inverted_conv.inverted"): t for name, t in official.state_dict().items()
    }
    path = tmp_path / f"ofa_mbv3_d234_e346_k357_w1.0{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": old}, path)
    else:
        save_file(old, path)
    with caplog.at_level(logging.WARNING):
        net = build_supernet(_space("ofa_mbv3_w1.0"), 3, in_channels=1, weights=path, seed=2)
    assert "10 classes, this network 3" in caplog.text
    own, theirs = net.state_dict(), official.state_dict()
    torch.testing.assert_close(own["first_conv.conv.weight"], theirs["first_conv.conv.weight"].sum(1, keepdim=True))
    assert torch.equal(
        own["blocks.5.conv.depth_conv.conv.7to5_matrix"], theirs["blocks.5.conv.depth_conv.conv.7to5_matrix"]
    )
    kernels = "blocks.5.conv.inverted_bottleneck.conv.conv.weight"
    assert torch.equal(own[kernels], theirs[kernels])


def test_files_that_do_not_fit_are_refused_by_their_first_keys(tmp_path: Path):
    space, path = _space("ofa_mbv3_w1.0"), tmp_path / "weights.pt"
    torch.save(build_supernet(_space("ofa_mbv3_w1.2"), 3).state_dict(), path)
    with pytest.raises(InputError, match=r"first_conv\.conv\.weight has shape \(24, 3, 3, 3\) for \(16, 3, 3, 3\)"):
        build_supernet(space, 3, weights=path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(InputError, match="holds no state dict"):
        build_supernet(space, 3, weights=path)
    path.write_bytes(b"half a file")
    path.with_suffix(".safetensors").write_bytes(b"half a file")
    with pytest.raises(InputError, match="cannot be read"):
        build_supernet(space, 3, weights=path.with_suffix(".safetensors"))
    with pytest.raises(InputError, match="cannot be read"):
        build_supernet(space, 3, weights=path)
    with pytest.raises(InputError, match="no weights file"):
        build_supernet(space, 3, weights=tmp_path / "none.pt")
