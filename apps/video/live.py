"""Live: a camera with an effect, in a window or as a camera of its own."""

import subprocess
import sys
import time
from collections import deque
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple

from apps.video.drawing import Frame, pictures
from portraitnet.images import cv2

EFFECT_KEYS = ["blur", "replace", "grey", "overlay", "mask", "none"]  # 1 to 6
HELP = "1-6 or m: effect   b: background   f: mirror   h: help   q: quit"


class Look(NamedTuple):
    """What is made of the camera's frames, and how the window shows it."""

    mode: str
    mirror: bool = True
    background: int = 0  # place in the list of --background
    help: bool = True


def press(look, key, backgrounds):
    """What a key does in the live window.

    Args:
        look: Look before it.
        key: code from cv2.waitKey; -1 for none.
        backgrounds: number of backgrounds.

    Returns:
        Look after it, None to end.
    """
    letter = chr(key & 0xFF) if key >= 0 else None
    if letter in ("q", "\x1b"):
        return None
    if letter == "m":
        following = (EFFECT_KEYS.index(look.mode) + 1) % len(EFFECT_KEYS)
        return look._replace(mode=EFFECT_KEYS[following])
    if letter == "b":  # the first press shows the background, the others go on to the next
        step = look.mode == "replace"
        return look._replace(mode="replace", background=(look.background + step) % backgrounds)
    if letter == "f":
        return look._replace(mirror=not look.mirror)
    if letter == "h":
        return look._replace(help=not look.help)
    if letter and letter in "123456":
        return look._replace(mode=EFFECT_KEYS[int(letter) - 1])
    return look


def live(predictor, args):
    """Show a camera with its effect, until q, Esc or the window's end, or Ctrl-C.

    Raises:
        ImportError: --virtual_camera without pyvirtualcam.
        OSError: the camera cannot be opened or read, or there is no virtual one.
        RuntimeError: no window can be opened.
    """
    if not args.virtual_camera:
        check_window()
    look = Look(args.mode, mirror=not args.virtual_camera)

    def frames():
        start = time.perf_counter()
        while True:
            seconds, image = time.perf_counter() - start, read()
            image = cv2.flip(image, 1) if look.mirror else image
            background = args.background[look.background].at(seconds, image.shape)
            yield Frame(seconds, image, look.mode, background)

    with ExitStack() as stack:
        read, rate = stack.enter_context(camera(args.camera))
        if args.virtual_camera:
            show = stack.enter_context(virtual_camera(read().shape, rate))
        else:
            show = stack.enter_context(window(len(args.background)))
        drawn = pictures(frames(), predictor, args.blur / 100, args.smooth, 2)
        for _, picture, _ in stack.enter_context(closing(drawn)):
            look = show(picture, look)
            if look is None:
                return


@contextmanager
def camera(number):
    """A camera, open.

    Yields:
        function that waits for the next image, (H, W, 3) uint8 BGR, and frames a second.

    Raises:
        OSError: it cannot be opened; the function raises it when it cannot be read.
    """
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # its ten lines on a missing camera say less than one of ours
    capture = cv2.VideoCapture(number)
    cv2.utils.logging.setLogLevel(level)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # no frames that have waited

    def read():
        there, image = capture.read()
        if not there:
            raise OSError(
                f"Camera {number} gives no picture: give the number of another one, or close the"
                " program that uses it."
            )
        return image

    try:
        read()
        yield read, capture.get(cv2.CAP_PROP_FPS) or 30
    finally:
        capture.release()


def check_window():
    """See whether a window can be opened, in a process of its own: without a screen Qt ends it.

    Raises:
        RuntimeError: it cannot.
    """
    trial = [sys.executable, "-c", "import cv2; cv2.namedWindow('trial')"]
    if subprocess.run(trial, capture_output=True).returncode:
        raise RuntimeError(
            "No window can be opened: run on a machine with a screen, with opencv-python rather"
            " than opencv-python-headless, or give --virtual_camera."
        )


@contextmanager
def window(backgrounds):
    """A window on the screen whose keys change the look.

    Args:
        backgrounds: number of them.

    Yields:
        function of a picture and the Look it was made with, which shows it -> the next Look, or
        None to end.
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
def virtual_camera(shape, rate):
    """A camera that other programs can choose, such as a video call.

    Args:
        shape: of the pictures, (H, W, 3).
        rate: frames a second that it promises.

    Yields:
        function as that of `window`, which sends the picture there and keeps the look.

    Raises:
        ImportError, OSError: pyvirtualcam is not installed, or finds no device.
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
            f"There is no virtual camera ({str(error).partition('. ')[0]}): on Linux run `sudo"
            " modprobe v4l2loopback`, on Windows and macOS install OBS."
        ) from None

    def show(picture, look):
        output.send(picture)
        return look

    with output:
        print(f"Choose the camera {output.device} in your call; Ctrl-C ends.", flush=True)
        yield show


def caption(picture, lines):
    """A copy of a picture with lines of text at its top, white on black."""
    picture = picture.copy()
    for row, line in enumerate(lines, 1):
        for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            place = (10, 22 * row)
            cv2.putText(picture, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, width)
    return picture
