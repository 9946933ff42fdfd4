"""PortraitNetLarge: the mean of two networks that see differently, for photos.

PortraitNet of width 1.75 has learned from this project's photos, and PortraitNetLite began with
what MediaPipe's selfie model had learned from others. Where one is wrong, the other often is right.
"""

import paddle
import paddle.nn as nn

from models.lite import PortraitNetLite
from models.portraitnet import PortraitNet

WIDTH = 1.75


class PortraitNetLarge(PortraitNet):
    """A wide PortraitNet and a PortraitNetLite; inputs and outputs are PortraitNet's.

    Args:
        n_class: classes of the mask heads; channel 1 is the person.
    """

    size = PortraitNetLite.size

    def __init__(self, n_class: int = 2):
        nn.Layer.__init__(self)
        self.wide = PortraitNet(n_class, WIDTH)
        self.lite = PortraitNetLite(n_class)

    def forward(self, batch: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        (mask, edge), (other_mask, other_edge) = self.wide(batch), self.lite(batch)
        return (mask + other_mask) / 2, (edge + other_edge) / 2

    def mask_logits(self, batch: paddle.Tensor) -> paddle.Tensor:
        return (self.wide.mask_logits(batch) + self.lite.mask_logits(batch)) / 2
