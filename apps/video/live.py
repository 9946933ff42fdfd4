"""The live window: a camera with the effect that the keys choose."""

import time
from collections import deque
from contextlib import closing, suppress
from typing import NamedTuple

from apps.video.drawing import Frame, pictures
from images import cv2

EFFECT_KEYS = ["blur", "replace", "grey", "overlay", "mask", "none"]  # 1 to 6
HELP = "1-6 or m: effect   b: background   f: mirror   h: help   q: quit"


class Look(NamedTuple):
    """What the live window shows."""

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
    """Show a camera with the effect that the keys choose, until q, Esc or the window's end.

    Raises:
        OSError: the camera cannot be opened or read.
        RuntimeError: no window can be opened.
    """
    look = Look(args.mode)
    title = "PortraitNet"
    capture = cv2.VideoCapture(args.camera)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # no frames that have waited

    def frames():
        start = time.perf_counter()
        while True:
            read, image = capture.read()
            if not read:
                raise OSError(
                    f"Camera {args.camera} gives no picture: give the number of another one, or"
                    " close the program that uses it."
                )
            seconds = time.perf_counter() - start
            image = cv2.flip(image, 1) if look.mirror else image
            background = args.background[look.background].at(seconds, image.shape)
            yield Frame(seconds, image, look.mode, background)

    try:
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        times = deque(maxlen=30)
        with closing(pictures(frames(), predictor, args.blur / 100, args.smooth, 2)) as drawn:
            for _, picture, _ in drawn:
                times.append(time.perf_counter())
                if look.help:
                    rate = (len(times) - 1) / max(1e-3, times[-1] - times[0])
                    picture = caption(picture, [f"{look.mode}, {rate:.0f} frames/s", HELP])
                cv2.imshow(title, picture)
                look = press(look, cv2.waitKey(1), len(args.background))
                if look is None or cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1:
                    return
    except cv2.error as error:
        raise RuntimeError(
            f"No window can be opened ({error.err}): run on a machine with a screen, with"
            " opencv-python rather than opencv-python-headless."
        ) from None
    finally:
        capture.release()
        with suppress(cv2.error):  # of an OpenCV without windows
            cv2.destroyAllWindows()


def caption(picture, lines):
    """A copy of a picture with lines of text at its top, white on black."""
    picture = picture.copy()
    for row, line in enumerate(lines, 1):
        for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            place = (10, 22 * row)
            cv2.putText(picture, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, width)
    return picture
