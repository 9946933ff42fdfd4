"""IoU loss: every photo counts alike, however small its person, as in a mean of IoUs."""

import paddle
import paddle.nn.functional as F

from losses.cross_entropy import check_shapes

LEAST_PERSON = 0.01  # share of the pixels; with less, one wrong pixel would be all that counts


def iou_loss(logits: paddle.Tensor, label: paddle.Tensor, ignore_index: int = 255) -> paddle.Tensor:
    """1 - IoU of each photo, with probabilities in the place of 0 and 1; averaged over the photos.

    With p and y the sums of a photo's probabilities and labels and d that of their absolute
    differences, IoU = (p + y - d) / (p + y + d): the usual one where both are 0 or 1, and 1 where
    the probability is the person's share itself.

    Args:
        logits: (N, 2, H, W) float32.
        label: (N, H, W) class numbers of any integer dtype, or the person's shares, float32 0..1.
        ignore_index: label of the pixels that do not count.

    Returns:
        0-d float32 tensor, 0..1; a photo with hardly a person (LEAST_PERSON) adds 0.

    Raises:
        ValueError: the label's shape is not (N, H, W), or there are more than two classes.

    Source: Wang et al., "Jaccard Metric Losses", NeurIPS 2023, for labels that are shares.
    """
    check_shapes(logits, label)
    if logits.shape[1] != 2:
        raise ValueError(f"the IoU is that of person, of 2 classes, not of {logits.shape[1]}")
    background, person = paddle.unbind(logits, axis=1)
    counts = (label != ignore_index).astype("float32")
    share = label.astype("float32") * counts
    probability = F.sigmoid(person - background) * counts
    difference = (probability - share).abs().sum([1, 2])
    both = probability.sum([1, 2]) + share.sum([1, 2])
    iou = (both - difference) / (both + difference).clip(min=1e-6)
    has_person = (share.mean([1, 2]) > LEAST_PERSON).astype("float32")
    return ((1 - iou) * has_person).mean()
