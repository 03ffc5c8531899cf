"""An extracted subnet as timm's MobileNetV3: equal to the bit, and the presets have timm's own counts."""

import pytest
import torch

from tutelage.records import InputError
from tutelage.search.spaces.presets import PRESETS, place
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_arch, recalibrate_bn, to_timm


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("stem", ["", "_stem1"])
def test_presets_are_timm_models_to_the_bit(preset, stem):
    torch.set_num_threads(1)
    space = SPACES[PRESETS[preset].space + stem]
    arch = place(PRESETS[preset], space, 32)
    net = build_arch(arch, 7, in_channels=1, seed=1)
    images = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    recalibrate_bn(net, [images])
    net.eval()
    exact, native = to_timm(net, arch), to_timm(net, arch, exact=False)
    assert type(exact).__module__ == "timm.models.mobilenetv3"
    with torch.no_grad():
        expected = net(images)
        assert expected.std() > 1e-3
        assert torch.equal(exact(images), expected)
        torch.testing.assert_close(native(images), expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("preset", "params"), [("OFA-595", 9_135_928), ("EEEA-Net-C2", 5_995_904), ("EEEA-Net-C1", 5_068_128)]
)
def test_presets_have_the_published_number_of_parameters(preset, params):
    arch = PRESETS[preset]
    assert sum(p.numel() for p in to_timm(build_arch(arch, 1000), arch).parameters()) == params


def test_other_families_are_refused():
    arch = SPACES["ofa_proxyless_w1.3"].with_resolutions((32,)).smallest()
    with pytest.raises(InputError, match="mbv3"):
        to_timm(build_arch(arch, 3), arch)
