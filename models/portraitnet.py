"""PortraitNet: a MobileNetV2 encoder, a light decoder, and two heads (mask and edge).

Source: Zhang et al., "PortraitNet: Real-time Portrait Segmentation Network for Mobile Device",
Computers & Graphics 80 (2019), section 3; block and channel names are the homework report's.
"""

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from models.mobilenetv2 import ConvBN, MobileNetV2, scaled_channels
from portraitnet.geometry import SIZE


class D_block(nn.Layer):
    """Decoder block: two depthwise separable convolutions plus a shortcut, then ReLU.

    Args:
        input_c, output_c: channels of the (N, C, H, W) input and output. If they differ, the
            shortcut is a 1x1 convolution.
    """

    def __init__(self, input_c: int, output_c: int):
        super().__init__()
        self.block = nn.Sequential(
            ConvBN(input_c, input_c, 3, groups=input_c, activation=F.relu),
            ConvBN(input_c, output_c, activation=F.relu),
            ConvBN(output_c, output_c, 3, groups=output_c, activation=F.relu),
            ConvBN(output_c, output_c),
        )
        self.shortcut = ConvBN(input_c, output_c) if input_c != output_c else None

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.block(x) + shortcut)


class Upsample(nn.Conv2DTranspose):
    """4x4 stride-2 transposed convolution that doubles the grid, initialised as bilinear.

    Args:
        channels: channels of the (N, C, H, W) input and of the (N, C, 2H, 2W) output.
    """

    def __init__(self, channels: int):
        line = np.array([0.25, 0.75, 0.75, 0.25], "float32")
        kernel = np.eye(channels, dtype="float32")[:, :, None, None] * np.outer(line, line)
        start = nn.initializer.Assign(kernel)
        super().__init__(
            channels, channels, 4, stride=2, padding=1, weight_attr=start, bias_attr=False
        )


class PortraitNet(nn.Layer):
    """Portrait segmentation with 2,080,904 trainable parameters (at width 1).

    Args:
        n_class: classes of the mask head; channel 1 is the person.
        width: factor of the channels of encoder and decoder.

    Attributes:
        size: side of the square with the area of the inputs that the network is made for, pixels.
    """

    size = SIZE

    def __init__(self, n_class: int = 2, width: float = 1.0):
        super().__init__()
        self.encoder = MobileNetV2(width)
        c4, c8, c16, c32 = self.encoder.channels
        c2, c1 = scaled_channels(16, width), scaled_channels(8, width)
        self.decode16, self.up16 = D_block(c32, c16), Upsample(c16)
        self.decode8, self.up8 = D_block(c16, c8), Upsample(c8)
        self.decode4, self.up4 = D_block(c8, c4), Upsample(c4)
        self.decode2, self.up2 = D_block(c4, c2), Upsample(c2)
        self.decode1, self.up1 = D_block(c2, c1), Upsample(c1)
        self.mask_head = nn.Conv2D(c1, n_class, 3, padding=1, bias_attr=False)
        self.edge_head = nn.Conv2D(c1, 2, 3, padding=1, bias_attr=False)

    def features(self, batch: paddle.Tensor) -> paddle.Tensor:
        """Batch (N, 3, H, W) float32 -> features (N, 8, H, W) float32 for both heads."""
        skip4, skip8, skip16, x = self.encoder(batch)  #       (N, 320, H/32, W/32)
        x = self.up16(self.decode16(x)) + skip16  #            (N,  96, H/16, W/16)
        x = self.up8(self.decode8(x)) + skip8  #               (N,  32, H/8,  W/8)
        x = self.up4(self.decode4(x)) + skip4  #               (N,  24, H/4,  W/4)
        x = self.up2(self.decode2(x))  #                       (N,  16, H/2,  W/2)
        return self.up1(self.decode1(x))  #                    (N,   8, H,    W)

    # In CPU training, `kernels.accelerate` replaces this `forward` and those of the blocks by fused
    # C++ operators, which compute the same.
    def forward(self, batch: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Mask and edge logits.

        Args:
            batch: (N, 3, H, W) float32, BGR, (pixel - MEAN) * SCALE; H and W multiples of 32.

        Returns:
            mask logits (N, n_class, H, W) and edge logits (N, 2, H, W), float32, unbounded.
        """
        x = self.features(batch)
        return self.mask_head(x), self.edge_head(x)

    def mask_logits(self, batch: paddle.Tensor) -> paddle.Tensor:
        """The mask logits of `forward`; inference does not need the edge head."""
        return self.mask_head(self.features(batch))

    def probability(self, batch: paddle.Tensor) -> paddle.Tensor:
        """Batch (N, 3, H, W) float32 -> probability of person (N, H, W) float32, 0..1.

        With two classes, softmax's channel 1 is the sigmoid of the logits' difference.
        """
        background, person = paddle.unbind(self.mask_logits(batch), axis=1)
        return F.sigmoid(person - background)


def count_parameters(model: nn.Layer) -> int:
    """The number of trainable parameters, without BatchNorm's running statistics."""
    return sum(int(np.prod(p.shape)) for p in model.parameters() if not p.stop_gradient)


def count_macs(model: nn.Layer, size: int = 224) -> int:
    """Multiply-accumulates of all convolutions, both heads included, for one (size, size) image.

    BatchNorm is not counted, because it is folded into the convolutions. `paddle.flops` fails with
    NumPy 2.4.

    Args:
        model: network with a `forward` of a batch (N, 3, H, W).
        size: height and width of the image, pixels.
    """
    macs = 0

    def count(layer, inputs, output):
        nonlocal macs
        # A transposed convolution applies its kernel at each input pixel, others at each output
        # pixel.
        grid = inputs[0] if isinstance(layer, nn.Conv2DTranspose) else output
        macs += int(np.prod(layer.weight.shape)) * grid.shape[2] * grid.shape[3]

    convolutions = [m for m in model.sublayers() if isinstance(m, (nn.Conv2D, nn.Conv2DTranspose))]
    hooks = [m.register_forward_post_hook(count) for m in convolutions]
    was_training = model.training
    model.eval()
    with paddle.no_grad():
        model(paddle.zeros([1, 3, size, size]))
    for hook in hooks:
        hook.remove()
    if was_training:
        model.train()
    return macs
