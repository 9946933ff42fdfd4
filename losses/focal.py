"""Focal loss: cross-entropy with less weight on easy pixels, because edge pixels are rare."""

from collections.abc import Sequence

import paddle
import paddle.nn as nn

from losses.cross_entropy import check_shapes, class_costs, class_targets, weighted_mean


def class_weights(alpha: float | Sequence[float] | None, n_class: int) -> list[float]:
    """`alpha` of `focal_loss` as one weight a class.

    Raises:
        ValueError: the number of weights is not `n_class`.
    """
    if alpha is None:
        return [1.0] * n_class
    weights = [1 - alpha, alpha] if isinstance(alpha, (int, float)) else [float(a) for a in alpha]
    if len(weights) != n_class:
        raise ValueError(
            f"alpha {alpha!r} weighs {len(weights)} classes but the logits have {n_class}: "
            "give one number a class, or None"
        )
    return weights


def focal_loss(
    logits: paddle.Tensor,
    label: paddle.Tensor,
    alpha: float | Sequence[float] | None = None,
    gamma: float = 2.0,
    ignore_index: int = 255,
    smooth_rate: float = 0.0,
) -> paddle.Tensor:
    """Mean over pixels that are not ignored of sum_c y_c alpha_c (1 - p_c)^gamma (-log p_c).

    The target y_c is 1 for the labelled class and 0 for others. With `smooth_rate` s it is
    1 - s + s/C for the labelled class and s/C for others.

    Args:
        logits: (N, C, H, W) float32.
        label: (N, H, W) class numbers of any integer dtype.
        alpha: weights of the classes: None for 1 each, C floats, or with two classes one float
            0..1 for class 1, which gives class 0 the weight 1 - alpha.
        gamma: focusing parameter >= 0; 0 is plain cross-entropy.
        ignore_index: label of ignored pixels.
        smooth_rate: label smoothing, 0 <= smooth_rate < 1.

    Returns:
        0-d float32 tensor; 0 for a perfect prediction without smoothing, or if all is ignored.

    Raises:
        ValueError: the shapes disagree, or an argument is outside its range.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, eq. 5; PortraitNet's
        code uses gamma 2. Lin divides by the number of matched anchors, this function by the
        number of pixels that are not ignored.
    """
    check_shapes(logits, label)
    if gamma < 0:
        raise ValueError(f"gamma is {gamma}: it must be 0 or more")
    if not 0 <= smooth_rate < 1:
        raise ValueError(f"smooth_rate is {smooth_rate}: it must be at least 0 and below 1")
    n_class = logits.shape[1]
    costs = class_costs(logits)
    if n_class == 2:
        log_rests = [-costs[1], -costs[0]]  # log(1 - p_c) is log p of the other class
    else:
        log_rests = [paddle.log((1 - paddle.exp(-cost)).clip(min=1e-12)) for cost in costs]
    total = 0
    weights = class_weights(alpha, n_class)
    for target, weight, cost, log_rest in zip(
        class_targets(label, n_class), weights, costs, log_rests, strict=True
    ):
        smoothed = target * (1 - smooth_rate) + smooth_rate / n_class if smooth_rate else target
        total = total + weight * smoothed * paddle.exp(gamma * log_rest) * cost
    return weighted_mean(total, (label != ignore_index).astype("float32"))


class FocalLoss(nn.Layer):
    """`focal_loss` as a layer: `FocalLoss(alpha)(logits, label)`; arguments as there."""

    def __init__(
        self,
        alpha: float | Sequence[float] | None = None,
        gamma: float = 2.0,
        ignore_index: int = 255,
        smooth_rate: float = 0.0,
    ):
        super().__init__()
        self.alpha, self.gamma = alpha, gamma
        self.ignore_index, self.smooth_rate = ignore_index, smooth_rate

    def forward(self, logits: paddle.Tensor, label: paddle.Tensor) -> paddle.Tensor:
        return focal_loss(
            logits, label, self.alpha, self.gamma, self.ignore_index, self.smooth_rate
        )
