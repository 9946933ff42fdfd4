"""For `paddle.hub`: paddle.hub.load("folder of this repository", "portraitnet", source="local")."""

# Modules alone: paddle.hub.list takes every function and class here for an entry.
import models
import models.weights
import training.checkpoints


def portraitnet(pretrained: bool = True) -> models.PortraitNet:
    """PortraitNet at width 1.

    Its `probability` takes (N, 3, H, W) float32, BGR, (pixel - MEAN) * SCALE of transforms/, H and
    W multiples of 32, and gives (N, H, W) float32, 0..1; `Predictor.of(training.checkpoints.runner(network))`
    takes photos.

    Args:
        pretrained: with the weights of weights/, in evaluation mode; else random, for training.
    """
    if pretrained:
        return models.weights.load_model(training.checkpoints.MODEL_PATH)
    return models.PortraitNet()
