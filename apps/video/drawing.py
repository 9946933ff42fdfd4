"""From frames to finished pictures: network, smoothing, effect and background."""

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np

from apps.video.reading import SUFFIXES, probe, read_video
from apps.video.smoothing import Smoother
from portraitnet import effects, images
from portraitnet.backgrounds import COLORS, parse_color
from portraitnet.effects import EFFECTS, Options
from portraitnet.images import Image, Probability, is_picture, mask_of, read_image
from portraitnet.parallel import outcomes
from portraitnet.predictor import Predictor

# Longer side at which person_colors works, pixels: a fifth of the time, no visible difference.
COLOR_SIDE = 256
Result = TypeVar("Result")


class Frame(NamedTuple):
    """A frame of a video, with the effect and the background that are applied to the frame.

    Attributes:
        seconds: time since the beginning of the video or of the camera.
        image: (H, W, 3) uint8 BGR.
        mode: name in EFFECTS, or "none".
        background: BGR colour or (H, W, 3) image, used by the mode "replace" alone.
    """

    seconds: float
    image: Image
    mode: str
    background: np.ndarray


class Picture(NamedTuple):
    """A frame after its effect.

    Attributes:
        seconds: time since the beginning.
        picture: (H, W, 3) BGR or (H, W, 4) BGRA, uint8.
        person_fraction: fraction of the pixels that are person, 0..1.
    """

    seconds: float
    picture: Image
    person_fraction: float


class Background:
    """The background of the mode "replace": a colour, a photo, or a video played in a loop.

    Args:
        text: colour or path of a photo, as in predict.py's --background, or path of a video; a
            photo is known by its name or its content.

    Raises:
        argparse.ArgumentTypeError: the text is none of these, or the file cannot be read.
    """

    def __init__(self, text: str):
        self.text = text
        self.filled = self.frames = None
        try:
            self.picture = parse_color(text)
            if self.picture is not None:
                return
            if not os.path.exists(text):
                raise ValueError(
                    f"{text} is neither a colour nor a file: give #rrggbb, {', '.join(COLORS)}, or"
                    " a photo or video"
                )
            if is_photo(text):
                self.picture = read_image(text)
                return
            self.step = 1 / probe(text)[0]
            self.frames = read_video(text)
            _, self.picture = next(self.frames)
        except (OSError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        self.start = self.seconds = 0

    def at(self, seconds: float, shape: tuple[int, ...]) -> np.ndarray:
        """The background at a time.

        Args:
            seconds: time since the beginning; never less than in the call before.
            shape: (H, W, 3) of the frame.

        Returns:
            BGR colour, or an image of that shape.
        """
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


def is_photo(path: Path | str) -> bool:
    """Whether a file's name, else its content, is a photo's; .gif is a video's."""
    suffix = Path(path).suffix.lower()
    if suffix in SUFFIXES or not Path(path).is_file():  # a pipe would wait for ever
        return False
    with open(path, "rb") as file:
        return suffix in images.SUFFIXES or is_picture(file.read(16))


def draw(frame: Frame, probability: Probability, blur: float) -> Image:
    """Apply a frame's effect.

    Args:
        frame: frame with its mode and background.
        probability: (H, W) float32 0..1, of person.
        blur: sigma of the mode "blur", as a fraction of the longer side.

    Returns:
        (H, W, 3) BGR or (H, W, 4) BGRA, uint8.
    """
    if frame.mode == "none":
        return frame.image
    options = Options(frame.background, blur, COLOR_SIDE)
    picture = EFFECTS[frame.mode](frame.image, probability, options)
    return picture if picture.ndim == 3 else cv2.merge([picture] * 3)


def process_frames(
    frames: Iterable[Frame],
    predictor: Predictor,
    finish: Callable[[Frame, Probability], Result],
    smooth: bool = True,
    look_closer: bool = True,
    depth: int = 4,
) -> Iterator[tuple[Frame, Result]]:
    """Run the network on frames and finish each frame; reading, network and finishing overlap.

    Args:
        frames: frames in order; a thread of their own iterates over them.
        predictor: network.
        finish: function of a frame and its (H, W) probability; two threads call this function.
        smooth: whether the masks are smoothed over time.
        look_closer: whether frames with small people are looked at twice, as photos are.
        depth: number of frames that each of the three stages may be ahead of the next one.

    Yields:
        (frame, result of `finish`), in order.
    """
    smoother = Smoother() if smooth else None

    def network(prepared):
        inputs, images = map(list, zip(*prepared))
        for network_input, probability in zip(
            inputs, predictor.run(inputs, images if look_closer else ())
        ):
            yield smoother(network_input, probability) if smoother else probability

    def end(frame, _, probability):
        return finish(frame, predictor.restore(probability, frame.image))

    def prepare(frame):
        return predictor.prepare(frame.image), frame.image

    for frame, result, error, _ in outcomes(frames, prepare, network, end, depth=depth):
        if error is not None:  # a video with a missing frame would be wrong: end here
            raise error
        yield frame, result


def draw_frames(
    frames: Iterable[Frame],
    predictor: Predictor,
    blur: float,
    smooth: bool = True,
    look_closer: bool = True,
    depth: int = 4,
) -> Iterator[Picture]:
    """Apply each frame's effect; see `draw` for `blur`, `process_frames` for the other Args."""

    def finish(frame, probability):
        return draw(frame, probability, blur), float(mask_of(probability).mean())

    finished = process_frames(frames, predictor, finish, smooth, look_closer, depth)
    for frame, (picture, fraction) in finished:
        yield Picture(frame.seconds, picture, fraction)
