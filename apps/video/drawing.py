"""Frames in, pictures out: the network, steady masks, the effect and what it puts behind."""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apps.video.reading import SUFFIXES, probe, read_video
from apps.video.smoothing import Smoother
from portraitnet import effects
from portraitnet.backgrounds import read_background
from portraitnet.effects import EFFECTS, Options
from portraitnet.images import cv2
from portraitnet.parallel import outcomes
from portraitnet.predictor import Predictor

COLOR_SIDE = 256  # of effects.person_colors: a fifth of the time of a photo's, alike to the eye


class Frame(NamedTuple):
    """A frame, and what is to be made of it.

    Attributes:
        seconds: since the video or the camera began.
        image: (H, W, 3) uint8 BGR.
        mode: name of the effect, or "none".
        background: BGR colour or (H, W, 3) image, for "replace".
    """

    seconds: float
    image: np.ndarray
    mode: str
    background: np.ndarray


class Picture(NamedTuple):
    """What was made of a frame: (H, W, 3) BGR or (H, W, 4) BGRA, uint8, with the person's share."""

    seconds: float
    picture: np.ndarray
    share: float


class Background:
    """What stands behind the person: a colour, a photo, or a video over and over again.

    Args:
        text: as predict.py's --background, or the path of a video.
    """

    def __init__(self, text):
        self.text = text
        self.filled = self.frames = None
        try:
            if Path(text).suffix.lower() not in SUFFIXES:
                self.picture = read_background(text)
                return
            self.step = 1 / probe(text)[0]
            self.frames = read_video(text)
            _, self.picture = next(self.frames)
        except (OSError, ValueError, StopIteration) as error:
            raise argparse.ArgumentTypeError(str(error) or f"{text} is empty") from None
        self.start = self.seconds = 0

    def at(self, seconds, shape):
        """The BGR colour, or an image of shape `shape`, at a time not before the last."""
        while self.frames and self.seconds + self.step / 2 < seconds:
            frame = next(self.frames, None)
            if frame is None:
                self.start = self.seconds + self.step
                self.frames = read_video(self.text)
                frame = next(self.frames)
            self.seconds, self.picture = self.start + frame[0], frame[1]
            self.filled = None
        if self.picture.ndim == 1:
            return self.picture
        if self.filled is None or self.filled.shape != shape:
            self.filled = effects.fill(self.picture, *shape[:2])
        return self.filled


def draw(frame: Frame, probability: np.ndarray, blur: float) -> np.ndarray:
    """The frame with its effect, in three or four channels."""
    if frame.mode == "none":
        return frame.image
    options = Options(frame.background, blur, COLOR_SIDE)
    picture = EFFECTS[frame.mode](frame.image, probability, options)
    return picture if picture.ndim == 3 else cv2.merge([picture] * 3)


def answers(
    frames: Iterable[Frame], predictor: Predictor, finish, smooth: bool = True, depth: int = 4
) -> Iterator[tuple[Frame, object]]:
    """What `finish` makes of each frame and its (H, W) probability, in order.

    Reading, network and finishing overlap.

    Args:
        frames: run through in a thread of its own.
        finish: function of a frame and its probability, called in two threads.
        smooth: smooth the masks over time.
        depth: frames that each of the three may be ahead of the next.
    """
    smoother = Smoother() if smooth else None

    def network(inputs):
        for network_input, probability in zip(inputs, predictor.run(inputs)):
            yield smoother(network_input, probability) if smoother else probability

    def end(frame, _, probability):
        return finish(frame, predictor.restore(probability, frame.image))

    def prepare(frame):
        return predictor.prepare(frame.image)

    for frame, result, error, _ in outcomes(frames, prepare, network, end, depth=depth):
        if error is not None:  # a video with a hole is no video
            raise error
        yield frame, result


def pictures(
    frames: Iterable[Frame], predictor: Predictor, blur: float, smooth: bool = True, depth: int = 4
) -> Iterator[Picture]:
    """The frames with their effects; `blur` as in effects.py, the rest as for `answers`."""

    def finish(frame, probability):
        return draw(frame, probability, blur), effects.mask_of(probability).mean()

    for frame, (picture, share) in answers(frames, predictor, finish, smooth, depth):
        yield Picture(frame.seconds, picture, share)
