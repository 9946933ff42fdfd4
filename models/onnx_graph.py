"""PortraitNet as an ONNX graph for fast inference, without the edge head.

Three rewrites are exact up to float rounding: BatchNorm is folded into the convolution before it,
the softmax over two channels becomes the sigmoid of one, and the last upsampling and the mask head,
which are both linear, become one convolution at half resolution. Input and output:

    batch        (N, 3, H, W) float32, BGR, (pixel - MEAN) * SCALE
    probability  (N, H, W) float32, 0..1, person

N, H and W are free; H and W are multiples of 32.
"""

import copy
import tempfile
from pathlib import Path

import numpy as np
import onnx
import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from numpy.typing import ArrayLike, DTypeLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from models.mobilenetv2 import SKIP_STAGES, ConvBN, InvertedResidual
from models.portraitnet import D_block, PortraitNet, Upsample
from portraitnet.images import Image
from portraitnet.predictor import to_batch

OPSET, IR_VERSION = 17, 8  # from 2022, supported by all current runtimes
INPUT, OUTPUT = "batch", "probability"
MIN_HALVED = 10_000  # numbers of a weight; see `halve`
# Row k of the 4x4 kernel maps input i to output 2i - 1 + k.
UPSAMPLE = {"kernel_shape": [4, 4], "pads": [1] * 4, "strides": [2, 2]}
HEAD = {"kernel_shape": [3, 3], "pads": [1] * 4}
END = 2**63 - 1  # end of a slice that reaches the last line


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


def fold_softmax(head: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weight of the mask head whose sigmoid is the softmax's channel 1.

    Args:
        head: (2, C, 3, 3).

    Returns:
        (1, C, 3, 3).

    Raises:
        ValueError: the head has not two classes.
    """
    if head.shape[0] != 2:
        raise ValueError(
            f"The mask head has {head.shape[0]} classes: only background and person export."
        )
    return head[1:] - head[:1]


class Graph:
    """Nodes and weights of an ONNX graph.

    Every method appends nodes or a weight and returns the name of the output. Arguments `x` and
    `name` are the names of the input and of the output.
    """

    def __init__(self):
        self.nodes, self.weights = [], []

    def constant(self, value: ArrayLike, name: str, dtype: DTypeLike = np.float32) -> str:
        """A weight."""
        array = np.ascontiguousarray(value, dtype)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, inputs: list[str], name: str, **attributes) -> str:
        """A node of the operator `kind`."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def conv(self, x: str, layer: ConvBN, name: str) -> str:
        """A ConvBN whose BatchNorm is folded, with its activation."""
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

    def inverted_residual(self, x: str, block: InvertedResidual, name: str) -> str:
        """An InvertedResidual."""
        y = self.conv(x, block.expand, f"{name}.expand")
        y = self.conv(y, block.depthwise, f"{name}.depthwise")
        y = self.conv(y, block.project, f"{name}.project")
        return self.node("Add", [x, y], f"{name}.add") if block.has_shortcut else y

    def d_block(self, x: str, block: D_block, name: str) -> str:
        """A D_block."""
        y = x
        for i, layer in enumerate(block.block):
            y = self.conv(y, layer, f"{name}.block.{i}")
        if block.shortcut is not None:
            x = self.conv(x, block.shortcut, f"{name}.shortcut")
        return self.node("Relu", [self.node("Add", [y, x], f"{name}.add")], f"{name}.relu")

    def upsample(self, x: str, layer: Upsample, skip: str | None, name: str) -> str:
        """An Upsample, plus the skip connection if there is one."""
        weight = self.constant(layer.weight.numpy(), f"{name}.weight")
        x = self.node("ConvTranspose", [x, weight], name, **UPSAMPLE)
        return x if skip is None else self.node("Add", [x, skip], f"{name}.add")

    def upsampled_head(self, x: str, up: NDArray[np.float32], head: NDArray[np.float32]) -> str:
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
        weight = self.constant(joint_kernel(up, head), "head.weight")
        blocks = self.node("Conv", [x, weight], "head", **HEAD)
        logits = self.node("DepthToSpace", [blocks], "head.logits", blocksize=2)
        self.constant(up, "frame.up.weight")
        self.constant(head, "frame.head.weight")
        for axis in (2, 3):
            first, last = (self.outermost(x, axis, end) for end in ("first", "last"))
            inner = self.slice(logits, axis, 1, -1, f"frame.inner{axis}")
            logits = self.node("Concat", [first, inner, last], f"frame.whole{axis}", axis=axis)
        return logits

    def outermost(self, x: str, axis: int, end: str) -> str:
        """The "first" or "last" row (axis 2) or column (axis 3) of the logits."""
        name = f"frame.{end}{axis}"
        lines, line = ((0, 2), (0, 1)) if end == "first" else ((-2, END), (-1, END))
        x = self.slice(x, axis, *lines, f"{name}.lines")
        x = self.node("ConvTranspose", [x, "frame.up.weight"], f"{name}.up", **UPSAMPLE)
        x = self.node("Conv", [x, "frame.head.weight"], f"{name}.head", **HEAD)
        return self.slice(x, axis, *line, name)

    def slice(self, x: str, axis: int, first: int, end: int, name: str) -> str:
        """x[first:end] along an axis."""
        ends = [self.constant([i], f"{name}.{i}", np.int64) for i in (first, end)]
        return self.node("Slice", [x, *ends, f"axis{axis}"], name)


def joint_kernel(up: NDArray[np.float32], head: NDArray[np.float32]) -> NDArray[np.float64]:
    """The kernel of `upsampled_head`.

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


def onnx_model(model: PortraitNet, metadata: dict) -> onnx.ModelProto:
    """The ONNX model of a PortraitNet in evaluation mode.

    Args:
        model: PortraitNet with two classes.
        metadata: {name: value}, stored in the file as strings.

    Returns:
        onnx.ModelProto that passed ONNX's checker.

    Raises:
        ValueError: the network has not two classes.
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
    x = graph.upsampled_head(x, model.up1.weight.numpy(), head)
    graph.node("Squeeze", [graph.node("Sigmoid", [x], "sigmoid"), "axis1"], OUTPUT)

    batch = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, "H", "W"])
    answer = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", "H", "W"])
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "PortraitNet", [batch], [answer], graph.weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(proto, {name: str(value) for name, value in metadata.items()})
    onnx.checker.check_model(proto, full_check=True)
    return proto


def halve(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with large weights stored as float16, which halves the file.

    The computation stays float32: a Cast converts each weight once, when a runtime loads the model.
    Weights of fewer than MIN_HALVED numbers stay float32. They are a tenth of all numbers and would
    cause nearly all of the error.
    """
    half = onnx.ModelProto()
    half.CopyFrom(proto)
    graph, casts = half.graph, []
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) >= MIN_HALVED:
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


def quantize(proto: onnx.ModelProto, inputs: list[Image]) -> onnx.ModelProto:
    """The same model in INT8: weights per channel, activations calibrated on photos.

    The mask head, all nodes after it and the nodes of the outermost pixels stay float32.

    Args:
        proto: result of `onnx_model`.
        inputs: network inputs of training photos, (h, w, 3) uint8 BGR.

    Returns:
        onnx.ModelProto with QuantizeLinear and DequantizeLinear nodes.
    """
    from onnxruntime import quantization

    class Photos(quantization.CalibrationDataReader):
        def __init__(self):
            self.batches = ({INPUT: to_batch([network_input])} for network_input in inputs)

        def get_next(self):
            return next(self.batches, None)

    exact = ("frame", "head.", "sigmoid", OUTPUT)
    names = [node.name for node in proto.graph.node if node.name.startswith(exact)]
    prepared = onnx.ModelProto()
    prepared.CopyFrom(proto)
    # This property stops the advice to prepare the graph, because nothing is left to fold.
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
