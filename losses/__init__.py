"""The training loss: a weighted sum of named terms."""

import paddle

from losses.consistency import consistency_kl
from losses.cross_entropy import cross_entropy
from losses.focal import FocalLoss, focal_loss

__all__ = [
    "FocalLoss",
    "consistency_kl",
    "cross_entropy",
    "focal_loss",
    "portrait_loss",
]


def copies_of(logits: paddle.Tensor, n: int) -> list[paddle.Tensor]:
    """Split the logits of clean images and of photometric copies.

    Args:
        logits: (N, C, H, W) of the photometric copies, or (2N, C, H, W) with the N clean images
            first.
        n: N, the number of labels.

    Returns:
        [photometric] or [clean, photometric], each (N, C, H, W).

    Raises:
        ValueError: the number of logits is neither N nor 2N.
    """
    if logits.shape[0] not in (n, 2 * n):
        raise ValueError(
            f"{logits.shape[0]} logits for {n} labels: give the photometric copies, "
            "or all clean images and then all photometric copies"
        )
    # The gradient of split is ten times faster than that of slices.
    return paddle.split(logits, 2) if logits.shape[0] == 2 * n else [logits]


def portrait_loss(
    mask_logits: paddle.Tensor,
    edge_logits: paddle.Tensor | None,
    mask: paddle.Tensor,
    edge: paddle.Tensor | None,
    edge_weight: float,
    consistency_weight: float,
    temperature: float,
) -> dict[str, paddle.Tensor]:
    """total = mask + edge_weight * edge + consistency_weight * consistency.

    A term with weight 0 is not computed. N logits are those of the photometric copies. 2N logits
    are those of all clean images, then in the same order those of the photometric copies.

    Args:
        mask_logits: (N or 2N, C, H, W) float32.
        edge_logits: (N or 2N, 2, H, W) float32; only the last N, of the photometric copies, are
            used, as in the official code. May be None if `edge_weight` is 0.
        mask: (N, H, W) integer 0/1, 255 ignored; or a soft mask, float32 0..1.
        edge: (N, H, W) integer 0/1, 255 ignored; may be None if `edge_weight` is 0.
        edge_weight: weight of the focal loss on the edge logits.
        consistency_weight: weight of the consistency loss between clean images and photometric
            copies; needs 2N logits.
        temperature: temperature of the consistency loss.

    Returns:
        dict of 0-d float32 tensors: mask, edge, consistency (unweighted, 0 if not computed) and
        total. `mask` is CE(clean) + CE(photometric), or CE(photometric) alone.

    Raises:
        ValueError: the shapes disagree, or inputs of a term with a weight are missing.

    Source: PortraitNet section 3 and its published training code.
    """
    if edge_weight and (edge_logits is None or edge is None):
        raise ValueError("the edge term needs the edges: give them, or set edge_weight to 0")
    copies = copies_of(mask_logits, mask.shape[0])
    if consistency_weight and len(copies) == 1:
        raise ValueError(
            "the consistency term needs the logits of clean images and of photometric copies, "
            "but only one of both is given: concatenate both, or set consistency_weight to 0"
        )

    terms = {"mask": sum(cross_entropy(copy, mask) for copy in copies)}
    terms["edge"] = terms["consistency"] = paddle.zeros([])
    if edge_weight:
        photometric = copies_of(edge_logits, edge.shape[0])[-1]
        terms["edge"] = focal_loss(photometric, edge)
    if consistency_weight:
        terms["consistency"] = consistency_kl(copies[1], copies[0], temperature)
    total = terms["mask"] + edge_weight * terms["edge"] + consistency_weight * terms["consistency"]
    return {**terms, "total": total}
