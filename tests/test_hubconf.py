"""The entry of paddle.hub."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

import hubconf
from models import PortraitNet
from models.weights import read_state
from training.checkpoints import MODEL_PATH

ROOT = Path(__file__).parent.parent


def test_the_only_entry_is_portraitnet(tmp_path):
    """From another folder, as a user calls it."""
    code = f"import paddle; print(paddle.hub.list({str(ROOT)!r}, source='local'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1:] == ["['portraitnet']"], done.stderr


def test_without_weights_it_is_a_random_network_for_training():
    network = hubconf.portraitnet(pretrained=False)
    assert isinstance(network, PortraitNet) and network.training


@pytest.mark.skipif(not MODEL_PATH.exists(), reason="no trained weights in weights/")
def test_with_weights_it_is_the_bundled_network_for_use():
    network = paddle.hub.load(str(ROOT), "portraitnet", source="local")
    assert type(network).__name__ == "PortraitNet" and not network.training
    state = read_state(MODEL_PATH)
    for name, tensor in network.state_dict().items():
        assert np.array_equal(tensor.numpy(), state[name].numpy()), name
    probability = network.probability(paddle.zeros([2, 3, 64, 96]))
    assert probability.shape == [2, 64, 96]
