"""Weights of one's own: files on a server, by name."""

from tutelage.pipeline.weights.entry import Pretrained, Wanted, WeightsSource
from tutelage.pipeline.weights.locations import WebFile
from tutelage.records import InputError

SERVERS = ("https://weights.example.org", "https://mirror.example.org/weights")


def find_on_shelf(text: str, wanted: Wanted) -> Pretrained:
    """Find the file of a name; `wanted` is the network that it is for."""
    if not text.isidentifier():
        raise InputError(f"weights shelf:{text}: a name on the shelf has letters, digits and _ only")
    name = f"{text}.safetensors"
    file = WebFile(name, [f"{server}/{name}" for server in SERVERS])
    return Pretrained(file, mean=(0.5,), std=(0.5,), resolution=224)


SHELF = WeightsSource(name="shelf", help="our own weights, e.g. shelf:chest_v2", find=find_on_shelf)
