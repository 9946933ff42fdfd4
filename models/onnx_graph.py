"""PortraitNet as an ONNX graph, written node by node. Input and output:

    batch        (N, 3, H, W) float32, BGR, (pixel - MEAN) * SCALE
    probability  (N, H, W) float32, 0..1, person

N, H and W are free, H and W multiples of 32.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.inference_graph import INPUT, MIN_HALF_SIZE, OUTPUT, Graph
from models.portraitnet import PortraitNet
from portraitnet.images import Image
from portraitnet.predictor import to_batch

OPSET, IR_VERSION = 17, 8  # of 2022: read by every runtime in use
# Row k of the 4x4 kernel carries input i to output 2i - 1 + k.
UPSAMPLE = {"kernel_shape": [4, 4], "pads": [1] * 4, "strides": [2, 2]}
END = 2**63 - 1  # of a slice: up to the last line, however many there are


class OnnxGraph(Graph):
    """Nodes and weights of an ONNX graph; operations take and return outputs' names."""

    def __init__(self):
        self.nodes, self.weights = [], {}

    def constant(self, value, name, dtype=np.float32):
        """Name of a constant; equal ones are stored once."""
        array = np.ascontiguousarray(value, dtype)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self.weights:
            self.weights[key] = numpy_helper.from_array(array, name)
        return self.weights[key].name

    def node(self, kind, inputs, name, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def activate(self, x, activation, name):
        if activation == "relu6":
            limits = self.constant(0, "zero"), self.constant(6, "six")
            return self.node("Clip", [x, *limits], f"{name}.relu6")
        return self.node("Relu", [x], f"{name}.relu") if activation else x

    def convolution(self, x, weight, bias, name, stride=1, groups=1, activation=""):
        kernel = weight.shape[2]
        inputs = [x, self.constant(weight, f"{name}.weight")]
        if bias is not None:
            inputs.append(self.constant(bias, f"{name}.bias"))
        x = self.node(
            "Conv",
            inputs,
            name,
            kernel_shape=[kernel, kernel],
            pads=[kernel // 2] * 4,
            strides=[stride, stride],
            group=groups,
        )
        return self.activate(x, activation, name)

    def upsampling(self, x, weight, name):
        inputs = [x, self.constant(weight, f"{name}.weight")]
        return self.node("ConvTranspose", inputs, name, **UPSAMPLE)

    def sum(self, x, y, name, activation=""):
        return self.activate(self.node("Add", [x, y], name), activation, name)

    def depth_to_space(self, x, name):
        # Of four channels both modes are the same; pnnx knows this one alone.
        return self.node("DepthToSpace", [x], name, blocksize=2, mode="CRD")

    def slice(self, x, axis, first, end, name):
        limits = [first], [END if end is None else end], [axis]
        inputs = [self.constant(i, f"{name}.{n}", np.int64) for n, i in enumerate(limits)]
        return self.node("Slice", [x, *inputs], name)

    def concat(self, parts, axis, name):
        return self.node("Concat", parts, name, axis=axis)


def onnx_model(model: PortraitNet, metadata: dict) -> onnx.ModelProto:
    """The ONNX model of a PortraitNet in evaluation mode.

    Args:
        model: PortraitNet with two classes.
        metadata: {name: value}, kept in the file as strings.

    Returns:
        onnx.ModelProto, checked.
    """
    graph = OnnxGraph()
    logits = graph.logits(model, INPUT)
    squeezed = [graph.node("Sigmoid", [logits], "sigmoid"), graph.constant([1], "axis", np.int64)]
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
    """The same model with its large weights stored as float16: half the file, float32 inside.

    Each passes a Cast, which runtimes carry out once, when they load the model. Weights of fewer
    than MIN_HALF_SIZE numbers stay float32.
    """
    half = onnx.ModelProto()
    half.CopyFrom(proto)
    graph, casts = half.graph, []
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) >= MIN_HALF_SIZE:
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
    """The same model in INT8: weights per channel, activations by their range on given photos.

    What follows the last convolution stays float32, and so does what makes the frame.

    Args:
        proto: as `onnx_model` makes it.
        inputs: list of (h, w, 3) uint8 BGR of training photos.

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
