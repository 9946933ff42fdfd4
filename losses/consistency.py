"""Consistency loss: a photo and its photometric copy should have the same mask."""

import paddle

from losses.cross_entropy import class_costs


def consistency_kl(
    photometric_logits: paddle.Tensor, clean_logits: paddle.Tensor, temperature: float
) -> paddle.Tensor:
    """T^2 times the mean over pixels of KL(softmax(clean / T) || softmax(photometric / T)).

    Args:
        photometric_logits: (N, C, H, W) float32, logits of the photometric copies: the student.
        clean_logits: (N, C, H, W) float32, logits of the clean images: the teacher, which gets no
            gradient.
        temperature: T > 0; above 1 both distributions are softened. T^2 keeps the gradient's scale.

    Returns:
        0-d float32 tensor.

    Raises:
        ValueError: the shapes differ or the temperature is not positive.

    Source: PortraitNet section 3; T^2 from Hinton et al., "Distilling the Knowledge in a Neural
        Network", 2015, section 2. The official code averages over the C channels as well, which
        makes it C times smaller.
    """
    if photometric_logits.shape != clean_logits.shape:
        raise ValueError(
            "the logits must have the same shape, but photometric is "
            f"{list(photometric_logits.shape)} and clean {list(clean_logits.shape)}: give those of "
            "the same photos"
        )
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}: it must be above 0")
    teacher = class_costs(clean_logits.detach() / temperature)
    student = class_costs(photometric_logits / temperature)
    divergence = sum(paddle.exp(-t) * (s - t) for s, t in zip(student, teacher, strict=True))
    return divergence.mean() * temperature**2
