"""PortraitNetLarge: the mean of three networks, for photos.

Each learned something of its own: PortraitNet is surest where nobody is, its wide version finds
small whole people, and PortraitNetLite began with what MediaPipe's selfie model had learned from
other photos. Where one is wrong, the others often are right.
"""

import paddle
import paddle.nn as nn

from models.lite import PortraitNetLite
from models.portraitnet import PortraitNet

WIDTH = 1.75


class PortraitNetLarge(PortraitNet):
    """PortraitNet, its wide version and PortraitNetLite; inputs and outputs are PortraitNet's.

    Args:
        n_class: classes of the mask heads; channel 1 is the person.
    """

    PARTS = "wide", "base", "lite"
    size = PortraitNetLite.size

    def __init__(self, n_class: int = 2):
        nn.Layer.__init__(self)
        self.wide = PortraitNet(n_class, WIDTH)
        self.base = PortraitNet(n_class)
        self.lite = PortraitNetLite(n_class)

    def forward(self, batch: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        masks, edges = zip(*(getattr(self, name)(batch) for name in self.PARTS))
        return sum(masks) / len(masks), sum(edges) / len(edges)

    def mask_logits(self, batch: paddle.Tensor) -> paddle.Tensor:
        return sum(getattr(self, name).mask_logits(batch) for name in self.PARTS) / len(self.PARTS)
