"""PortraitNetLite: a network of 0.11 M parameters for phones and old processors.

It has the layers of MediaPipe's selfie segmentation model and starts from its weights
(`models/selfie.py`). It is trained further as PortraitNet is: with a second head for the boundary,
on the same photos, and with PortraitNet's answers. The encoder is a small MobileNetV3. A gate
multiplies each channel by a factor that follows from the means of all channels.

Source: Google, "MediaPipe Selfie Segmentation" model card, 2021 (Apache-2.0); Howard et al.,
"Searching for MobileNetV3", ICCV 2019, for the blocks.
"""

from collections.abc import Callable

import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from models.portraitnet import PortraitNet

STEM = 16  # channels at 1/2, a skip
# channels of the hidden layer and of the output, kernel, stride, activation, channels of the gate
BLOCKS = (
    (16, 16, 3, 2, F.relu, 8),  #        1/4   skip
    (72, 24, 3, 2, F.relu, 0),  #        1/8
    (88, 24, 3, 1, F.relu, 0),  #        1/8   skip
    (96, 32, 5, 2, F.hardswish, 24),  #  1/16
    (128, 32, 5, 1, F.hardswish, 32),
    (128, 32, 5, 1, F.hardswish, 32),
    (96, 32, 5, 1, F.hardswish, 24),
    (96, 32, 5, 1, F.hardswish, 24),
)
SKIP_BLOCKS = (0, 2)
CONTEXT = 128  # channels at 1/16 after the encoder


class Conv(nn.Layer):
    """Convolution and optional activation.

    Without BatchNorm: MediaPipe's file has it folded into the weights, and training goes on from
    there. The moments of a batch would change the answers at once.

    Args:
        input_c, output_c: channels of the (N, C, H, W) input and output.
        kernel: 1, 3 or 5.
        stride: 1 or 2. With 2, the padding has one line more below and on the right, as
            TensorFlow's.
        groups: 1, or `input_c` for a depthwise convolution.
        activation: `F.relu`, `F.hardswish` or None.
    """

    def __init__(
        self,
        input_c: int,
        output_c: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: Callable | None = None,
    ):
        super().__init__()
        first, last = (kernel - stride) // 2, kernel // 2
        padding = [first, last, first, last]
        self.conv = nn.Conv2D(input_c, output_c, kernel, stride, padding, groups=groups)
        self.activation = activation

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.conv(x)
        return x if self.activation is None else self.activation(x)


class Gate(nn.Layer):
    """Factors 0..1 for channels, from the channels' means over the grid.

    Args:
        input_c, output_c: channels of the (N, C, H, W) input and of the (N, C, 1, 1) factors.
        hidden_c: channels between; 0 for a single convolution.

    Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.
    """

    def __init__(self, input_c: int, output_c: int, hidden_c: int):
        super().__init__()
        self.squeeze = nn.Conv2D(input_c, hidden_c, 1) if hidden_c else None
        self.excite = nn.Conv2D(hidden_c or input_c, output_c, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = F.adaptive_avg_pool2d(x, 1)
        x = x if self.squeeze is None else F.relu(self.squeeze(x))
        return F.sigmoid(self.excite(x))


class GatedResidual(nn.Layer):
    """1x1 expansion, depthwise convolution, gate, linear 1x1 projection, and a shortcut.

    Args:
        input_c: channels of the (N, C, H, W) input.
        hidden, output_c, kernel, stride, activation, gate: a row of BLOCKS.
    """

    def __init__(
        self,
        input_c: int,
        hidden: int,
        output_c: int,
        kernel: int,
        stride: int,
        activation: Callable,
        gate: int,
    ):
        super().__init__()
        self.has_shortcut = stride == 1 and input_c == output_c
        self.expand = Conv(input_c, hidden, activation=activation)
        self.depthwise = Conv(hidden, hidden, kernel, stride, hidden, activation)
        self.gate = Gate(hidden, hidden, gate) if gate else None
        self.project = Conv(hidden, output_c)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = self.depthwise(self.expand(x))
        y = self.project(y if self.gate is None else y * self.gate(y))
        return x + y if self.has_shortcut else y


class GatedDecoder(nn.Layer):
    """Twice the grid: bilinear upsampling, a gated skip, and a residual convolution.

    Args:
        input_c: channels of the (N, C, H, W) input.
        output_c: channels of the (N, C, 2H, 2W) skip and output.
    """

    def __init__(self, input_c: int, output_c: int):
        super().__init__()
        self.reduce = Conv(input_c, output_c)
        self.gate = Gate(output_c, output_c, output_c)
        self.mix = Conv(output_c, output_c, activation=F.relu)
        self.depthwise = Conv(output_c, output_c, 3, groups=output_c, activation=F.relu)

    def forward(self, x: paddle.Tensor, skip: paddle.Tensor) -> paddle.Tensor:
        # A 1x1 convolution and the upsampling can change places; before it has a quarter of the
        # pixels.
        x = F.interpolate(self.reduce(x), scale_factor=2, mode="bilinear", align_corners=False)
        x = self.mix(x + skip * self.gate(x + skip))
        return x + self.depthwise(x)


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

    size = 256  # as MediaPipe's; small people need pixels

    def __init__(self, n_class: int = 2):
        nn.Layer.__init__(self)
        self.stem = Conv(3, STEM, 3, stride=2, activation=F.hardswish)
        blocks, channels = [], STEM
        for row in BLOCKS:
            blocks.append(GatedResidual(channels, *row))
            channels = row[1]
        self.blocks = nn.LayerList(blocks)
        self.context = Conv(channels, CONTEXT, activation=F.relu)
        self.context_gate = Gate(channels, CONTEXT, 0)
        skip4, skip8 = (BLOCKS[i][1] for i in SKIP_BLOCKS)
        self.decode8 = GatedDecoder(CONTEXT, skip8)
        self.decode4 = GatedDecoder(skip8, skip4)
        self.decode2 = GatedDecoder(skip4, STEM)
        self.mask_head, self.edge_head = PixelHead(STEM, n_class), PixelHead(STEM, 2)

    def features(self, batch: paddle.Tensor) -> paddle.Tensor:
        """Batch (N, 3, H, W) float32 -> features (N, 16, H/2, W/2) float32 for both heads."""
        x = skip2 = self.stem(batch)
        skips = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in SKIP_BLOCKS:
                skips.append(x)
        skip4, skip8 = skips  #                                (N, 16, H/4,  W/4), (N, 24, H/8, W/8)
        x = self.context(x) * self.context_gate(x)  #          (N, 128, H/16, W/16)
        x = self.decode8(x, skip8)  #                          (N, 24, H/8,  W/8)
        x = self.decode4(x, skip4)  #                          (N, 16, H/4,  W/4)
        return self.decode2(x, skip2)  #                       (N, 16, H/2,  W/2)
