"""PortraitNetLarge: the mean of its three networks, joined, loaded and exported."""

import numpy as np
import paddle
import pytest
from conftest import lively, make_batch

import export
from models import PortraitNet, PortraitNetLarge, PortraitNetLite, count_parameters, join
from models.large import WIDTH
from models.weights import load_model, save_atomically
from portraitnet.backends import BACKENDS, load
from training.checkpoints import open_predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three networks with random weights, joined, and the exports of all together."""
    folder = tmp_path_factory.mktemp("large")
    paddle.seed(0)
    networks = PortraitNet(width=WIDTH), PortraitNet(), PortraitNetLite()
    for name, network in zip(PortraitNetLarge.PARTS, map(lively, networks)):
        weight = getattr(network.mask_head, "conv", network.mask_head).weight
        weight.set_value(0.1 * weight)  # |logit| < 9
        save_atomically(network.state_dict(), folder / f"{name}.pdparams")
    parts = [f"--{name}={folder / name}.pdparams" for name in PortraitNetLarge.PARTS]
    assert join.main([*parts, f"--output={folder / 'net.pdparams'}"]) == 0
    given = ["--model_path", str(folder / "net.pdparams"), "--shape", "96x64"]
    assert export.main([*given, "--formats", "onnx", "tflite"]) == 0
    return folder


def test_size(folder):
    model = load_model(folder / "net.pdparams")
    assert isinstance(model, PortraitNetLarge)
    assert count_parameters(model) == 6_235_856 + 2_080_904 + 106_608
    assert (folder / "net.pdparams").stat().st_size < 18e6


def test_logits_are_the_mean_of_all(folder):
    batch = paddle.to_tensor(make_batch(96, 64))
    large, wide = (load_model(folder / f"{name}.pdparams") for name in ("net", "wide"))
    with paddle.no_grad():
        found, alone = large(batch), large.mask_logits(batch)
        parts = [getattr(large, name)(batch) for name in PortraitNetLarge.PARTS]
        given = wide(batch)[0]
    assert (alone - found[0]).abs().max().item() < 1e-5
    for ours, *each in zip(found, *parts):
        assert ours.shape == [2, 2, 96, 64]
        assert (ours - sum(each) / 3).abs().max().item() < 1e-5
        assert (each[0] - each[1]).abs().max().item() > 0.5
    assert (parts[0][0] - given).abs().max().item() < 0.2  # it holds float16


@pytest.mark.parametrize(
    "file, backend",
    [
        ("net.onnx", "onnx"),
        ("net.onnx", "openvino"),
        ("net_96x64.tflite", "litert"),
    ],
)
def test_every_runtime_gives_the_checkpoints_answers(file, backend, folder):
    pytest.importorskip(BACKENDS[backend].package)
    batch = make_batch(96, 64)
    expected = open_predictor(folder / "net.pdparams").run_batch(batch)
    found = load(folder / file, backend, PortraitNetLarge.size).run_batch(batch)
    assert np.abs(found - expected).max() < 1e-4
    assert np.ptp(expected) > 0.1, "a flat answer proves nothing"


def test_a_network_of_another_width_is_refused(folder, tmp_path, capsys):
    given = ["--wide", folder / "base.pdparams", "--output", tmp_path / "large.pdparams"]
    assert join.main(list(map(str, given))) == 1
    assert "the wide network does not fit" in capsys.readouterr().err
    assert not (tmp_path / "large.pdparams").exists()
