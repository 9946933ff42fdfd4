"""Frames from a film, with PyAV if it is installed, else OpenCV.

They are upright images with square pixels, whatever the film's rotation and pixel shape.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from images import cv2

try:
    import av
except ImportError:
    av = None

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif")
# FFmpeg's SWS_BILINEAR, SWS_FULL_CHR_H_INT and SWS_ACCURATE_RND: without the last two, every
# conversion between RGB and YUV darkens by two levels. PyAV before 18 has no names for them.
EXACT = 0x2 | 0x2000 | 0x40000


def probe(path: Path | str) -> tuple[float, int | None]:
    """Frames a second and number of frames (None if the file does not tell) of a film.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is no film.
    """
    if av:
        with open_film(path) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or stream.guessed_rate or 30)
            seconds = container.duration / av.time_base if container.duration else 0
            return rate, stream.frames or round(seconds * rate) or None
    capture = _capture(path)
    rate, count = (capture.get(name) for name in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
    return rate or 30.0, round(count) if count > 0 else None


def read_film(path: Path | str) -> Iterator[tuple[float, np.ndarray]]:
    """The frames of a film, one at a time.

    Yields:
        (seconds, image): time since the start of the file, (H, W, 3) uint8 BGR.

    Raises:
        FileNotFoundError, ValueError: as `probe`.
    """
    if not av:
        capture = _capture(path)  # OpenCV turns frames upright by itself
        rate = capture.get(cv2.CAP_PROP_FPS) or 30.0
        index = 0
        while True:
            read, image = capture.read()
            if not read:
                return
            yield index / rate, image
            index += 1
    with open_film(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        ratio = stream.sample_aspect_ratio or 1
        for frame in decoded(container, stream):
            width = max(1, round(frame.width * ratio))
            image = frame.reformat(width=width, format="bgr24", interpolation=EXACT).to_ndarray()
            yield frame.time, np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def open_film(path):
    """PyAV's container of a film that has pictures."""
    _check(path)
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise ValueError(f"{path} is not a readable film ({error.strerror}).") from None
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path} holds no pictures, only sound: give a film.")
    return container


def decoded(container, stream):
    """The frames of a stream; like a player, pass over what a damaged file cannot give."""
    packets = container.demux(stream)
    while True:
        try:
            yield from next(packets).decode()
        except StopIteration:
            return
        except av.InvalidDataError:
            continue


def _capture(path):
    _check(path)
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise ValueError(f"{path} is not a readable film: give one that OpenCV can open.")
    return capture


def _check(path):
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}: check its name.")
    if str(path) != str(path).encode(errors="replace").decode():
        raise ValueError(f"{path} has a name that is not UTF-8: rename it.")
