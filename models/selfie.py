"""The start of `lite`: MediaPipe's selfie segmentation model as a PortraitNetLite.

    npm pack @mediapipe/selfie_segmentation && tar xzf mediapipe-selfie_segmentation-*.tgz
    python -m models.selfie package/selfie_segmentation.tflite

This command writes selfie_person.pdparams, the start of `train.py --lite`, with float16 weights as
in MediaPipe's file.

The model is Google's, under Apache-2.0, trained on photos that are not public. Its .tflite file has
BatchNorm folded into the weights and takes RGB in 0..1. Source: MediaPipe Selfie Segmentation,
https://ai.google.dev/edge/mediapipe/solutions/vision/image_segmenter#selfie-model.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle.nn as nn
from numpy.typing import NDArray

from models.lite import PortraitNetLite
from models.portraitnet import count_parameters
from models.weights import LITE_PERSON, save_atomically
from portraitnet.cli import command, make_parser
from portraitnet.predictor import MEAN, SCALE

OUTPUT = LITE_PERSON.name
TRANSPOSED = "Convolution2DTransposeBias"  # MediaPipe's own operator
CONVOLUTIONS = {  # operator -> order of its stored axes in `read_convolutions`
    "CONV_2D": (0, 3, 1, 2),
    "DEPTHWISE_CONV_2D": (3, 0, 1, 2),
    TRANSPOSED: (0, 1, 2, 3),
}


def read_operators(content: bytes) -> tuple[Any, list[tuple[str, Any, list[NDArray]]]]:
    """The graph of a .tflite file and its operators in their order.

    Returns:
        graph: the schema's SubGraphT;
        operators: (name in the schema, OperatorT, weight and bias of a convolution as stored, else
            []); without those that only convert weights.
    """
    from ai_edge_litert import schema_py_generated as schema

    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
    file = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph, halves, found = file.subgraphs[0], {}, []

    def values(index):
        if index in halves:
            return halves[index]
        tensor = graph.tensors[index]
        kind = np.float16 if tensor.type == schema.TensorType.FLOAT16 else np.float32
        return np.frombuffer(bytes(file.buffers[tensor.buffer].data), kind).reshape(tensor.shape)

    for operator in graph.operators:
        code = file.operatorCodes[operator.opcodeIndex]
        kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        inputs = [int(i) for i in operator.inputs]
        if kind == "DEQUANTIZE":
            halves[int(operator.outputs[0])] = values(inputs[0]).astype(np.float32)
        else:
            kind = code.customCode.decode() if kind == "CUSTOM" else kind
            weights = [values(i) for i in inputs[1:]] if kind in CONVOLUTIONS else []
            found.append((kind, operator, weights))
    return graph, found


def read_convolutions(path: str | Path) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Weight (O, I, k, k) and bias (O,) of each convolution of a .tflite file, in its order.

    A depthwise weight is (O, 1, k, k). A transposed convolution is (O, k, k, I), as stored.

    Raises:
        FileNotFoundError, ValueError: one sentence on what is wrong with the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: unpack npm's @mediapipe/selfie_segmentation.")
    try:
        _, operators = read_operators(path.read_bytes())
        return [
            (weights[0].transpose(CONVOLUTIONS[kind]), weights[1])
            for kind, _, weights in operators
            if weights
        ]
    except Exception as error:  # the generated reader checks nothing
        raise ValueError(f"{path} is not MediaPipe's selfie model ({error!r}).") from error


def convert(path: str | Path) -> PortraitNetLite:
    """A PortraitNetLite with MediaPipe's answers, in evaluation mode; its edge head is zero.

    MediaPipe's features are large: random weights of the edge head would give it logits whose loss
    ruins the features within a few steps.

    Near the frame the answers differ a little, because padding is the mean colour here and black
    there.

    Raises:
        FileNotFoundError, ValueError: see `read_convolutions`.
    """
    model = PortraitNetLite()
    model.eval()
    convolutions = read_convolutions(path)
    *ours, head, edge_head = [m for m in model.sublayers() if isinstance(m, nn.Conv2D)]
    shapes = [tuple(layer.weight.shape) for layer in ours] + [(1, 2, 2, head.weight.shape[1])]
    if shapes != [weight.shape for weight, _ in convolutions]:
        raise ValueError(f"{path} is not MediaPipe's selfie model for squares.")
    (kernel, bias), (stem, stem_bias) = convolutions.pop(), convolutions[0]
    # RGB / 255 from BGR (pixel - MEAN) * SCALE
    means = np.array(MEAN, np.float32)[::-1] / 255
    stem_bias = stem_bias + np.einsum("ocij,c->o", stem, means)
    convolutions[0] = stem[:, ::-1] / np.float32(255 * SCALE), stem_bias
    for layer, (weight, offset) in zip(ours, convolutions):
        layer.weight.set_value(np.ascontiguousarray(weight))
        layer.bias.set_value(offset)
    # The sigmoid of one logit is the softmax of its halves.
    pixels = kernel[0].reshape(4, -1) / 2
    head.weight.set_value(np.concatenate([-pixels, pixels])[:, :, None, None])
    head.bias.set_value(np.repeat(np.array([-bias[0], bias[0]], np.float32) / 2, 4))
    edge_head.weight.set_value(np.zeros(edge_head.weight.shape, np.float32))
    return model


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Convert MediaPipe's selfie model into the start of train.py --lite.",
        example="python -m models.selfie package/selfie_segmentation.tflite",
    )
    parser.add_argument("model_path", type=Path, help="selfie_segmentation.tflite")
    parser.add_argument("--output", default=OUTPUT, help="file to write")
    return parser.parse_args(argv)


@command("models.selfie")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    model = convert(args.model_path)
    state = {name: value.astype("float16") for name, value in model.state_dict().items()}
    save_atomically(state, args.output)
    print(f"{args.output}: {count_parameters(model):,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
