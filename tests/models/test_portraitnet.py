"""The network against the report's arithmetic: counts, shapes and starts."""

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F
import pytest

from models import D_block, PortraitNet, count_macs, count_parameters
from models.mobilenetv2 import ConvBN
from models.portraitnet import Upsample


@pytest.fixture(scope="module")
def model():
    paddle.seed(0)
    return PortraitNet()


def weights(layer):
    return int(np.prod(layer.weight.shape))


def test_parameters(model):
    assert count_parameters(model) == 2_080_904
    assert count_parameters(model) - count_parameters(model.edge_head) == 2_080_760
    assert count_parameters(model.encoder) == 1_812_800
    upsamples = [m for m in model.sublayers() if isinstance(m, Upsample)]
    assert sum(count_parameters(m) for m in upsamples) == 178_176
    assert len(upsamples) == 5


def test_macs(model):
    assert count_macs(model) == 368_462_752  # 0.368 GMAC at 224
    # both heads: 3x3, 8 to 2 channels, at each pixel
    assert weights(model.edge_head) * 224**2 == 7_225_344
    assert count_macs(model, 448) == 4 * count_macs(model)


def test_macs_leave_the_model_as_it_was(model):
    hooks = sum(len(m._forward_post_hooks) for m in model.sublayers())
    model.train()
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    count_macs(model, 32)
    assert model.training
    assert sum(len(m._forward_post_hooks) for m in model.sublayers()) == hooks
    assert all((model.state_dict()[name].numpy() == value).all() for name, value in before.items())


def test_the_reports_arithmetic_of_a_separable_convolution():
    """Three channels to four: 108 weights, or 27 depthwise and 12 pointwise."""
    standard = ConvBN(3, 4, kernel=3).conv
    depthwise, pointwise = ConvBN(3, 3, kernel=3, groups=3).conv, ConvBN(3, 4).conv
    assert weights(standard) == 108
    assert (weights(depthwise), weights(pointwise)) == (27, 12)
    assert weights(depthwise) + weights(pointwise) == 39


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 160), (224, 32)])
def test_shapes_at_multiples_of_32(model, height, width):
    model.eval()
    with paddle.no_grad():
        batch = paddle.randn([2, 3, height, width])
        skips = model.encoder(batch)
        mask, edge = model(batch)
    assert [s.shape[1] for s in skips] == [24, 32, 96, 320]
    assert [s.shape[2] for s in skips] == [height // d for d in (4, 8, 16, 32)]
    assert list(mask.shape) == list(edge.shape) == [2, 2, height, width]


def test_classes_belong_to_the_mask_head():
    mask, edge = PortraitNet(n_class=5)(paddle.zeros([1, 3, 32, 32]))
    assert (mask.shape[1], edge.shape[1]) == (5, 2)


def test_mask_logits_are_the_first_output(model):
    model.eval()
    batch = paddle.randn([1, 3, 64, 32])
    with paddle.no_grad():
        assert (model.mask_logits(batch) == model(batch)[0]).all()


def test_probability_is_the_softmax_of_channel_one():
    model = PortraitNet(width=0.25)
    model.features = lambda logits: paddle.concat([logits, paddle.zeros([1, 6, 1, 3])], axis=1)
    pick = np.zeros((2, 8, 3, 3), np.float32)
    pick[0, 0, 1, 1] = pick[1, 1, 1, 1] = 1  # the head passes the first two channels on
    model.mask_head.weight.set_value(pick)
    logits = paddle.to_tensor([[[[0.0, 1, -1000]], [[0, 3, 1000]]]])
    probability = model.probability(logits).numpy()
    assert probability[0, 0] == pytest.approx([0.5, 1 / (1 + np.exp(-2)), 1])
    assert np.isfinite(model.probability(-logits).numpy()).all()


def test_a_photo_does_not_depend_on_its_batch(model):
    model.eval()
    batch = paddle.randn([3, 3, 64, 64])
    with paddle.no_grad():
        together = model.mask_logits(batch).numpy()
        alone = [model.mask_logits(batch[i : i + 1]).numpy() for i in range(3)]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-4)


@pytest.mark.parametrize(
    ("width", "parameters"), [(0.5, 552_728), (0.75, 1_205_880), (1.4, 4_049_712)]
)
def test_width(width, parameters):
    model = PortraitNet(width=width)
    assert count_parameters(model) == parameters
    model.eval()
    with paddle.no_grad():
        assert list(model(paddle.zeros([1, 3, 64, 64]))[0].shape) == [1, 2, 64, 64]


def test_upsample_starts_as_bilinear_interpolation():
    x = paddle.randn([2, 3, 5, 7])
    with paddle.no_grad():
        ours = Upsample(3)(x).numpy()
        constant = Upsample(3)(paddle.full([1, 3, 4, 4], 2.0)).numpy()
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False).numpy()
    # The border differs: beyond it the transposed convolution sees 0.
    np.testing.assert_allclose(ours[:, :, 1:-1, 1:-1], bilinear[:, :, 1:-1, 1:-1], atol=1e-6)
    np.testing.assert_allclose(constant[:, :, 1:-1, 1:-1], 2.0, atol=1e-6)


def test_d_block_shortcut():
    assert D_block(8, 8).shortcut is None
    block = D_block(8, 16)
    assert list(block.shortcut.conv.weight.shape) == [16, 8, 1, 1]
    for block in (D_block(8, 8), D_block(8, 16)):
        kernels = [m._groups for m in block.block.sublayers() if isinstance(m, nn.Conv2D)]
        assert [groups > 1 for groups in kernels] == [True, False, True, False]
        block.eval()
        block.block[3].bn.weight.set_value(paddle.zeros_like(block.block[3].bn.weight))
        x = paddle.randn([1, 8, 4, 4])
        expected = x if block.shortcut is None else block.shortcut(x)
        assert (block(x) == F.relu(expected)).all()


def test_batch_norm_keeps_nine_tenths(model):
    """Paddle's momentum weighs the old value."""
    layer = ConvBN(3, 4)
    layer.train()
    layer.bn._mean.set_value(paddle.full([4], 10.0))
    layer(paddle.zeros([1, 3, 4, 4]))
    np.testing.assert_allclose(layer.bn._mean.numpy(), 9.0, rtol=1e-6)


def test_every_trainable_parameter_gets_a_gradient_and_the_loss_falls():
    paddle.seed(0)
    model = PortraitNet()
    model.train()
    optimizer = paddle.optimizer.Adam(1e-3, parameters=model.parameters())
    batch = paddle.randn([2, 3, 64, 64])
    label = paddle.concat([paddle.zeros([2, 32, 64]), paddle.ones([2, 32, 64])], axis=1)
    label = label.astype("int64").unsqueeze(1)
    losses = []
    for _ in range(4):
        loss = sum(F.cross_entropy(logits, label, axis=1) for logits in model(batch))
        loss.backward()
        trainable = [(n, p) for n, p in model.named_parameters() if not p.stop_gradient]
        assert not [n for n, p in trainable if p.grad is None or not p.grad.abs().max().item()]
        optimizer.step()
        optimizer.clear_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("head", [0, 1])
def test_both_heads_train_the_whole_encoder(head):
    model = PortraitNet()
    model(paddle.randn([1, 3, 64, 64]))[head].square().sum().backward()
    for layer in (model.encoder.stem.conv, model.encoder.stages[-1][-1].project.conv):
        assert layer.weight.grad.abs().max().item() > 0


def test_a_second_model_in_one_process(model):
    """Fixed parameter names would collide here."""
    second = PortraitNet()
    assert list(second.state_dict()) == list(model.state_dict())
    own = {p.name for p in model.parameters()}
    assert len(own) == len(model.parameters())
    assert own.isdisjoint(p.name for p in second.parameters())
    second.set_state_dict(model.state_dict())
    batch = paddle.randn([1, 3, 32, 32])
    model.eval(), second.eval()
    with paddle.no_grad():
        assert (second.mask_logits(batch) == model.mask_logits(batch)).all()
