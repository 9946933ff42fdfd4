"""Dice loss: overlap of the soft mask with the true one; each photo weighs the same."""

import paddle

from losses.cross_entropy import check_shapes, class_costs


def dice_loss(logits, mask):
    """Mean over photos of 1 - (2 sum(p m) + 1) / (sum(p) + sum(m) + 1), p the person's probability.

    Args:
        logits: (N, 2, H, W) float32.
        mask: (N, H, W) 0/1 of any dtype, or a float32 soft mask 0..1; no ignored pixels.

    Returns:
        0-d float32 tensor in 0..1; 0 for an empty prediction of an empty mask, thanks to the ones.

    Raises:
        ValueError: the shapes disagree.

    Source: Milletari et al., "V-Net", 3DV 2016, section 3, with plain sums for its sums of squares.
    """
    check_shapes(logits, mask)
    mask = mask.astype("float32")
    person = paddle.exp(-class_costs(logits)[1])
    overlap = (person * mask).sum([1, 2])
    return (1 - (2 * overlap + 1) / (person.sum([1, 2]) + mask.sum([1, 2]) + 1)).mean()
