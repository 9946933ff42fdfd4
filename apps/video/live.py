"""Live: a camera with an effect, shown in a window or sent to a virtual camera."""

import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple

import cv2

from apps.video.drawing import Background, Frame, draw_frames
from apps.video.writing import fit
from portraitnet.images import Image
from portraitnet.predictor import Predictor

EFFECT_KEYS = ["blur", "replace", "grey", "overlay", "mask", "none"]  # keys 1 to 6
HELP = "1-6 or m: effect   b: background   f: mirror   h: help   q: quit"


class Look(NamedTuple):
    """How the camera's frames look.

    Attributes:
        mode: name in EFFECT_KEYS.
        mirror: whether the frames are flipped from left to right.
        background: index in the list of backgrounds.
        help: whether the window shows the keys and the frame rate.
    """

    mode: str
    mirror: bool = True
    background: int = 0
    help: bool = True


Show = Callable[[Image, Look], Look | None]  # shows a picture; returns the next look, None to end


def press(look: Look, key: int, backgrounds: int) -> Look | None:
    """Apply a key of the live window.

    Args:
        look: look before the key.
        key: code from cv2.waitKey; -1 if no key was pressed.
        backgrounds: number of backgrounds.

    Returns:
        Look after the key, None to end.
    """
    letter = chr(key & 0xFF) if key >= 0 else None
    if letter in ("q", "\x1b"):
        return None
    if letter == "m":
        following = (EFFECT_KEYS.index(look.mode) + 1) % len(EFFECT_KEYS)
        return look._replace(mode=EFFECT_KEYS[following])
    if letter == "b":  # the first press shows the current background, the next one changes it
        step = look.mode == "replace"
        return look._replace(mode="replace", background=(look.background + step) % backgrounds)
    if letter == "f":
        return look._replace(mirror=not look.mirror)
    if letter == "h":
        return look._replace(help=not look.help)
    if letter and letter in "123456":
        return look._replace(mode=EFFECT_KEYS[int(letter) - 1])
    return look


def live(
    predictor: Predictor,
    number: int,
    mode: str,
    backgrounds: Sequence[Background],
    blur: float,
    smooth: bool = True,
    virtual: bool = False,
) -> None:
    """Show a camera with an effect until q, Esc, Ctrl-C or until the window is closed.

    Args:
        predictor: network.
        number: number of the camera, 0 for the first one.
        mode: name in EFFECT_KEYS, the first effect.
        backgrounds: backgrounds that key b goes through.
        blur: sigma of the mode "blur", as a fraction of the longer side.
        smooth: whether the masks are smoothed over time.
        virtual: whether the pictures go to a virtual camera instead of a window.

    Raises:
        ImportError: pyvirtualcam is needed and not installed.
        OSError: the camera cannot be opened or read, or no virtual camera exists.
        RuntimeError: no window can be opened.
    """
    if not virtual:
        check_window()
    look = Look(mode, mirror=not virtual)

    def frames():
        start = time.perf_counter()
        while True:
            seconds, image = time.perf_counter() - start, read()
            image = cv2.flip(image, 1) if look.mirror else image
            background = backgrounds[look.background].at(seconds, image.shape)
            yield Frame(seconds, image, look.mode, background)

    with ExitStack() as stack:
        read, rate = stack.enter_context(camera(number))
        if virtual:
            show = stack.enter_context(virtual_camera(read().shape, rate))
        else:
            show = stack.enter_context(window(len(backgrounds)))
        drawn = draw_frames(frames(), predictor, blur, smooth, look_closer=False, depth=2)
        for _, picture, _ in stack.enter_context(closing(drawn)):
            look = show(picture, look)
            if look is None:
                return


@contextmanager
def camera(number: int) -> Iterator[tuple[Callable[[], Image], float]]:
    """Open a camera.

    Yields:
        function that waits for the next image, (H, W, 3) uint8 BGR; frame rate in frames/s.

    Raises:
        OSError: the camera cannot be opened; the function raises the same when reading fails.
    """
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # OpenCV prints ten lines about a missing camera
    capture = cv2.VideoCapture(number)
    cv2.utils.logging.setLogLevel(level)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # always the newest frame

    def read():
        success, image = capture.read()
        if not success:
            raise OSError(
                f"Camera {number} gives no picture: give the number of another camera, or close the"
                " program that uses this one."
            )
        return image

    try:
        read()
        yield read, capture.get(cv2.CAP_PROP_FPS) or 30
    finally:
        capture.release()


def check_window() -> None:
    """Try to open a window in a separate process, because Qt without a screen ends its process.

    Raises:
        RuntimeError: no window can be opened.
    """
    trial = [sys.executable, "-c", "import cv2; cv2.namedWindow('trial')"]
    if subprocess.run(trial, capture_output=True).returncode:
        raise RuntimeError(
            "No window can be opened: run on a machine with a screen, with opencv-python rather"
            " than opencv-python-headless, or give --virtual_camera."
        )


@contextmanager
def window(backgrounds: int) -> Iterator[Show]:
    """Open a window on the screen whose keys change the look.

    Args:
        backgrounds: number of backgrounds.

    Yields:
        function that shows a picture made with a look; returns the next look, or None to end.
    """
    title = "PortraitNet"
    times = deque(maxlen=30)

    def show(picture, look):
        times.append(time.perf_counter())
        if look.help:
            rate = (len(times) - 1) / max(1e-3, times[-1] - times[0])
            picture = caption(picture, [f"{look.mode}, {rate:.0f} frames/s", HELP])
        cv2.imshow(title, picture)
        look = press(look, cv2.waitKey(1), backgrounds)
        return look if cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1 else None

    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
    try:
        yield show
    finally:
        cv2.destroyAllWindows()


@contextmanager
def virtual_camera(shape: tuple[int, ...], rate: float) -> Iterator[Show]:
    """Open a virtual camera that other programs can choose, such as a video call.

    Args:
        shape: (H, W, 3) of the pictures.
        rate: frame rate that the camera announces, frames/s.

    Yields:
        function that sends a picture to the camera; returns the look unchanged.

    Raises:
        ImportError: pyvirtualcam is not installed.
        OSError: pyvirtualcam finds no device.
    """
    try:
        import pyvirtualcam
    except ImportError:
        raise ImportError(
            "--virtual_camera needs pyvirtualcam: run `pip install pyvirtualcam`."
        ) from None
    height, width = shape[:2]
    try:
        output = pyvirtualcam.Camera(width, height, rate, fmt=pyvirtualcam.PixelFormat.BGR)
    except RuntimeError as error:
        raise OSError(
            f"No virtual camera was found ({str(error).partition('. ')[0]}): on Linux run `sudo"
            " modprobe v4l2loopback`, on Windows and macOS install OBS."
        ) from None

    def show(picture, look):
        output.send(fit(picture, shape))  # a camera may change its size
        return look

    with output:
        print(f"Choose the camera {output.device} in your call; Ctrl-C ends.", flush=True)
        yield show


def caption(picture: Image, lines: Sequence[str]) -> Image:
    """A copy of a picture with lines of text at the top, white with a black outline."""
    picture = picture.copy()
    for row, line in enumerate(lines, 1):
        for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            place = (10, 22 * row)
            cv2.putText(picture, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, width)
    return picture
