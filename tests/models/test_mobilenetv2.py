"""The encoder: channels of its table, blocks and shortcuts."""

import paddle
import paddle.nn as nn
import pytest

from models import InvertedResidual
from models.mobilenetv2 import MobileNetV2, scaled_channels


@pytest.mark.parametrize(
    ("channels", "width", "rounded"),
    [(32, 1.0, 32), (32, 0.5, 16), (24, 0.5, 16), (16, 0.25, 8), (24, 0.75, 24), (320, 1.4, 448)],
)
def test_scaled_channels(channels, width, rounded):
    """24 * 0.5 = 12 would round to 8, a third less: it becomes 16."""
    assert scaled_channels(channels, width) == rounded


@pytest.mark.parametrize(
    ("input_c", "output_c", "stride", "shortcut"),
    [(8, 8, 1, True), (8, 16, 1, False), (8, 8, 2, False), (8, 16, 2, False)],
)
def test_inverted_residual_has_a_shortcut_where_the_shapes_agree(
    input_c, output_c, stride, shortcut
):
    block = InvertedResidual(input_c, output_c, stride, 6)
    block.eval()
    block.project.bn.weight.set_value(paddle.zeros([output_c]))  # silences the branch
    x = paddle.randn([1, input_c, 6, 6])
    y = block(x)
    assert list(y.shape) == [1, output_c, 6 // stride, 6 // stride]
    if shortcut:
        assert (y == x).all()
    else:
        assert (y == 0).all()


def test_inverted_residual_layers():
    """1x1 expansion, 3x3 depthwise and 1x1 projection, the expansion also at bn_scale 1."""
    for bn_scale in (1, 6):
        hidden = 8 * bn_scale
        convolutions = [
            m for m in InvertedResidual(8, 24, 2, bn_scale).sublayers() if isinstance(m, nn.Conv2D)
        ]
        shapes = [list(m.weight.shape) for m in convolutions]
        assert shapes == [[hidden, 8, 1, 1], [hidden, 1, 3, 3], [24, hidden, 1, 1]]
        assert all(m.bias is None for m in convolutions)


def test_inverted_residual_is_linear_at_its_end_and_relu6_within():
    paddle.seed(0)
    block = InvertedResidual(8, 8, 2, 6)
    block.eval()
    seen = []
    for layer in (block.expand, block.depthwise):
        layer.register_forward_post_hook(lambda _, __, y: seen.append((y.min(), y.max())))
    y = block(100 * paddle.randn([2, 8, 8, 8]))
    assert y.min().item() < 0
    assert [(low.item(), high.item()) for low, high in seen] == [(0, 6), (0, 6)]


def test_encoder_follows_the_table():
    encoder = MobileNetV2()
    blocks = [[b.project.conv.weight.shape[0] for b in stage] for stage in encoder.stages]
    table = [[16], [24] * 2, [32] * 3, [64] * 4, [96] * 3, [160] * 3, [320]]
    assert blocks == table
