"""Focal loss on a handful of pixels, against numbers worked out by hand."""

import math

import numpy as np
import paddle
import pytest
from conftest import labels, pixels, random_logits

from losses import (
    FocalLoss,
    cross_entropy,
    focal_loss,
)

LOG3 = math.log(3)  # the margin at which the probability is 3/4


def test_focal_by_hand():
    logits = pixels(LOG3, LOG3)
    loss = focal_loss(logits, labels(1, 0), gamma=2.0)
    # (1 - p)^2 * -log p with p 3/4 and 1/4
    assert loss.item() == pytest.approx((math.log(4 / 3) / 16 + math.log(4) * 9 / 16) / 2, rel=1e-6)
    loss.backward()
    # d/dmargin of (1-p)^2 * -log p, p = sigmoid(margin): (1-p)^2 (2 p log p - (1-p))
    p = 0.75
    expected = (1 - p) ** 2 * (2 * p * math.log(p) - (1 - p)) / 2
    assert logits.grad[0, 1, 0, 0].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("n_class", [2, 4])
def test_focal_with_gamma_0_is_cross_entropy(n_class):
    logits = random_logits((2, n_class, 3, 3))
    label = paddle.to_tensor(np.random.default_rng(1).integers(0, n_class, (2, 3, 3)))
    expected = cross_entropy(logits, label).item()
    assert focal_loss(logits, label, gamma=0).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n_class", [2, 3])
@pytest.mark.parametrize("gamma", [0, 0.5, 2])
def test_focal_is_0_with_finite_gradient_on_a_perfect_prediction(n_class, gamma):
    logits = np.full((1, n_class, 1, 2), -500, "float32")
    logits[0, 0, 0, 0] = logits[0, 1, 0, 1] = 500
    logits = paddle.to_tensor(logits, stop_gradient=False)
    loss = focal_loss(logits, labels(0, 1), gamma=gamma)
    assert loss.item() == 0
    loss.backward()
    assert logits.grad.abs().max().item() < 1e-20


def test_focal_of_two_classes_equals_the_general_formula():
    """A third class that is never likely must change nothing."""
    two = random_logits((1, 2, 2, 2))
    three = paddle.concat([two, paddle.full([1, 1, 2, 2], -60.0)], axis=1)
    label = paddle.to_tensor([[[0, 1], [1, 255]]])
    expected = focal_loss(three, label, alpha=[0.3, 0.9, 0.5], gamma=1.5).item()
    actual = focal_loss(two, label, alpha=[0.3, 0.9], gamma=1.5).item()
    assert actual == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (None, (math.log(4 / 3) + math.log(4)) / 2),
        (0.8, (0.8 * math.log(4 / 3) + 0.2 * math.log(4)) / 2),
        ([5, 7], (7 * math.log(4 / 3) + 5 * math.log(4)) / 2),
    ],
)
def test_focal_alpha_weighs_the_classes(alpha, expected):
    loss = FocalLoss(alpha, gamma=0)(pixels(LOG3, LOG3), labels(1, 0))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_focal_smooth_rate_and_ignore_index():
    logits = pixels(LOG3, 9.0)
    loss = FocalLoss(None, gamma=1.0, ignore_index=7, smooth_rate=0.2)(logits, labels(1, 7))
    # soft labels .9 and .1; (1 - p) -log p with p 3/4 and 1/4
    assert loss.item() == pytest.approx(
        0.9 * math.log(4 / 3) / 4 + 0.1 * math.log(4) * 3 / 4, rel=1e-6
    )
    loss.backward()
    assert logits.grad[0, :, 0, 1].abs().max().item() == 0


def test_focal_names_a_bad_argument():
    logits, label = pixels(1.0), labels(1)
    with pytest.raises(ValueError, match="weighs 3 classes but the logits have 2"):
        focal_loss(logits, label, alpha=[1, 2, 3])
    with pytest.raises(ValueError, match="gamma is -1: it must be 0 or more"):
        focal_loss(logits, label, gamma=-1)
    with pytest.raises(ValueError, match="smooth_rate is 1: it must be at least 0 and below 1"):
        focal_loss(logits, label, smooth_rate=1)
