"""Frames from a video, with PyAV if it is installed, else OpenCV.

They are upright images with square pixels, whatever the video's rotation and pixel shape.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from portraitnet.images import MAX_PIXELS, cv2

try:
    import av
except ImportError:
    av = None

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif")
# FFmpeg's SWS_BILINEAR, SWS_FULL_CHR_H_INT and SWS_ACCURATE_RND: without the last two, every
# conversion between RGB and YUV darkens by two levels. PyAV before 18 has no names for them.
EXACT = 0x2 | 0x2000 | 0x40000
TEXT = "{} is a text, of which FFmpeg would make pictures of its letters: give a video."


def probe(path: Path | str) -> tuple[float, int | None]:
    """Frames a second and number of frames (None if the file does not tell) of a video.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is no video.
    """
    if av:
        with open_video(path) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or stream.guessed_rate or 30)
            seconds = container.duration / av.time_base if container.duration else 0
            return rate, stream.frames or round(seconds * rate) or None
    capture = _capture(path)
    rate, count = (capture.get(name) for name in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
    return rate or 30.0, round(count) if count > 0 else None


def read_video(
    path: Path | str, faults: list[str] | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """The frames of a video, one at a time.

    Args:
        faults: given a sentence where the video is damaged or ends before its time.

    Yields:
        (seconds, image): time since the start of the file, (H, W, 3) uint8 BGR.

    Raises:
        FileNotFoundError, ValueError: as `probe`; a frame is too large.
    """
    video_path = _read_with_pyav if av else _read_with_opencv
    expected, broken, count, end = None, [], 0, 0.0
    for expected, step, seconds, image in video_path(path, broken):  # noqa: B007
        count, end = count + 1, seconds + step
        yield seconds, image
    if faults is not None and (broken or (expected and end < expected - max(1, expected / 10))):
        message = f" of {expected:.1f}" if expected else ""
        faults.append(
            f"{path} is damaged or cut short: {count} frames, up to {end:.1f}{message} seconds, could"
            " be read; the result holds these."
        )


def _read_with_opencv(path, broken):
    """The video's seconds, a frame's seconds, time and image, for each frame."""
    capture = _capture(path)  # OpenCV turns frames upright by itself
    rate = capture.get(cv2.CAP_PROP_FPS) or 30.0
    expected = max(0, capture.get(cv2.CAP_PROP_FRAME_COUNT)) / rate
    index = 0
    while True:
        read, image = capture.read()
        if not read:
            return
        yield expected, 1 / rate, index / rate, image
        index += 1


def _read_with_pyav(path, broken):
    """As `_read_with_opencv`; `broken` is given each packet that cannot be decoded."""
    with open_video(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        ratio = stream.sample_aspect_ratio or 1
        step = 1 / float(stream.average_rate or stream.guessed_rate or 30)
        expected, end = _seconds(container, stream), 0.0
        try:
            for frame in decoded(container, stream, broken):
                width = max(1, round(frame.width * ratio))
                if width * frame.height > MAX_PIXELS:
                    raise ValueError(f"{path} has frames of {width}x{frame.height} pixels.")
                image = frame.reformat(width=width, format="bgr24", interpolation=EXACT)
                image = np.rot90(image.to_ndarray(), round(frame.rotation / 90))
                seconds = end if frame.time is None else frame.time
                end = seconds + step
                yield expected, step, seconds, np.ascontiguousarray(image)
        except av.FFmpegError as error:
            raise ValueError(f"{path} cannot be decoded ({error.strerror}).") from None


def _seconds(container, stream):
    """How long a video's pictures last, where the file tells; sound may go on after them."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    message = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))
    if message:  # as Matroska has it
        return int(message[1]) * 3600 + int(message[2]) * 60 + float(message[3])
    alone = len(container.streams) == 1 and container.duration
    return container.duration / av.time_base if alone else None


def open_video(path):
    """PyAV's container of a video that has pictures."""
    _check(path)
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise ValueError(f"{path} is not a readable video ({error.strerror}).") from None
    if container.format.name == "tty":
        container.close()
        raise ValueError(TEXT.format(path))
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path} holds no pictures, only sound: give a video.")
    return container


def decoded(container, stream, broken):
    """The frames of a stream; like a player, pass over what a damaged file cannot give, and add it
    to the list `broken`."""
    packets = container.demux(stream)
    while True:
        try:
            yield from next(packets).decode()
        except StopIteration:
            return
        except av.InvalidDataError as error:
            broken.append(error)


def _capture(path):
    _check(path)
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise ValueError(f"{path} is not a readable video: give one that OpenCV can open.")
    if int(capture.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter.fourcc(*"ansi"):
        raise ValueError(TEXT.format(path))
    return capture


def _check(path):
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}: check its name.")
    if str(path) != str(path).encode(errors="replace").decode():
        raise ValueError(f"{path} has a name that is not UTF-8: rename it.")
