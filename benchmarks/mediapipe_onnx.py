"""MediaPipe's selfie model as ONNX, so that every runtime can be timed on it.

    npm pack @mediapipe/selfie_segmentation && tar xzf mediapipe-selfie_segmentation-*.tgz
    python -m benchmarks.mediapipe_onnx package/selfie_segmentation.tflite selfie.onnx

OpenVINO and ONNX Runtime do not run the file itself: one of its operators is MediaPipe's own. The
answers of both files on noise are compared; they may differ by the rounding of float32.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from models.inference_graph import INPUT, OUTPUT
from models.selfie import CONVOLUTIONS, TRANSPOSED, read_operators
from portraitnet.backends import litert_interpreter
from portraitnet.cli import make_parser

OPSET, IR_VERSION = 17, 8
MAX_DIFFERENCE = 1e-4  # of a probability, after some sixty layers of float32
DIRECT = {"RELU": "Relu", "HARD_SWISH": "HardSwish", "LOGISTIC": "Sigmoid", "ADD": "Add",
          "MUL": "Mul", "AVERAGE_POOL_2D": "GlobalAveragePool"}  # fmt: skip


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Write MediaPipe's selfie model as ONNX.",
        example="python -m benchmarks.mediapipe_onnx selfie_segmentation.tflite selfie.onnx",
    )
    parser.add_argument("model_path", type=Path, help="selfie_segmentation.tflite")
    parser.add_argument("output", type=Path, help="ONNX file")
    return parser.parse_args(argv)


def to_onnx(content: bytes) -> onnx.ModelProto:
    """A .tflite file with MediaPipe's operators as ONNX; (N, 3, H, W) RGB 0..1 -> (N, H, W).

    Any H and W that 16 divides work, but the network was made for those of the file.

    Raises:
        ValueError: the file has an operator that the selfie models do not have.
    """
    graph, operators = read_operators(content)
    nodes, weights = [], []

    def constant(name, array):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def padding(options, size, kernel, stride):
        """SAME pads the smaller half above and to the left."""
        if options.padding == schema.Padding.VALID:
            return [0] * 4
        total = [max((-(-s // stride) - 1) * stride + k - s, 0) for s, k in zip(size, kernel)]
        return [t // 2 for t in total] + [t - t // 2 for t in total]

    for kind, operator, stored in operators:
        inputs, output = list(operator.inputs), operator.outputs[0]
        x, y, options = f"t{inputs[0]}", f"t{output}", operator.builtinOptions
        if kind in DIRECT:
            nodes.append(helper.make_node(DIRECT[kind], [f"t{i}" for i in inputs[:2]], [y]))
        elif kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            depthwise, stride = kind != "CONV_2D", options.strideH
            weight, bias = stored[0].transpose(CONVOLUTIONS[kind]), stored[1]
            kernel = list(weight.shape[2:])
            nodes.append(
                helper.make_node(
                    "Conv",
                    [x, constant(f"{y}.weight", weight), constant(f"{y}.bias", bias)],
                    [y],
                    kernel_shape=kernel,
                    strides=[stride, stride],
                    group=len(weight) if depthwise else 1,
                    pads=padding(options, graph.tensors[inputs[0]].shape[1:3], kernel, stride),
                )
            )
        elif kind == "RESIZE_BILINEAR":
            scales = constant(f"{y}.scales", np.array([1, 1, 2, 2], np.float32))
            nodes.append(helper.make_node("Resize", [x, "", scales], [y], mode="linear"))
        elif kind == TRANSPOSED:
            weight, bias = stored[0].transpose(3, 0, 1, 2), stored[1]
            inputs = [x, constant(f"{y}.weight", weight), constant(f"{y}.bias", bias)]
            nodes.append(
                helper.make_node("ConvTranspose", inputs, [y], kernel_shape=[2, 2], strides=[2, 2])
            )
        else:
            raise ValueError(f"The operator {kind} is not in MediaPipe's selfie models.")

    shapes = ["N", 3, "H", "W"], ["N", "H", "W"]
    first, last = f"t{graph.inputs[0]}", f"t{graph.outputs[0]}"
    nodes.insert(0, helper.make_node("Identity", [INPUT], [first]))
    axis = constant("axis", np.array([1], np.int64))
    nodes.append(helper.make_node("Squeeze", [last, axis], [OUTPUT]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip((INPUT, OUTPUT), shapes)
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "selfie", ends[:1], ends[1:], weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def difference(content: bytes, model: onnx.ModelProto) -> float:
    """The largest difference of the two files' probabilities on noise."""
    import onnxruntime

    interpreter = litert_interpreter("the .tflite file", content, 1)
    given, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    noise = np.random.default_rng(0).random(given["shape"], np.float32)
    interpreter.set_tensor(given["index"], noise)
    interpreter.invoke()
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = session.run(None, {session.get_inputs()[0].name: noise.transpose(0, 3, 1, 2)})[0]
    return float(np.abs(interpreter.get_tensor(answer["index"])[..., 0] - found).max())


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    content = args.model_path.read_bytes()
    model = to_onnx(content)
    largest = difference(content, model)
    if largest > MAX_DIFFERENCE:
        raise SystemExit(f"The ONNX file's answers differ by {largest:.1e}: it is not written.")
    onnx.save(model, args.output)
    print(f"{args.output}: answers differ by at most {largest:.1e}.")


if __name__ == "__main__":
    main()
