"""PortraitNet as a graph for fast inference, without the edge head, for any file format.

Three rewrites are exact up to float rounding: BatchNorm is folded into the convolution before it,
the softmax over two channels becomes the sigmoid of one, and PortraitNet's last upsampling and mask
head, which are both linear, become one convolution at half resolution. `onnx_graph.py`,
`tflite_graph.py` and `coreml_graph.py` write the operations in their formats.
"""

import copy

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from numpy.typing import NDArray

from models.lite import (
    SKIP_BLOCKS,
    Conv,
    Gate,
    GatedDecoder,
    GatedResidual,
    PixelHead,
    PortraitNetLite,
)
from models.mobilenetv2 import ConvBN, InvertedResidual
from models.portraitnet import D_block, PortraitNet

INPUT, OUTPUT = "batch", "probability"
# Weights of fewer numbers stay float32 in a float16 file. They are a tenth of all numbers and would
# cause nearly all of the error.
MIN_HALVED = 10_000
ACTIVATIONS = {None: "", F.relu: "relu", F.relu6: "relu6", F.hardswish: "hard_swish"}


def fold_batchnorm(model: PortraitNet) -> PortraitNet:
    """A copy of a PortraitNet with BatchNorm folded into the convolutions' weights and biases.

    Exact in evaluation mode: w' = w g, b' = beta - mean g with g = gamma / sqrt(variance + eps).
    """
    model = copy.deepcopy(model)
    for layer in model.sublayers():
        if isinstance(layer, ConvBN):
            conv, bn = layer.conv, layer.bn
            variance = bn._variance.numpy().astype(np.float64) + bn._epsilon
            gain = bn.weight.numpy() / np.sqrt(variance)
            weight = conv.weight.numpy() * gain[:, None, None, None]
            bias = bn.bias.numpy() - bn._mean.numpy() * gain
            conv.weight.set_value(weight.astype(np.float32))
            start = nn.initializer.Assign(bias.astype(np.float32))
            conv.bias = conv.create_parameter([len(bias)], attr=paddle.ParamAttr(initializer=start))
            layer.bn = nn.Identity()
    return model


def fold_softmax(head: nn.Conv2D | PixelHead) -> list[NDArray[np.float32] | None]:
    """Weight and bias of the mask head whose sigmoid is the softmax's channel 1.

    Args:
        head: with half of its channels for each of two classes.

    Returns:
        weight with half as many channels, and bias, which may be None.

    Raises:
        ValueError: the head has not two classes.
    """
    pixels, conv = (4, head.conv) if isinstance(head, PixelHead) else (1, head)
    classes = conv.weight.shape[0] // pixels
    if classes != 2:
        raise ValueError(f"The mask head has {classes} classes: only background and person export.")
    values = [None if value is None else value.numpy() for value in (conv.weight, conv.bias)]
    return [None if value is None else value[pixels:] - value[:pixels] for value in values]


def joint_kernel(up: NDArray[np.float32], head: NDArray[np.float32]) -> NDArray[np.float64]:
    """The kernel of `Graph.upsampled_head`.

    Args:
        up: (C in, C out, 4, 4), weight of the stride-2 transposed convolution with padding 1.
        head: (1, C, 3, 3), weight of the mask head with padding 1.

    Returns:
        (4, C, 3, 3) float64; channel 2 * r + c gives pixel (r, c) of each 2x2 block.
    """
    # Tap k maps input i to upsampled 2i - 1 + k, and tap j maps that to output 2i + k - j. The
    # joint kernel has index t = k - j + 2.
    joint = np.zeros((up.shape[0], 6, 6))
    for j in range(3):
        for i in range(3):
            part = np.einsum("cdkl,d->ckl", up.astype(np.float64), head[0, :, j, i])
            joint[:, 2 - j : 6 - j, 2 - i : 6 - i] += part
    # Output 2q + p takes input q + d with t = p - 2d + 2. Taps 0, 1, 2 have d = -1, 0, 1.
    return np.stack([joint[:, 4 + r :: -2, 4 + c :: -2] for r in (0, 1) for c in (0, 1)])


class Graph:
    """Writes a PortraitNet operation by operation; each file format has a subclass.

    Every operation returns a node of the format (a name, a number, an object), which is the input
    `x` of later operations. Shapes are (N, C, H, W) here, whatever the format's order is. `name` is
    the name of the output.
    """

    def convolution(self, x, weight, bias, name, stride=1, groups=1, activation="", late=False):
        """A convolution with an activation, padded by half the kernel.

        Args:
            weight: (output channels, input channels / groups, k, k), k 1, 3 or 5.
            bias: (output channels,), or None.
            groups: 1 or the number of input channels.
            activation: a value of ACTIVATIONS.
            late: pad one line less above and on the left, as TensorFlow does with stride 2.
        """
        raise NotImplementedError

    def upsampling(self, x, weight, name):
        """A 4x4 stride-2 transposed convolution with padding 1.

        Args:
            weight: (input channels, output channels, 4, 4).
        """
        raise NotImplementedError

    def bilinear(self, x, name):
        """Bilinear upsampling to twice the height and width, pixels centred."""
        raise NotImplementedError

    def sum(self, x, y, name, activation=""):
        """x + y with an activation."""
        raise NotImplementedError

    def mean(self, x, name):
        """The mean of each channel, (N, C, H, W) -> (N, C, 1, 1)."""
        raise NotImplementedError

    def sigmoid(self, x, name):
        """The sigmoid of x."""
        raise NotImplementedError

    def product(self, x, y, name):
        """x * y, where y is (N, C, 1, 1)."""
        raise NotImplementedError

    def depth_to_space(self, x, name):
        """(N, 4, H, W) -> (N, 1, 2H, 2W): channel 2 * r + c is pixel (r, c) of each 2x2 block."""
        raise NotImplementedError

    def slice(self, x, axis, first, end, name):
        """x[first:end] along an axis, 2 or 3; `end` may be None."""
        raise NotImplementedError

    def concat(self, parts, axis, name):
        """The parts one after the other along an axis, 2 or 3."""
        raise NotImplementedError

    def logits(self, model: PortraitNet, batch, scale: float = 1):
        """Write the whole network.

        Args:
            model: PortraitNet in evaluation mode, with two classes.
            batch: (N, 3, H, W) input.
            scale: factor of the logits.

        Returns:
            (N, 1, H, W): the person's logit minus the background's.

        Raises:
            ValueError: the network has not two classes.
        """
        head = [None if value is None else scale * value for value in fold_softmax(model.mask_head)]
        if isinstance(model, PortraitNetLite):
            x = self.convolution(self.lite_features(model, batch), *head, "head")
            return self.depth_to_space(x, "head.logits")
        model = fold_batchnorm(model)
        x, skips = self.conv(batch, model.encoder.stem, "stem"), []
        for i, stage in enumerate(model.encoder.stages):
            for j, block in enumerate(stage):
                x = self.inverted_residual(x, block, f"stage{i}.{j}")
            if i in model.encoder.skip_stages:
                skips.append(x)
        skip4, skip8, skip16, x = skips
        for grid, skip in ((16, skip16), (8, skip8), (4, skip4), (2, None)):
            x = self.d_block(x, getattr(model, f"decode{grid}"), f"decode{grid}")
            x = self.upsampling(x, getattr(model, f"up{grid}").weight.numpy(), f"up{grid}")
            x = x if skip is None else self.sum(x, skip, f"up{grid}.add")
        x = self.d_block(x, model.decode1, "decode1")
        return self.upsampled_head(x, model.up1.weight.numpy(), head[0])

    def lite_features(self, model: PortraitNetLite, batch):
        """The features (N, C, H / 2, W / 2) of PortraitNetLite."""
        x = skip2 = self.conv(batch, model.stem, "stem")
        skips = []
        for i, block in enumerate(model.blocks):
            x = self.gated_residual(x, block, f"block{i}")
            if i in SKIP_BLOCKS:
                skips.append(x)
        gate = self.gate(x, model.context_gate, "context.gate")
        x = self.product(self.conv(x, model.context, "context"), gate, "context.gated")
        for grid, skip in ((8, skips[1]), (4, skips[0]), (2, skip2)):
            x = self.gated_decoder(x, skip, getattr(model, f"decode{grid}"), f"decode{grid}")
        return x

    def gate(self, x, gate: Gate, name: str):
        """A Gate."""
        x = self.mean(x, f"{name}.mean")
        if gate.squeeze is not None:
            weights = gate.squeeze.weight.numpy(), gate.squeeze.bias.numpy()
            x = self.convolution(x, *weights, f"{name}.squeeze", activation="relu")
        weights = gate.excite.weight.numpy(), gate.excite.bias.numpy()
        return self.sigmoid(self.convolution(x, *weights, f"{name}.excite"), name)

    def gated_residual(self, x, block: GatedResidual, name: str):
        """A GatedResidual."""
        y = self.conv(x, block.expand, f"{name}.expand")
        y = self.conv(y, block.depthwise, f"{name}.depthwise")
        if block.gate is not None:
            y = self.product(y, self.gate(y, block.gate, f"{name}.gate"), f"{name}.gated")
        y = self.conv(y, block.project, f"{name}.project")
        return self.sum(x, y, f"{name}.add") if block.has_shortcut else y

    def gated_decoder(self, x, skip, block: GatedDecoder, name: str):
        """A GatedDecoder."""
        x = self.bilinear(self.conv(x, block.reduce, f"{name}.reduce"), f"{name}.up")
        gate = self.gate(self.sum(x, skip, f"{name}.both"), block.gate, f"{name}.gate")
        x = self.sum(x, self.product(skip, gate, f"{name}.gated"), f"{name}.add")
        x = self.conv(x, block.mix, f"{name}.mix")
        return self.sum(x, self.conv(x, block.depthwise, f"{name}.depthwise"), name)

    def conv(self, x, layer: ConvBN | Conv, name: str):
        """A Conv, or a ConvBN whose BatchNorm is folded, with its activation."""
        conv = layer.conv
        return self.convolution(
            x,
            conv.weight.numpy(),
            conv.bias.numpy(),
            name,
            conv._stride[0],
            conv._groups,
            ACTIVATIONS[layer.activation],
            late=isinstance(layer, Conv) and conv._stride[0] == 2,
        )

    def inverted_residual(self, x, block: InvertedResidual, name: str):
        """An InvertedResidual."""
        y = self.conv(x, block.expand, f"{name}.expand")
        y = self.conv(y, block.depthwise, f"{name}.depthwise")
        y = self.conv(y, block.project, f"{name}.project")
        return self.sum(x, y, f"{name}.add") if block.has_shortcut else y

    def d_block(self, x, block: D_block, name: str):
        """A D_block."""
        y = x
        for i, layer in enumerate(block.block):
            y = self.conv(y, layer, f"{name}.block.{i}")
        if block.shortcut is not None:
            x = self.conv(x, block.shortcut, f"{name}.shortcut")
        return self.sum(y, x, f"{name}.add", "relu")

    def upsampled_head(self, x, up, head):
        """Upsampling and mask head as one 3x3 convolution to the four pixels of each 2x2 block.

        The mask head pads the upsampled grid with zeros, but the joint convolution sees upsampled
        values there. So the outermost rows and columns are wrong. They are computed again with
        upsampling and head as separate operations.

        Args:
            x: features (N, C, H / 2, W / 2).
            up: (C, C, 4, 4), weight of the upsampling.
            head: (1, C, 3, 3), folded weight of the mask head.

        Returns:
            logits (N, 1, H, W).
        """
        blocks = self.convolution(x, joint_kernel(up, head), None, "head")
        logits = self.depth_to_space(blocks, "head.logits")
        for axis in (2, 3):
            first = self.outermost(x, up, head, axis, (0, 2), (0, 1), f"frame.first{axis}")
            last = self.outermost(x, up, head, axis, (-2, None), (-1, None), f"frame.last{axis}")
            inner = self.slice(logits, axis, 1, -1, f"frame.inner{axis}")
            logits = self.concat([first, inner, last], axis, f"frame.whole{axis}")
        return logits

    def outermost(self, x, up, head, axis, lines, line, name):
        """The first or last row (axis 2) or column (axis 3) of the logits, from two lines of x."""
        x = self.slice(x, axis, *lines, f"{name}.lines")
        x = self.upsampling(x, up, f"{name}.up")
        x = self.convolution(x, head, None, f"{name}.head")
        return self.slice(x, axis, *line, name)
