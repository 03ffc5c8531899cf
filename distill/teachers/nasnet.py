"""NASNet-A (4 @ 1056), called NASNetMobile, which timm lacks: its NASNet-A (6 @ 4032) with fewer cells, rewired.

The network is a subclass of timm's `NASNetALarge` (Zoph et al., CVPR 2018) for any class count and input channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

# The mobile network repeats its normal cell 4 times a stage, the large one 6 times.
_ABSENT_CELLS = (4, 5, 10, 11, 16, 17)


def build_nasnet_mobile(num_classes: int = 1000, in_chans: int = 3, **options: Any) -> nn.Module:
    """Build NASNetMobile: 5,289,978 parameters and 564 M MACs at 224 px and 1000 classes."""
    from timm.models.nasnet import NASNetALarge

    class NASNetMobile(NASNetALarge):  # type: ignore[misc]
        """NASNet-A (4 @ 1056)."""

        def forward_features(self, x: Tensor) -> Tensor:
            """Map images `(batch, channels, r, r)` to activated features `(batch, 1056, r / 32, r / 32)`."""
            stem = self.conv0(x)
            before, last = stem, self.cell_stem_0(stem)
            before, last = last, self.cell_stem_1(before, last)
            for first, reduction in ((0, self.reduction_cell_0), (6, self.reduction_cell_1), (12, None)):
                for index in range(first, first + 4):
                    before, last = last, getattr(self, f"cell_{index}")(last, before)
                if reduction is not None:
                    # The cell after a reduction looks back at the last normal cell, not at the one before it.
                    before, last = last, reduction(last, before)
            features: Tensor = self.act(last)
            return features

    net = NASNetMobile(
        num_classes=num_classes, in_chans=in_chans, stem_size=32, channel_multiplier=2, num_features=1056, **options
    )
    for index in _ABSENT_CELLS:
        delattr(net, f"cell_{index}")
    # timm's own tap table names cells that are gone; hooks on the cells are the way in.
    net.feature_info = []
    net.layer_names, net.feature_ends = [], []
    net.default_cfg = {"first_conv": "conv0.conv", "classifier": "last_linear", "input_size": (3, 224, 224)}
    return net
