"""For `paddle.hub`: paddle.hub.load("folder of this repository", "portraitnet", source="local")."""

# Modules only, because paddle.hub.list takes every function and class of this file for an entry.
import models
import models.weights
import training.checkpoints


def portraitnet(pretrained: bool = True) -> models.PortraitNet:
    """PortraitNet at width 1.

    Its `probability` turns a batch (N, 3, H, W) float32, BGR, (pixel - MEAN) * SCALE of
    portraitnet/predictor.py, H and W multiples of 32, into (N, H, W) float32, 0..1. For photos of
    any size use `Predictor.of(training.checkpoints.runner(network))`.

    Args:
        pretrained: whether to load the bundled weights, in evaluation mode; otherwise the weights
            are random, in training mode.
    """
    if pretrained:
        return models.weights.load_model(training.checkpoints.MODEL_PATH)
    return models.PortraitNet()
