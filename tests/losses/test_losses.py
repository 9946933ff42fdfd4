"""Losses on a handful of pixels, against numbers worked out by hand."""

import math

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from losses import (
    FocalLoss,
    consistency_kl,
    cross_entropy,
    focal_loss,
    portrait_loss,
)


def pixels(*margins):
    """Two-class logits (1, 2, 1, W) whose class 1 leads by these margins, with gradient."""
    logits = np.array([[[[0.0] * len(margins)], [list(margins)]]], "float32")
    return paddle.to_tensor(logits, stop_gradient=False)


def labels(*values, dtype="int64"):
    return paddle.to_tensor([[list(values)]], dtype=dtype)


def random_logits(shape, seed=0, scale=3.0):
    values = np.random.default_rng(seed).normal(0, scale, shape).astype("float32")
    return paddle.to_tensor(values, stop_gradient=False)


LOG3 = math.log(3)  # the margin at which the probability is 3/4


# Cross-entropy


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


@pytest.mark.parametrize("loss", [cross_entropy, focal_loss])
def test_all_pixels_ignored_or_misshapen(loss):
    with pytest.raises(ValueError, match=r"the label's shape must be \[1, 1, 2\].*without a chan"):
        loss(pixels(1.0, 2.0), paddle.zeros([1, 1, 1, 2], "int64"))
    logits = pixels(1.0, 2.0)
    value = loss(logits, labels(255, 255))
    assert value.item() == 0
    value.backward()
    assert logits.grad.abs().max().item() == 0


# Focal loss


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


def test_focal_two_classes_equal_the_general_formula():
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


# Consistency


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


# The sum

WEIGHTS = {"edge_weight": 0.1, "consistency_weight": 2.0, "temperature": 2.0}


def drawn_batch():
    mask_logits, edge_logits = random_logits((4, 2, 2, 3)), random_logits((4, 2, 2, 3), seed=1)
    rng = np.random.default_rng(2)
    mask, edge = (paddle.to_tensor(rng.integers(0, 2, (2, 2, 3)).astype("uint8")) for _ in "me")
    return mask_logits, edge_logits, mask, edge


def test_portrait_loss_is_the_weighted_sum_of_its_terms():
    mask_logits, edge_logits, mask, edge = drawn_batch()
    terms = portrait_loss(mask_logits, edge_logits, mask, edge, **WEIGHTS)
    assert list(terms) == ["mask", "edge", "consistency", "total"]
    assert all(term.shape == [] for term in terms.values())
    clean, photometric = mask_logits[:2], mask_logits[2:]
    expected = {
        "mask": cross_entropy(clean, mask) + cross_entropy(photometric, mask),
        "edge": focal_loss(edge_logits[2:], edge),
        "consistency": consistency_kl(photometric, clean, 2.0),
    }
    expected["total"] = sum(expected[k] * w for k, w in zip(expected, (1, 0.1, 2)))
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-6), name


def test_portrait_loss_gradients_reach_the_right_half():
    mask_logits, edge_logits, mask, edge = drawn_batch()
    portrait_loss(mask_logits, edge_logits, mask, edge, **WEIGHTS)["total"].backward()
    assert edge_logits.grad[:2].abs().max().item() == 0
    assert edge_logits.grad[2:].abs().min().item() > 0
    alone = mask_logits.detach()[:2]
    alone.stop_gradient = False
    cross_entropy(alone, mask).backward()  # the teacher gets nothing from the consistency term
    np.testing.assert_allclose(mask_logits.grad[:2].numpy(), alone.grad.numpy(), atol=1e-7)


def test_portrait_loss_drops_a_term_of_weight_0():
    mask_logits, _, mask, _ = drawn_batch()
    terms = portrait_loss(mask_logits[2:], None, mask, None, 0, 0, 1.0)
    assert list(terms) == ["mask", "edge", "consistency", "total"]
    expected = cross_entropy(mask_logits[2:], mask).item()
    assert terms["total"].item() == terms["mask"].item() == pytest.approx(expected)
    assert terms["edge"].item() == terms["consistency"].item() == 0


def test_portrait_loss_names_what_is_missing():
    mask_logits, edge_logits, mask, edge = drawn_batch()
    with pytest.raises(ValueError, match="3 logits for 2 labels: give the photometric copies"):
        portrait_loss(mask_logits[:3], edge_logits, mask, edge, 0.1, 0, 1.0)
    with pytest.raises(ValueError, match="set consistency_weight to 0"):
        portrait_loss(mask_logits[:2], edge_logits, mask, edge, 0.1, 1.0, 1.0)
    with pytest.raises(ValueError, match="needs the edges: give them"):
        portrait_loss(mask_logits, None, mask, edge, 0.1, 1.0, 1.0)
    with pytest.raises(ValueError, match="needs the edges: give them"):
        portrait_loss(mask_logits, edge_logits, mask, None, 0.1, 1.0, 1.0)
    with pytest.raises(TypeError, match="lovasz_weight"):
        portrait_loss(mask_logits, edge_logits, mask, edge, **WEIGHTS, lovasz_weight=1.0)


def test_portrait_loss_takes_more_classes():
    logits = random_logits((4, 3, 2, 3))
    mask = paddle.to_tensor(np.random.default_rng(2).integers(0, 3, (2, 2, 3)))
    terms = portrait_loss(logits, None, mask, None, 0, 1.0, 1.0)
    terms["total"].backward()
    assert math.isfinite(terms["total"].item()) and logits.grad.abs().min().item() > 0
