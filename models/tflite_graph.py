"""PortraitNet as a LiteRT (TensorFlow Lite) file, written operator by operator. Input and output:

    batch        (1, H, W, 3) float32, BGR, (pixel - MEAN) * SCALE
    probability  (1, H, W, 1) float32, 0..1, person

The file names H and W, but no operator depends on them: an interpreter can resize the input to
other multiples of 32. The format has the channels last.
"""

import json

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from models.inference_graph import INPUT, MIN_HALVED, OUTPUT, Graph
from models.portraitnet import PortraitNet

SCHEMA_VERSION = 3  # of every .tflite file since 2017
SIGNATURE = "serving_default"  # under which runtimes find input and output by name
METADATA = "portraitnet"  # name of the JSON in the file
ALIGNMENT = 16  # bytes; runtimes read weights where they lie in the file
VALID, SAME = schema.Padding.VALID, schema.Padding.SAME
TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.float16): schema.TensorType.FLOAT16,
    np.dtype(np.int32): schema.TensorType.INT32,
}
FUSED = {
    "": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
VERSIONS = {"DEQUANTIZE": 3}  # of an operator, where not 1: 3 knows float16


class Buffer(schema.BufferT):
    """Bytes in the file at a multiple of ALIGNMENT, which the generated class does not ensure."""

    def Pack(self, builder):  # noqa: N802, the schema's name
        data = self.data.tobytes() if self.data is not None else b""
        builder.StartVector(1, len(data), ALIGNMENT)
        builder.head = builder.head - len(data)
        builder.Bytes[builder.head : builder.head + len(data)] = data
        vector = builder.EndVector()
        schema.BufferStart(builder)
        if data:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


class TFLiteGraph(Graph):
    """Tensors and operators of a .tflite file; operations take and return indices of tensors.

    Args:
        half: store weights of MIN_HALVED numbers or more as float16, which halves the file. The
            computation stays float32: a DEQUANTIZE converts each weight once, when a runtime loads
            the file.
    """

    def __init__(self, half: bool = False):
        self.half = half
        self.tensors, self.operators, self.codes = [], [], {}
        self.buffers, self.constants = [Buffer()], {}  # buffer 0 belongs to tensors without values

    def tensor(self, shape, name, dtype=np.float32, buffer=0):
        tensor = schema.TensorT()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = TYPES[np.dtype(dtype)]
        tensor.name, tensor.buffer = name, buffer
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def shape(self, x):
        return list(self.tensors[x].shape)

    def buffer(self, array):
        self.buffers.append(Buffer(data=np.ascontiguousarray(array)))
        return len(self.buffers) - 1

    def constant(self, value, name, dtype=np.float32):
        """The index of a constant tensor; equal constants are stored once."""
        array = np.ascontiguousarray(value, dtype)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self.constants:
            if self.half and dtype is np.float32 and array.size >= MIN_HALVED:
                stored = array.astype(np.float16)
                assert np.isfinite(stored).all(), name
                x = self.tensor(array.shape, f"{name}.half", np.float16, self.buffer(stored))
                self.constants[key] = self.operator("DEQUANTIZE", [x], array.shape, name)
            else:
                self.constants[key] = self.tensor(array.shape, name, dtype, self.buffer(array))
        return self.constants[key]

    def operator(self, kind, inputs, shape, name, options=None, dtype=np.float32):
        """Append an operator with one output of `shape`; the index of the output."""
        output = self.tensor(shape, name, dtype)
        operator = schema.OperatorT()
        operator.opcodeIndex = self.codes.setdefault(kind, len(self.codes))
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([output], np.int32)
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self.operators.append(operator)
        return output

    def pad(self, x, name):
        """One line of zeros on all four sides; SAME would pad a stride of 2 on two sides only."""
        n, h, w, c = self.shape(x)
        widths = self.constant([[0, 0], [1, 1], [1, 1], [0, 0]], "pad.widths", np.int32)
        return self.operator("PAD", [x, widths], [n, h + 2, w + 2, c], f"{name}.pad")

    def convolution(self, x, weight, bias, name, stride=1, groups=1, activation="", late=False):
        n, h, w, _ = self.shape(x)
        shape, padding = [n, h // stride, w // stride, len(weight)], SAME
        if stride == 2 and not late:
            x, padding = self.pad(x, name), VALID
        weight = weight.transpose((1, 2, 3, 0) if groups > 1 else (0, 2, 3, 1))
        fused = activation if activation in FUSED else ""
        given = x, weight, bias, shape, name
        x = self.conv_2d(*given, padding, stride, groups > 1, fused)
        return (
            x if activation == fused else self.operator("HARD_SWISH", [x], shape, f"{name}.swish")
        )

    def conv_2d(
        self, x, weight, bias, shape, name, padding, stride=1, depthwise=False, activation=""
    ):
        """The operator; `weight` in its order: (1, k, k, C) if depthwise, else (O, k, k, I)."""
        kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
        if depthwise:
            options.depthMultiplier = 1
        options.padding, options.fusedActivationFunction = padding, FUSED[activation]
        options.strideH = options.strideW = stride
        bias = np.zeros(shape[3]) if bias is None else bias
        inputs = [x, self.constant(weight, f"{name}.weight"), self.constant(bias, f"{name}.bias")]
        return self.operator(kind, inputs, shape, name, options)

    def upsampling(self, x, weight, name):
        """A 2x2 convolution to the four pixels of blocks that lie one pixel up and left.

        Output 2q - 1 + r takes input q - 1 + t with k = r + 2 - 2t, where r and t are 0 or 1. This
        has as many products as TRANSPOSE_CONV, takes a twelfth less time, and needs no constant
        with the output's shape.
        """
        n, h, w, channels = self.shape(x)
        taps, count = weight.transpose(1, 2, 3, 0), weight.shape[1]
        kernel = np.stack([taps[:, row::-2, column::-2] for row in (2, 3) for column in (2, 3)])
        kernel = kernel.reshape(4 * count, 2, 2, channels)
        padded, shape = self.pad(x, name), [n, h + 1, w + 1, 4 * count]
        blocks = self.conv_2d(padded, kernel, None, shape, f"{name}.blocks", VALID)
        pixels = self.depth_to_space(blocks, f"{name}.pixels")
        rows = self.slice(pixels, 2, 1, -1, f"{name}.rows")
        return self.slice(rows, 3, 1, -1, name)

    def bilinear(self, x, name):
        # The size is twice that of x, whatever it is: interpreters compute it when they resize.
        n, h, w, c = self.shape(x)
        kind = schema.ShapeOptionsT(outType=schema.TensorType.INT32)
        shape = self.operator("SHAPE", [x], [4], f"{name}.shape", kind, np.int32)
        limits = [self.constant([i], f"size.{i}", np.int32) for i in (1, 3)]
        step = self.constant([1], "size.step", np.int32)
        options = schema.StridedSliceOptionsT()
        inputs = [shape, *limits, step]
        size = self.operator("STRIDED_SLICE", inputs, [2], f"{name}.grid", options, np.int32)
        twice = self.constant([2], "size.twice", np.int32)
        options = schema.MulOptionsT()
        size = self.operator("MUL", [size, twice], [2], f"{name}.size", options, np.int32)
        options = schema.ResizeBilinearOptionsT(halfPixelCenters=True)
        return self.operator("RESIZE_BILINEAR", [x, size], [n, 2 * h, 2 * w, c], name, options)

    def sum(self, x, y, name, activation=""):
        options = schema.AddOptionsT(fusedActivationFunction=FUSED[activation])
        return self.operator("ADD", [x, y], self.shape(x), name, options)

    def mean(self, x, name):
        n, _, _, c = self.shape(x)
        axes = self.constant([1, 2], "mean.axes", np.int32)
        options = schema.ReducerOptionsT(keepDims=True)
        return self.operator("MEAN", [x, axes], [n, 1, 1, c], name, options)

    def sigmoid(self, x, name):
        return self.operator("LOGISTIC", [x], self.shape(x), name)

    def product(self, x, y, name):
        return self.operator("MUL", [x, y], self.shape(x), name, schema.MulOptionsT())

    def depth_to_space(self, x, name):
        n, h, w, c = self.shape(x)
        options = schema.DepthToSpaceOptionsT(blockSize=2)
        return self.operator("DEPTH_TO_SPACE", [x], [n, 2 * h, 2 * w, c // 4], name, options)

    def slice(self, x, axis, first, end, name):
        axis, shape = axis - 1, self.shape(x)
        shape[axis] = len(range(shape[axis])[first:end])
        firsts, ends = [0] * 4, [0] * 4
        firsts[axis], ends[axis] = first, end or 0
        others = 0b1111 ^ 1 << axis  # bits of the axes that are not sliced
        options = schema.StridedSliceOptionsT(
            beginMask=others, endMask=others if end is not None else 0b1111
        )
        inputs = [
            self.constant(value, f"{name}.{part}", np.int32)
            for part, value in (("first", firsts), ("end", ends), ("step", [1] * 4))
        ]
        return self.operator("STRIDED_SLICE", [x, *inputs], shape, name, options)

    def concat(self, parts, axis, name):
        axis -= 1
        shape = self.shape(parts[0])
        shape[axis] = sum(self.shape(part)[axis] for part in parts)
        options = schema.ConcatenationOptionsT(axis=axis)
        return self.operator("CONCATENATION", parts, shape, name, options)


def tflite_model(
    model: PortraitNet, metadata: dict, shape: tuple[int, int], half: bool = False
) -> bytes:
    """The .tflite file of a PortraitNet in evaluation mode.

    Args:
        model: PortraitNet with two classes.
        metadata: values for JSON, stored in the file under METADATA, with layout and shape.
        shape: (height, width) of the input, multiples of 32.
        half: see `TFLiteGraph`.
    """
    graph = TFLiteGraph(half)
    batch = graph.tensor([1, *shape, 3], INPUT)
    logits = graph.logits(model, batch)
    probability = graph.sigmoid(logits, OUTPUT)
    note = metadata | {"layout": "NHWC", "shape": list(shape)}
    return tflite_file(graph, batch, probability, note)


def tflite_file(graph: TFLiteGraph, given: int, answer: int, metadata: dict) -> bytes:
    """A graph, its input and its output as a file."""
    names = [graph.tensors[x].name for x in (given, answer)]
    signature = schema.SignatureDefT(signatureKey=SIGNATURE)
    signature.inputs = [schema.TensorMapT(names[0], given)]
    signature.outputs = [schema.TensorMapT(names[1], answer)]
    note = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    file = schema.ModelT(SCHEMA_VERSION, description=metadata.get("name"))
    file.operatorCodes = [operator_code(kind) for kind in graph.codes]
    file.subgraphs = [schema.SubGraphT(graph.tensors, [given], [answer], graph.operators, "main")]
    file.metadata = [schema.MetadataT(METADATA, graph.buffer(note))]
    file.buffers, file.signatureDefs = graph.buffers, [signature]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(file.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operator_code(kind: str) -> schema.OperatorCodeT:
    """An operator's entry in the file, by its name in the schema."""
    code = schema.OperatorCodeT()
    # The older field has 8 bits. All operators here have a number below 127, so both are equal.
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
    code.version = VERSIONS.get(kind, 1)
    return code
