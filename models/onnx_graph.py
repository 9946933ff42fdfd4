"""PortraitNet as an ONNX graph, written node by node. Input and output:

    batch        (N, 3, H, W) float32, BGR, (pixel - MEAN) * SCALE
    probability  (N, H, W) float32, 0..1, person

N, H and W are free; H and W are multiples of 32.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from models.inference_graph import INPUT, MIN_HALVED, OUTPUT, Graph
from models.portraitnet import PortraitNet
from portraitnet.images import Image
from portraitnet.predictor import to_batch

OPSET, IR_VERSION = 17, 8  # from 2022, supported by all current runtimes
# Row k of the 4x4 kernel maps input i to output 2i - 1 + k.
UPSAMPLE = {"kernel_shape": [4, 4], "pads": [1] * 4, "strides": [2, 2]}
END = 2**63 - 1  # end of a slice that reaches the last line


class OnnxGraph(Graph):
    """Nodes and weights of an ONNX graph; operations take and return the names of outputs."""

    def __init__(self):
        self.nodes, self.weights = [], {}

    def constant(self, value: ArrayLike, name: str, dtype: DTypeLike = np.float32) -> str:
        """The name of a weight; equal weights are stored once."""
        array = np.ascontiguousarray(value, dtype)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self.weights:
            self.weights[key] = numpy_helper.from_array(array, name)
        return self.weights[key].name

    def node(self, kind: str, inputs: list[str], name: str, **attributes) -> str:
        """A node of the operator `kind`."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def activate(self, x: str, activation: str, name: str) -> str:
        """The activation, a value of ACTIVATIONS."""
        if activation == "relu6":
            limits = self.constant(0, "zero"), self.constant(6, "six")
            return self.node("Clip", [x, *limits], f"{name}.relu6")
        kind = {"relu": "Relu", "hard_swish": "HardSwish"}
        return self.node(kind[activation], [x], f"{name}.{activation}") if activation else x

    def convolution(
        self,
        x: str,
        weight: NDArray,
        bias: NDArray | None,
        name: str,
        stride: int = 1,
        groups: int = 1,
        activation: str = "",
        late: bool = False,
    ) -> str:
        kernel = weight.shape[2]
        inputs = [x, self.constant(weight, f"{name}.weight")]
        if bias is not None:
            inputs.append(self.constant(bias, f"{name}.bias"))
        x = self.node(
            "Conv",
            inputs,
            name,
            kernel_shape=[kernel, kernel],
            pads=[kernel // 2 - late] * 2 + [kernel // 2] * 2,
            strides=[stride, stride],
            group=groups,
        )
        return self.activate(x, activation, name)

    def upsampling(self, x: str, weight: NDArray, name: str) -> str:
        inputs = [x, self.constant(weight, f"{name}.weight")]
        return self.node("ConvTranspose", inputs, name, **UPSAMPLE)

    def bilinear(self, x: str, name: str) -> str:
        scales = self.constant([1, 1, 2, 2], "twice")
        return self.node("Resize", [x, "", scales], name, mode="linear")

    def sum(self, x: str, y: str, name: str, activation: str = "") -> str:
        return self.activate(self.node("Add", [x, y], name), activation, name)

    def mean(self, x: str, name: str) -> str:
        return self.node("GlobalAveragePool", [x], name)

    def sigmoid(self, x: str, name: str) -> str:
        return self.node("Sigmoid", [x], name)

    def product(self, x: str, y: str, name: str) -> str:
        return self.node("Mul", [x, y], name)

    def depth_to_space(self, x: str, name: str) -> str:
        # With four channels both modes are the same, and pnnx knows only CRD.
        return self.node("DepthToSpace", [x], name, blocksize=2, mode="CRD")

    def slice(self, x: str, axis: int, first: int, end: int | None, name: str) -> str:
        limits = [first], [END if end is None else end], [axis]
        inputs = [self.constant(i, f"{name}.{n}", np.int64) for n, i in enumerate(limits)]
        return self.node("Slice", [x, *inputs], name)

    def concat(self, parts: list[str], axis: int, name: str) -> str:
        return self.node("Concat", parts, name, axis=axis)


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
    graph = OnnxGraph()
    logits = graph.logits(model, INPUT)
    squeezed = [graph.sigmoid(logits, "sigmoid"), graph.constant([1], "axis", np.int64)]
    graph.node("Squeeze", squeezed, OUTPUT)

    batch = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, "H", "W"])
    answer = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", "H", "W"])
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "PortraitNet", [batch], [answer], graph.weights.values()),
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
            # 7 bits of weights: without VNNI, pairs of 8-bit products saturate in 16 bits, and
            # answers would depend on the processor (ONNX Runtime's documentation of quantization).
            reduce_range=True,
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
