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
    """[texture] of N photos' logits or [clean, texture] of 2N photos' logits, each (N, C, H, W)."""
    if logits.shape[0] not in (n, 2 * n):
        raise ValueError(
            f"{logits.shape[0]} logits for {n} labels: give each photo once, "
            "or all clean ones and then all texture-augmented ones"
        )
    # split, not slices: their gradient is ten times slower.
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

    A term whose weight is 0 is not computed. The logits hold each photo once (texture-augmented),
    or twice: first all clean photos, then in the same order all texture-augmented ones.

    Args:
        mask_logits: (N or 2N, C, H, W) float32.
        edge_logits: (N or 2N, 2, H, W) float32; only the last N, the texture-augmented photos, are
            used, as in the official code. May be None when `edge_weight` is 0.
        mask: (N, H, W) integer 0/1, 255 ignored; or the person's share of each pixel, float32 0..1.
        edge: (N, H, W) integer 0/1, 255 ignored; may be None when `edge_weight` is 0.
        edge_weight: of the focal loss on the edge logits.
        consistency_weight: of the KL between clean and texture-augmented masks; needs 2N photos.
        temperature: of that KL.

    Returns:
        dict of 0-d float32 tensors: mask, edge, consistency (each before its weight, 0 when off)
        and total. `mask` is CE(clean) + CE(texture), or CE(texture) alone.

    Raises:
        ValueError: the shapes disagree, or a term is switched on without what it needs.

    Source: PortraitNet section 3 and its published training code.
    """
    if edge_weight and (edge_logits is None or edge is None):
        raise ValueError("the edge term needs the edges: give them, or set edge_weight to 0")
    copies = copies_of(mask_logits, mask.shape[0])
    if consistency_weight and len(copies) == 1:
        raise ValueError(
            "the consistency term needs each photo's clean and texture-augmented logits, "
            "but each is there once: concatenate both, or set consistency_weight to 0"
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
