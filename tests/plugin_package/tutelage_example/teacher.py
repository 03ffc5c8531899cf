"""A network that timm lacks: as a teacher, a student or a baseline."""

from torch import nn

from tutelage.distill.teachers.zoo import Teacher


def build_small_cnn(num_classes: int, in_chans: int, width: int = 16) -> nn.Module:
    """Build a network for `num_classes` and `in_chans`; further arguments are the recipe's `options`."""
    layers: list[nn.Module] = []
    for wide in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(in_chans, wide, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        in_chans = wide
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_chans, num_classes))


SMALL_CNN = Teacher(name="small_cnn", build=build_small_cnn)
