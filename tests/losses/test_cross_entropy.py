"""Cross-entropy on a handful of pixels, against numbers worked out by hand."""

import math

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from conftest import labels, pixels, random_logits

from losses import (
    cross_entropy,
)

LOG3 = math.log(3)  # the margin at which the probability is 3/4


def test_cross_entropy_by_hand():
    logits = pixels(LOG3, LOG3)
    loss = cross_entropy(logits, labels(1, 0))
    assert loss.shape == []
    assert loss.item() == pytest.approx((-math.log(3 / 4) - math.log(1 / 4)) / 2, rel=1e-6)
    loss.backward()
    # gradient of the margin: (probability - label) / 2 pixels
    np.testing.assert_allclose(logits.grad[0, 1, 0].numpy(), [-0.125, 0.375], atol=1e-6)
    np.testing.assert_allclose(logits.grad[0, 0, 0].numpy(), [0.125, -0.375], atol=1e-6)


@pytest.mark.parametrize("n_class", [2, 3])
def test_cross_entropy_equals_paddle(n_class):
    ours, paddles = (random_logits((2, n_class, 3, 5)) for _ in range(2))
    label = paddle.to_tensor(np.random.default_rng(1).integers(0, n_class, (2, 3, 5)))
    label[0, 0, :3] = 255
    loss = cross_entropy(ours, label)
    expected = F.cross_entropy(paddles, label.unsqueeze(1), axis=1, ignore_index=255)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    expected.backward()
    np.testing.assert_allclose(ours.grad.numpy(), paddles.grad.numpy(), atol=1e-7)


def test_cross_entropy_is_stable_at_extreme_logits():
    logits = pixels(1000.0, -1000.0, 1000.0)
    loss = cross_entropy(logits, labels(1, 0, 0))
    assert loss.item() == pytest.approx(1000 / 3, rel=1e-6)
    loss.backward()
    np.testing.assert_allclose(logits.grad[0, 1, 0].numpy(), [0, 0, 1 / 3], atol=1e-7)


def test_cross_entropy_ignores_pixels():
    logits = pixels(LOG3, LOG3, -5.0)
    loss = cross_entropy(logits, labels(1, 0, 255))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2, rel=1e-6)
    loss.backward()
    assert logits.grad[0, :, 0, 2].abs().max().item() == 0


def test_cross_entropy_takes_soft_masks_and_small_integers():
    logits = pixels(LOG3)
    soft = cross_entropy(logits, labels(0.25, dtype="float32"))
    assert soft.item() == pytest.approx(0.25 * math.log(4 / 3) + 0.75 * math.log(4), rel=1e-6)
    small = cross_entropy(logits, labels(1, dtype="uint8"))
    assert small.item() == pytest.approx(math.log(4 / 3), rel=1e-6)
