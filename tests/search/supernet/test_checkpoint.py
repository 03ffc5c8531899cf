"""A supernet's checkpoint is taken up by the training that it belongs to, or refused in one line."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tutelage.records import InputError
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_supernet
from tutelage.search.supernet.training import Batch, SupernetSchedule, train_supernet
from tutelage.search.supernet.weights import load_weights

SPACE = SPACES["ofa_mbv3_w0.75"].with_resolutions((32,))


def stopping(epoch: int) -> list[Batch]:
    if epoch == 1:
        raise KeyboardInterrupt
    return [(torch.zeros(2, 1, 32, 32), torch.tensor([0, 1]), None)]


def trained(checkpoint: Path, data_id: str) -> None:
    """Train until the second of two epochs, where it is stopped."""
    schedule = SupernetSchedule(epochs=2, method="random", num_random=1, bf16=False)
    with pytest.raises(KeyboardInterrupt):
        train_supernet(
            build_supernet(SPACE, 2, 1), SPACE, stopping, 1, schedule, checkpoint=checkpoint, data_id=data_id
        )


def test_a_checkpoint_of_other_data_or_without_a_tensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "supernet.safetensors"
    trained(path, "these images")
    trained(path, "these images")  # taken up
    with pytest.raises(InputError, match="trained with data = 'these images', now it is 'others': delete it"):
        trained(path, "others")
    with safe_open(path, framework="pt") as file:
        numbers = file.metadata()
    tensors = load_file(path)
    del tensors["net/final_expand_layer.conv.weight"]
    save_file(tensors, path, numbers)
    with pytest.raises(InputError, match=r"final_expand_layer\.conv\.weight.*delete it to start again") as caught:
        trained(path, "these images")
    assert "\n" not in str(caught.value)


def test_two_of_a_files_names_for_one_tensor_are_refused(tmp_path: Path) -> None:
    net = build_supernet(SPACE, 2, 1)
    state = dict(net.state_dict())
    name = "blocks.1.conv.depth_conv.conv.conv.weight"
    state[name.replace(".conv.depth", ".mobile_inverted_conv.depth")] = torch.ones_like(state[name])
    save_file(state, tmp_path / "twice.safetensors")
    with pytest.raises(InputError, match=r"mobile_inverted_conv\S+ is not of this network"):
        load_weights(net, tmp_path / "twice.safetensors")
