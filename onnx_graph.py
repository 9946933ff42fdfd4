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
        half = side // 2
        weight = self.constant(joint_kernel(up, head), "head.weight")
        logits = self.node("Conv", [x, weight], "head", kernel_shape=[3, 3], pads=[1] * 4)
        blocks = self.reshape(logits, [0, 2, 2, half, half], "head.blocks")
        rows = self.node("Transpose", [blocks], "head.rows", perm=[0, 3, 1, 4, 2])
        logits = self.reshape(rows, [0, 1, side, side], "head.logits")
        for outside in self.frame(x, up, head, side):
            logits = self.node("Add", [logits, outside], f"{outside}.add")
        return logits

    def frame(self, x, up, head, side):
        """What the ring of pixels outside the frame adds to the logits, negated.

        Returns:
            two (N, 1, side, side), zero but for the first and last row, and column. The rows count
            the ring's corners, the columns do not.
        """
        lines = []
        for axis in (2, 3):
            for at in (0, side // 2 - 1):
                name = f"frame.axis{axis}.{at}"
                ends = [self.constant([i], f"{name}.{i}", np.int64) for i in (at, at + 1)]
                line = self.node("Slice", [x, *ends, f"axis{axis}"], name)
                lines.append(self.reshape(line, [0, 0, 1, side // 2], f"{name}.line"))
        lines = self.node("Concat", lines, "frame.lines", axis=1)
        # The kernels' outermost row or column, laid flat: (4 C, C, 1, 4) and (4, C, 1, 3).
        taps = [(axis, tap) for axis in (2, 3) for tap in (0, -1)]
        ups = np.concatenate([np.take(up, tap, axis)[:, :, None] for axis, tap in taps])
        heads = np.concatenate([np.take(head, tap, axis)[:, :, None] for axis, tap in taps])
        corners = np.ones((4, up.shape[1], 1, side + 2))
        corners[2:, :, :, [0, -1]] = 0
        corners = corners.reshape(1, -1, 1, side + 2)
        ring = self.node(
            "ConvTranspose",
            [lines, self.constant(ups, "frame.up.weight")],
            "frame.up",
            kernel_shape=[1, KERNEL],
            strides=[1, 2],
            group=4,
        )
        ring = self.node("Mul", [ring, self.constant(corners, "frame.corners")], "frame.ring")
        weight = self.constant(-heads, "frame.head.weight")
        ring = self.node("Conv", [ring, weight], "frame.head", kernel_shape=[1, 3], group=4)
        ring = self.reshape(ring, [0, 2, 2, side], "frame.sides")
        place = np.zeros((side, 2))
        place[0, 0] = place[-1, 1] = 1  # (side, 2) @ (2, side): to the first and the last row
        placed = self.node("MatMul", [self.constant(place, "frame.place"), ring], "frame.placed")
        self.nodes.append(
            helper.make_node("Split", [placed], ["frame.rows", "frame.turned"], axis=1)
        )
        columns = self.node("Transpose", ["frame.turned"], "frame.columns", perm=[0, 1, 3, 2])
        return "frame.rows", columns

    def reshape(self, x, shape, name):
        return self.node("Reshape", [x, self.constant(shape, f"{name}.shape", np.int64)], name)


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
    than SMALL numbers stay float32: a tenth of the numbers, and nearly all of the error.
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

    What follows the last convolution stays float32, and so does what corrects the frame.

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

    exact = ("frame", "head.", "sigmoid", OUTPUT)
    names = [node.name for node in proto.graph.node if node.name.startswith(exact)]
    prepared = onnx.ModelProto()
    prepared.CopyFrom(proto)
    # There is nothing left to fold: spare the user the advice to prepare the graph.
    helper.set_model_props(prepared, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(prepared, source)
        quantization.quantize_static(
            source,
            target,
            Photos(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["Conv", "ConvTranspose", "Add", "Clip", "Relu"],
            nodes_to_exclude=names,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        quantized = onnx.load(target)
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    helper.set_model_props(quantized, properties)
    return quantized
