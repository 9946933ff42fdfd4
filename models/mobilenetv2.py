"""MobileNetV2 as PortraitNet's encoder.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
table 2; the extra 1x1 expansion of the first stage is the homework report's.
"""

from collections.abc import Callable, Sequence

import paddle
import paddle.nn as nn
import paddle.nn.functional as F

STEM = 32
Stage = tuple[int, int, int, int]
# output channels, repeats, stride of the first block, bn_scale (expansion)
STAGES = (
    (16, 1, 1, 1),  #    1/2
    (24, 2, 2, 6),  #    1/4   skip
    (32, 3, 2, 6),  #    1/8   skip
    (64, 4, 2, 6),  #    1/16
    (96, 3, 1, 6),  #    1/16  skip
    (160, 3, 2, 6),  #   1/32
    (320, 1, 1, 6),  #   1/32  skip
)
SKIP_STAGES = (1, 2, 4, 6)


def scaled_channels(channels: int, width: float) -> int:
    """`channels * width` rounded to a multiple of 8, at most a tenth less (MobileNetV2's rule)."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


class ConvBN(nn.Layer):
    """Bias-free convolution, BatchNorm and optional activation.

    Args:
        input_c, output_c: channels of the (N, C, H, W) input and output.
        kernel: 1 or 3; the padding keeps the grid at stride 1.
        stride: 1 or 2.
        groups: 1, or `input_c` for a depthwise convolution.
        activation: `F.relu6`, `F.relu` or None.
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
        self.conv = nn.Conv2D(
            input_c,
            output_c,
            kernel,
            stride,
            padding=kernel // 2,
            groups=groups,
            weight_attr=nn.initializer.KaimingNormal(),
            bias_attr=False,
        )
        # Paddle's momentum is the weight of the old value: 0.9 here is PyTorch's 0.1.
        self.bn = nn.BatchNorm2D(output_c, momentum=0.9, epsilon=1e-5)
        self.activation = activation

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.bn(self.conv(x))
        return x if self.activation is None else self.activation(x)


class InvertedResidual(nn.Layer):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection, and a shortcut if the shapes agree.

    Args:
        input_c, output_c: channels of the (N, C, H, W) input and output.
        stride: stride of the depthwise convolution, 1 or 2.
        bn_scale: expansion factor; a factor of 1 keeps the expansion, as in the homework report.
    """

    def __init__(self, input_c: int, output_c: int, stride: int, bn_scale: int):
        super().__init__()
        hidden = input_c * bn_scale
        self.has_shortcut = stride == 1 and input_c == output_c
        self.expand = ConvBN(input_c, hidden, activation=F.relu6)
        self.depthwise = ConvBN(hidden, hidden, 3, stride, groups=hidden, activation=F.relu6)
        self.project = ConvBN(hidden, output_c)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.has_shortcut else y


class MobileNetV2(nn.Layer):
    """The encoder: four feature maps at 1/4, 1/8, 1/16 and 1/32 of the input resolution.

    Args:
        width: factor of every channel count (the k of the report's MobileNetV2 table).
        stem: channels of the first convolution.
        stages: rows of a table such as STAGES.
        skip_stages: indices of the stages whose outputs are the feature maps.

    Attributes:
        channels: channel counts of the four feature maps.
        skip_stages: see the argument.
    """

    def __init__(
        self,
        width: float = 1.0,
        stem: int = STEM,
        stages: Sequence[Stage] = STAGES,
        skip_stages: Sequence[int] = SKIP_STAGES,
    ):
        super().__init__()
        input_c = scaled_channels(stem, width)
        self.stem = ConvBN(3, input_c, 3, stride=2, activation=F.relu6)
        layers = []
        for channels, repeats, stride, bn_scale in stages:
            output_c = scaled_channels(channels, width)
            blocks = []
            for repeat in range(repeats):
                blocks.append(
                    InvertedResidual(input_c, output_c, stride if repeat == 0 else 1, bn_scale)
                )
                input_c = output_c
            layers.append(nn.Sequential(*blocks))
        self.stages, self.skip_stages = nn.LayerList(layers), tuple(skip_stages)
        self.channels = [scaled_channels(stages[i][0], width) for i in skip_stages]

    def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Batch (N, 3, H, W) float32 -> four features (N, C, h, w) float32.

        H and W are multiples of 32.
        """
        x = self.stem(x)
        features = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.skip_stages:
                features.append(x)
        return features
