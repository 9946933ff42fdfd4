"""Consistency of two outputs, against numbers worked out by hand."""

import math

import numpy as np
import paddle.nn.functional as F
import pytest
from conftest import pixels, random_logits

from losses import (
    consistency_kl,
)

LOG3 = math.log(3)  # the margin at which the probability is 3/4


def test_consistency_by_hand():
    clean, photometric = pixels(LOG3), pixels(0.0)
    loss = consistency_kl(photometric, clean, temperature=1.0)
    # KL((1/4, 3/4) || (1/2, 1/2))
    assert loss.item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-5)
    loss.backward()
    assert photometric.grad[0, 1, 0, 0].item() == pytest.approx(0.5 - 0.75, rel=1e-5)
    assert clean.grad is None


def test_consistency_scales_with_the_temperature():
    clean, photometric = pixels(2 * LOG3), pixels(0.0)
    loss = consistency_kl(photometric, clean, temperature=2.0)
    assert loss.item() == pytest.approx(4 * (0.25 * math.log(0.5) + 0.75 * math.log(1.5)), rel=1e-5)
    loss.backward()
    # T^2 times 1/T of the softened difference
    assert photometric.grad[0, 1, 0, 0].item() == pytest.approx(2 * (0.5 - 0.75), rel=1e-5)


@pytest.mark.parametrize("n_class", [2, 3])
def test_consistency_equals_paddle(n_class):
    clean = random_logits((2, n_class, 3, 4), seed=1)
    ours, paddles = (random_logits((2, n_class, 3, 4)) for _ in range(2))
    loss = consistency_kl(ours, clean, temperature=1.0)
    teacher = F.softmax(clean.detach(), axis=1)
    student = F.log_softmax(paddles, axis=1)
    expected = F.kl_div(student, teacher, reduction="sum") / (2 * 3 * 4)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    np.testing.assert_allclose(ours.grad.numpy(), paddles.grad.numpy(), atol=1e-7)


def test_consistency_of_equal_outputs_is_0():
    assert consistency_kl(pixels(3.0, -900.0), pixels(3.0, -900.0), 1.0).item() == 0


def test_consistency_names_a_bad_argument():
    with pytest.raises(ValueError, match=r"photometric is \[1, 2, 1, 1\] and clean \[1, 2, 1, 2\]"):
        consistency_kl(pixels(1.0), pixels(1.0, 2.0), 1.0)
    with pytest.raises(ValueError, match="temperature is 0: it must be above 0"):
        consistency_kl(pixels(1.0), pixels(1.0), 0)
