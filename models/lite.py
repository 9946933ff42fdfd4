"""PortraitNetLite: PortraitNet made smaller, for phones and old processors.

It differs from the paper's network where a small network's time goes: the encoder has no blocks at
1/2 of the input resolution, upsampling is bilinear instead of learned, and the heads work at 1/2.
"""

import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from models.mobilenetv2 import MobileNetV2
from models.portraitnet import D_block, PortraitNet

STEM = 16
# as in models/mobilenetv2.py: output channels, repeats, stride of the first block, bn_scale
STAGES = (
    (16, 2, 2, 2),  #   1/4   skip
    (24, 2, 2, 4),  #   1/8   skip
    (64, 4, 2, 4),  #   1/16  skip
    (128, 3, 2, 4),  #  1/32  skip
)
HALF = 16  # channels of the features at 1/2


class BilinearUpsample(nn.Layer):
    """Doubles the grid: (N, C, H, W) -> (N, C, 2H, 2W)."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class PixelHead(nn.Layer):
    """1x1 convolution to the four pixels of each 2x2 block of the full resolution.

    Args:
        input_c: channels of the (N, C, H, W) input.
        n_class: channels of the (N, n_class, 2H, 2W) output.
    """

    def __init__(self, input_c: int, n_class: int):
        super().__init__()
        self.conv = nn.Conv2D(input_c, 4 * n_class, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


class PortraitNetLite(PortraitNet):
    """The small network; inputs and outputs are PortraitNet's.

    Args:
        n_class: classes of the mask head; channel 1 is the person.
    """

    def __init__(self, n_class: int = 2):
        nn.Layer.__init__(self)
        self.encoder = MobileNetV2(1, STEM, STAGES, range(len(STAGES)))
        c4, c8, c16, c32 = self.encoder.channels
        self.decode16, self.decode8 = D_block(c32, c16), D_block(c16, c8)
        self.decode4, self.decode2 = D_block(c8, c4), D_block(c4, HALF)
        self.decode1 = D_block(HALF, HALF)
        self.upsample = BilinearUpsample()
        self.mask_head, self.edge_head = PixelHead(HALF, n_class), PixelHead(HALF, 2)

    def features(self, batch: paddle.Tensor) -> paddle.Tensor:
        """Batch (N, 3, H, W) float32 -> features (N, 16, H/2, W/2) float32 for both heads."""
        skip4, skip8, skip16, x = self.encoder(batch)  #     (N, 128, H/32, W/32)
        x = self.upsample(self.decode16(x)) + skip16  #      (N, 64,  H/16, W/16)
        x = self.upsample(self.decode8(x)) + skip8  #        (N, 24,  H/8,  W/8)
        x = self.upsample(self.decode4(x)) + skip4  #        (N, 16,  H/4,  W/4)
        x = self.upsample(self.decode2(x))  #                (N, 16,  H/2,  W/2)
        return self.decode1(x)
