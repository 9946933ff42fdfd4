"""Consistency loss: the mask of a photo should not change with its light, noise or blur."""

import paddle

from losses.cross_entropy import class_costs


def consistency_kl(
    photometric_logits: paddle.Tensor, clean_logits: paddle.Tensor, temperature: float
) -> paddle.Tensor:
    """T^2 times the mean over pixels of KL(softmax(clean / T) || softmax(texture / T)).

    Args:
        texture_logits: (N, C, H, W) float32, the texture-augmented photos' logits: the student.
        clean_logits: the same shape, the untouched photos' logits: the teacher, without gradient.
        temperature: T > 0; above 1 it softens both sides, and T^2 keeps the size of the gradient.

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
            f"the two outputs must have one shape, but texture is {list(photometric_logits.shape)} "
            f"and clean {list(clean_logits.shape)}: run the same photos through both"
        )
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}: it must be above 0")
    teacher = class_costs(clean_logits.detach() / temperature)
    student = class_costs(photometric_logits / temperature)
    divergence = sum(paddle.exp(-t) * (s - t) for s, t in zip(student, teacher, strict=True))
    return divergence.mean() * temperature**2
