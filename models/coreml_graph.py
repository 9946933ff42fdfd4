"""PortraitNet as a Core ML package, written operation by operation. Input and output:

    image        (H, W) pixels of Core ML or Vision, in any format
    probability  (1, H, W) float32, 0..1, person

The file fixes H and W. Core ML converts the image to BGR and to (pixel - MEAN) * SCALE. Core ML
runs on Apple's systems alone; `evaluator` computes the operations of a package on any system.
"""

import io
import logging
import struct
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray

from models.inference_graph import OUTPUT, Graph
from models.portraitnet import PortraitNet
from portraitnet.predictor import MEAN, SCALE

# On other systems than a Mac coremltools warns once for each of its libraries.
logging.getLogger("coremltools").setLevel(logging.ERROR)
import coremltools  # noqa: E402
from coremltools.converters.mil import Builder  # noqa: E402

INPUT = "image"
PACKAGE = "PortraitNet.mlpackage"  # Xcode names its class after it
TARGET = coremltools.target.iOS15  # the first that has the format
FUNCTION, OPSET = "main", "CoreML5"  # where a package keeps the program for iOS 15
FLOAT16, FLOAT32 = 10, 11  # of Core ML's data types
DATA_TYPES = {FLOAT16: np.float16, FLOAT32: np.float32}
BLOB_MARK = 0xDEADBEEF  # before each array of the weights' file


class CoreMLGraph(Graph):
    """Operations of a Core ML program; they take and return variables."""

    def activate(self, x, activation, name):
        if activation == "hard_swish":  # x * clip(x / 6 + 1/2, 0, 1)
            factor = Builder.sigmoid_hard(x=x, alpha=1 / 6, beta=0.5, name=f"{name}.factor")
            return self.product(x, factor, f"{name}.swish")
        kinds = {"relu": Builder.relu, "relu6": Builder.relu6}
        return kinds[activation](x=x, name=f"{name}.{activation}") if activation else x

    def convolution(self, x, weight, bias, name, stride=1, groups=1, activation="", late=False):
        first, last = weight.shape[2] // 2 - late, weight.shape[2] // 2
        bias = np.zeros(len(weight)) if bias is None else bias
        x = Builder.conv(
            x=x,
            weight=weight.astype(np.float32),
            bias=bias.astype(np.float32),
            strides=[stride, stride],
            pad_type="custom",
            pad=[first, last, first, last],
            groups=groups,
            name=name,
        )
        return self.activate(x, activation, name)

    def upsampling(self, x, weight, name):
        return Builder.conv_transpose(
            x=x, weight=weight, strides=[2, 2], pad_type="custom", pad=[1] * 4, name=name
        )

    def bilinear(self, x, name):
        return Builder.upsample_bilinear(
            x=x, scale_factor_height=2, scale_factor_width=2, align_corners=False, name=name
        )

    def sum(self, x, y, name, activation=""):
        return self.activate(Builder.add(x=x, y=y, name=name), activation, name)

    def mean(self, x, name):
        return Builder.reduce_mean(x=x, axes=[2, 3], keep_dims=True, name=name)

    def sigmoid(self, x, name):
        return Builder.sigmoid(x=x, name=name)

    def product(self, x, y, name):
        return Builder.mul(x=x, y=y, name=name)

    def depth_to_space(self, x, name):
        return Builder.pixel_shuffle(x=x, upscale_factor=2, name=name)

    def slice(self, x, axis, first, end, name):
        firsts, ends, others = [0] * 4, [0] * 4, [i != axis for i in range(4)]
        firsts[axis], ends[axis] = first, end or 0
        return Builder.slice_by_index(
            x=x,
            begin=firsts,
            end=ends,
            begin_mask=others,
            end_mask=others if end is not None else [True] * 4,
            name=name,
        )

    def concat(self, parts, axis, name):
        return Builder.concat(values=parts, axis=axis, name=name)


def coreml_package(
    model: PortraitNet, metadata: dict, shape: tuple[int, int], half: bool = False
) -> bytes:
    """The Core ML package of a PortraitNet in evaluation mode, a folder, as a zip file.

    Args:
        model: PortraitNet with two classes.
        metadata: name, mean, scale, channel_order, license and more; stored as strings.
        shape: (height, width) of the input, multiples of 32.
        half: weights and results of all operations in float16, which Apple's neural engine
            requires; else float32, for the CPU and the GPU.
    """

    @Builder.program(input_specs=[Builder.TensorSpec(shape=(1, 3, *shape))], opset_version=TARGET)
    def program(image):
        logits = CoreMLGraph().logits(model, image)
        answer = CoreMLGraph().sigmoid(logits, "sigmoid")
        return Builder.squeeze(x=answer, axes=[1], name=OUTPUT)

    scale = metadata["scale"]
    image = coremltools.ImageType(
        name=INPUT,
        shape=(1, 3, *shape),
        color_layout=getattr(coremltools.colorlayout, metadata["channel_order"]),
        scale=scale,
        bias=[-mean * scale for mean in metadata["mean"]],
    )
    with redirect_stderr(io.StringIO()):  # progress bars
        converted = coremltools.convert(
            program,
            inputs=[image],
            convert_to="mlprogram",
            minimum_deployment_target=TARGET,
            compute_precision=getattr(coremltools.precision, "FLOAT16" if half else "FLOAT32"),
            skip_model_load=True,
        )
    converted.short_description = metadata["name"]
    converted.license = metadata["license"]
    note = metadata | {"input": INPUT, "shape": list(shape)}
    converted.user_defined_metadata.update({name: str(value) for name, value in note.items()})
    with tempfile.TemporaryDirectory() as folder:
        converted.save(str(Path(folder, PACKAGE)))
        return zipped(Path(folder))


def zipped(folder: Path) -> bytes:
    """The files below a folder as a zip file."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.writestr(path.relative_to(folder).as_posix(), path.read_bytes())
    return data.getvalue()


def evaluator(path: str | Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The network of a zipped package, read from its files and computed with Paddle.

    Every result is rounded to the type in the package, and must have the shape in the package.
    Apple's processors may sum in another order.

    Returns:
        function of batch (N, 3, H, W) float32, made by `to_batch`, with the package's H and W
        -> probability (N, H, W) float32.

    Raises:
        ValueError: export.py did not write the package, or its weights are damaged.
    """
    with zipfile.ZipFile(path) as archive:
        data = {Path(name).name: archive.read(name) for name in archive.namelist()}
    spec = coremltools.proto.Model_pb2.Model.FromString(data["model.mlmodel"])
    weights = data["weight.bin"]
    block = spec.mlProgram.functions[FUNCTION].block_specializations[OPSET]
    image = spec.description.input[0]
    if image.name != INPUT or not image.type.HasField("imageType"):
        raise ValueError(f"{path} takes {image.name}: give a package that export.py wrote.")
    constants = {
        operation.outputs[0].name: constant_value(operation.attributes["val"], weights)
        for operation in block.operations
        if operation.type == "const"
    }
    operations = [operation for operation in block.operations if operation.type != "const"]

    def run_batch(batch):
        return np.concatenate([run_photo(photo[None]) for photo in batch])

    def run_photo(photo):
        known = constants | {INPUT: paddle.to_tensor(pixels_of(photo))}
        for operation in operations:
            given = {
                key: [known[argument.name] for argument in value.arguments]
                for key, value in operation.inputs.items()
            }
            given = {key: value if key == "values" else value[0] for key, value in given.items()}
            result = OPERATIONS[operation.type](**given)
            stated = operation.outputs[0].type.tensorType
            shape = [side.constant.size for side in stated.dimensions]
            if list(result.shape) != shape:
                raise ValueError(
                    f"{operation.outputs[0].name} is {list(result.shape)}, not {shape}: "
                    "give photos of the shape of the package."
                )
            if stated.dataType == FLOAT16:
                result = result.astype("float16").astype("float32")
            known[operation.outputs[0].name] = result
        return known[OUTPUT].numpy()

    return run_batch


def pixels_of(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Batch (N, 3, H, W) -> its BGR pixels (N, 3, H, W) float32, 0..255."""
    mean = np.array(MEAN, np.float32)[:, None, None]
    return np.rint(batch / np.float32(SCALE) + mean)


def constant_value(value, weights: bytes):
    """A constant of a program: a tensor of floats, else a Python value or list."""
    stated = value.type.tensorType
    shape = [side.constant.size for side in stated.dimensions]
    if value.WhichOneof("value") == "blobFileValue":
        start = value.blobFileValue.offset
        mark, _, size, first = struct.unpack_from("<IIQQ", weights, start)
        if mark != BLOB_MARK:
            raise ValueError("The package's weights are damaged: export the checkpoint again.")
        kind = np.dtype(DATA_TYPES[stated.dataType])
        array = np.frombuffer(weights, kind, size // kind.itemsize, first).reshape(shape)
        return paddle.to_tensor(array.astype(np.float32))
    tensor = value.immediateValue.tensor
    kind = tensor.WhichOneof("value")
    if kind == "bytes":  # float16
        array = np.frombuffer(tensor.bytes.values, DATA_TYPES[stated.dataType])
        return paddle.to_tensor(array.astype(np.float32).reshape(shape))
    values = list(getattr(tensor, kind).values)
    if kind == "floats":
        return paddle.to_tensor(np.array(values, np.float32).reshape(shape))
    return values if shape else values[0]


def convolution(x, weight, strides, pad, groups, dilations, pad_type, bias=None):
    assert pad_type == "custom" and dilations == [1, 1], "as `CoreMLGraph` writes them"
    return F.conv2d(x, weight, bias, strides, pad, groups=groups)


def transposed_convolution(x, weight, strides, pad, groups, dilations, pad_type, output_shape=None):
    assert pad_type == "custom" and dilations == [1, 1] and groups == 1
    return F.conv2d_transpose(x, weight, None, strides, pad)


def upsample_bilinear(x, scale_factor_height, scale_factor_width, align_corners):
    assert scale_factor_height == scale_factor_width == 2 and not align_corners
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def slice_by_index(x, begin, end, begin_mask, end_mask):
    parts = zip(begin, end, begin_mask, end_mask)
    return x[tuple(slice(None if b else i, None if e else k) for i, k, b, e in parts)]


# Core ML's operations, as its specification describes them.
OPERATIONS = {
    "add": lambda x, y: x + y,
    "cast": lambda x, dtype: x,
    "concat": lambda values, axis, interleave: paddle.concat(values, axis),
    "conv": convolution,
    "conv_transpose": transposed_convolution,
    "mul": lambda x, y: x * y,
    "pixel_shuffle": lambda x, upscale_factor: F.pixel_shuffle(x, upscale_factor),
    "reduce_mean": lambda x, axes, keep_dims: paddle.mean(x, axes, keep_dims),
    "relu": lambda x: F.relu(x),
    "relu6": lambda x: F.relu6(x),
    "sigmoid": lambda x: F.sigmoid(x),
    "sigmoid_hard": lambda x, alpha, beta: paddle.clip(alpha * x + beta, 0, 1),
    "slice_by_index": slice_by_index,
    "upsample_bilinear": upsample_bilinear,
    "squeeze": lambda x, axes: paddle.squeeze(x, axes),
}
