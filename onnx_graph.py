"""PortraitNet as an ONNX graph, written node by node: the mask head alone, ready to run fast.

Three rewrites are exact (to float rounding): BatchNorm goes into the convolution before it, the
softmax over two channels becomes the sigmoid of one, and the last upsampling and the mask head,
both linear, become one convolution on half the grid. Input and output:

    batch        (N, 3, S, S) float32, BGR, (pixel - MEAN) * SCALE, N free
    probability  (N, S, S) float32, 0..1, person
"""

import copy
import tempfile
from pathlib import Path

import numpy as np
import onnx
import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from models.mobilenetv2 import SKIP_STAGES, ConvBN
from transforms import to_batch

OPSET, IR_VERSION = 17, 8  # of 2022: read by every runtime in use
INPUT, OUTPUT = "batch", "probability"
SMALL = 10_000  # numbers; see `halve`
# Row k of a 4x4 stride-2 kernel carries input i to output 2i - 1 + k.
KERNEL = 4


def fold_batchnorm(model):
    """A copy of a PortraitNet in which BatchNorm has gone into the convolutions' weight and bias.

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


def fold_softmax(head):
    """(2, C, 3, 3) weight of the mask head -> (1, C, 3, 3): softmax channel 1 is its sigmoid."""
    if head.shape[0] != 2:
        raise ValueError(
            f"The mask head has {head.shape[0]} classes: only background and person, 2, export."
        )
    return head[1:] - head[:1]


class Graph:
    """Nodes and weights of an ONNX graph; every call appends one and returns its output's name."""

    def __init__(self):
        self.nodes, self.weights = [], []

    def constant(self, value, name, dtype=np.float32):
        array = np.ascontiguousarray(value, dtype)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind, inputs, name, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def conv(self, x, layer, name):
        """A folded ConvBN with its activation."""
        conv, kernel = layer.conv, layer.conv.weight.shape[2]
        weight = self.constant(conv.weight.numpy(), f"{name}.weight")
        bias = self.constant(conv.bias.numpy(), f"{name}.bias")
        x = self.node(
            "Conv",
            [x, weight, bias],
            name,
            kernel_shape=[kernel, kernel],
            pads=[kernel // 2] * 4,
            strides=list(conv._stride),
            group=conv._groups,
        )
        if layer.activation is F.relu6:
            return self.node("Clip", [x, "zero", "six"], f"{name}.relu6")
        if layer.activation is F.relu:
            return self.node("Relu", [x], f"{name}.relu")
        assert layer.activation is None, layer.activation
        return x

    def inverted_residual(self, x, block, name):
        y = self.conv(x, block.expand, f"{name}.expand")
        y = self.conv(y, block.depthwise, f"{name}.depthwise")
        y = self.conv(y, block.project, f"{name}.project")
        return self.node("Add", [x, y], f"{name}.add") if block.has_shortcut else y

    def d_block(self, x, block, name):
        y = x
        for i, layer in enumerate(block.block):
            y = self.conv(y, layer, f"{name}.block.{i}")
        if block.shortcut is not None:
            x = self.conv(x, block.shortcut, f"{name}.shortcut")
        return self.node("Relu", [self.node("Add", [y, x], f"{name}.add")], f"{name}.relu")

    def upsample(self, x, layer, skip, name):
        weight = self.constant(layer.weight.numpy(), f"{name}.weight")
        shape = {"kernel_shape": [KERNEL, KERNEL], "pads": [1] * 4, "strides": [2, 2]}
        x = self.node("ConvTranspose", [x, weight], name, **shape)
        return x if skip is None else self.node("Add", [x, skip], f"{name}.add")

    def upsampled_head(self, x, up, head, side):
        """Upsampling and mask head in one: a 3x3 convolution to the four pixels of each 2x2 block.

        The head pads the upsampled grid with zeros, where the joint convolution sees what the
        upsampling would give one pixel outside the frame. `frame` takes that away again.

        Args:
            x: (N, C, side / 2, side / 2) features.
            up: (C, C, 4, 4) weight of the upsampling.
            head: (1, C, 3, 3) folded weight of the mask head.

        Returns:
            (N, 1, side, side) logits.
        """
        weight = self.constant(joint_kernel(up, head), "head.weight")
        logits = self.node("Conv", [x, weight], "head", kernel_shape=[3, 3], pads=[1] * 4)
        logits = self.node("DepthToSpace", [logits], "head.shuffle", blocksize=2)
        for axis in (2, 3):
            for first in (True, False):
                outside = self.frame(x, up, head, side, axis, first)
                logits = self.node("Add", [logits, outside], f"{outside}.add")
        return logits

    def frame(self, x, up, head, side, axis, first):
        """What one row or column outside the frame adds to the logits, negated.

        (N, 1, side, side), zero but for the first or last row (axis 2) or column (axis 3). Rows
        count the corners outside the frame, columns do not.
        """
        name = {2: ("bottom", "top"), 3: ("right", "left")}[axis][first]
        at, tap = (0, 0) if first else (side // 2 - 1, -1)
        ends = [self.constant([i], f"{name}.{i}", np.int64) for i in (at, at + 1)]
        line = self.node("Slice", [x, *ends, f"axis{axis}"], f"{name}.line")
        up, head = np.take(up, [tap], axis), -np.take(head, [tap], axis)
        strides, pads = ([1, 2], [0] * 4) if axis == 2 else ([2, 1], [1, 0, 1, 0])
        weight = self.constant(up, f"{name}.up.weight")
        shape = {"kernel_shape": up.shape[2:], "strides": strides, "pads": pads}
        line = self.node("ConvTranspose", [line, weight], f"{name}.up", **shape)
        weight = self.constant(head, f"{name}.head.weight")
        shape = {"kernel_shape": head.shape[2:], "pads": pads}
        line = self.node("Conv", [line, weight], f"{name}.head", **shape)
        pads = [0] * 8
        pads[axis + 4 if first else axis] = side - 1
        return self.node("Pad", [line, self.constant(pads, f"{name}.pads", np.int64)], name)


def joint_kernel(up, head):
    """Kernel of `upsampled_head`.

    Args:
        up: (C, C, 4, 4), in and out, of the 4x4 stride-2 transposed convolution with padding 1.
        head: (1, C, 3, 3).

    Returns:
        (4, C, 3, 3) float64: output 2 * r + c is pixel (r, c) of the 2x2 block.
    """
    # Input i reaches upsampled 2i - 1 + k, and that reaches output 2i + k - j: t = k - j + 2.
    joint = np.zeros((up.shape[0], 6, 6))
    for j in range(3):
        for i in range(3):
            part = np.einsum("cdkl,d->ckl", up.astype(np.float64), head[0, :, j, i])
            joint[:, 2 - j : 6 - j, 2 - i : 6 - i] += part
    # Output 2q + p takes input q + d by t = p - 2d + 2; taps 0, 1, 2 of a kernel are d = -1, 0, 1.
    return np.stack([joint[:, 4 + r :: -2, 4 + c :: -2] for r in (0, 1) for c in (0, 1)])


def onnx_model(model, size, metadata):
    """The ONNX model of a PortraitNet in evaluation mode.

    Args:
        model: PortraitNet with two classes.
        size: side S of the square input, pixels, a multiple of 32.
        metadata: {name: value}, kept in the file as strings.

    Returns:
        onnx.ModelProto, checked.
    """
    head = fold_softmax(model.mask_head.weight.numpy())
    model, graph = fold_batchnorm(model), Graph()
    for name, value, dtype in (
        ("zero", 0, np.float32),
        ("six", 6, np.float32),
        ("axis1", [1], np.int64),
        ("axis2", [2], np.int64),
        ("axis3", [3], np.int64),
    ):
        graph.constant(value, name, dtype)

    x, skips = graph.conv(INPUT, model.encoder.stem, "stem"), []
    for i, stage in enumerate(model.encoder.stages):
        for j, block in enumerate(stage):
            x = graph.inverted_residual(x, block, f"stage{i}.{j}")
        if i in SKIP_STAGES:
            skips.append(x)
    skip4, skip8, skip16, x = skips
    for grid, skip in ((16, skip16), (8, skip8), (4, skip4), (2, None)):
        x = graph.d_block(x, getattr(model, f"decode{grid}"), f"decode{grid}")
        x = graph.upsample(x, getattr(model, f"up{grid}"), skip, f"up{grid}")
    x = graph.d_block(x, model.decode1, "decode1")
    x = graph.upsampled_head(x, model.up1.weight.numpy(), head, size)
    graph.node("Squeeze", [graph.node("Sigmoid", [x], "sigmoid"), "axis1"], OUTPUT)

    square = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, size, size])
    answer = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", size, size])
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "PortraitNet", [square], [answer], graph.weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(proto, {name: str(value) for name, value in metadata.items()})
    onnx.checker.check_model(proto, full_check=True)
    return proto


def halve(proto):
    """The same model with its large weights stored as float16: half the file, float32 inside.

    Each passes a Cast, which runtimes carry out once, when they load the model. Weights of fewer
    than SMALL numbers stay float32: a tenth of the file, and nine tenths of the error.
    """
    half = onnx.ModelProto()
    half.CopyFrom(proto)
    graph, casts = half.graph, []
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) >= SMALL:
            name, array = weight.name, numpy_helper.to_array(weight).astype(np.float16)
            assert np.isfinite(array).all(), name
            weight.CopyFrom(numpy_helper.from_array(array, f"{name}.half"))
            cast = helper.make_node("Cast", [weight.name], [name], name, to=TensorProto.FLOAT)
            casts.append(cast)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(half, full_check=True)
    return half


def quantize(proto, squares):
    """The same model in INT8: weights per channel, activations by their range on given photos.

    The last sum and its sigmoid stay float32, and so does what corrects the frame.

    Args:
        proto: as `onnx_model` makes it.
        squares: list of (S, S, 3) uint8 BGR, letterboxed training photos.

    Returns:
        onnx.ModelProto with QuantizeLinear and DequantizeLinear nodes.
    """
    from onnxruntime import quantization

    class Photos(quantization.CalibrationDataReader):
        def __init__(self):
            self.batches = ({INPUT: to_batch([square])} for square in squares)

        def get_next(self):
            return next(self.batches, None)

    exact = ("top", "bottom", "left", "right", "head.shuffle", "sigmoid", OUTPUT)
    names = [node.name for node in proto.graph.node]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")
        quantization.quantize_static(
            proto,
            path,
            Photos(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[name for name in names if name.startswith(exact)],
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        quantized = onnx.load(path)
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    helper.set_model_props(quantized, properties)
    return quantized
