"""The sum of the losses: its terms, its gradients, what it refuses."""

import math

import numpy as np
import paddle
import pytest
from conftest import labels, pixels, random_logits

from losses import (
    consistency_kl,
    cross_entropy,
    focal_loss,
    portrait_loss,
)


@pytest.mark.parametrize("loss", [cross_entropy, focal_loss])
def test_all_pixels_ignored_or_misshapen(loss):
    with pytest.raises(ValueError, match=r"the label's shape must be \[1, 1, 2\].*without a chan"):
        loss(pixels(1.0, 2.0), paddle.zeros([1, 1, 1, 2], "int64"))
    logits = pixels(1.0, 2.0)
    value = loss(logits, labels(255, 255))
    assert value.item() == 0
    value.backward()
    assert logits.grad.abs().max().item() == 0


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
