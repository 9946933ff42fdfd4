"""What a process of the server does: a request in, a picture or facts out, without HTTP."""

import copy
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import cv2

from portraitnet.__main__ import BACKGROUND, decode, parse_args, restore
from portraitnet.backgrounds import parse_color
from portraitnet.cli import RaisingParser
from portraitnet.effects import EFFECTS, cut_out
from portraitnet.images import decode_image, encode_image, mask_of
from portraitnet.predictor import Predictor

FORMATS = {  # name -> media type of an answer
    "png": "image/png",
    "webp": "image/webp",
    "jpeg": "image/jpeg",
    "json": "application/json",
}
ALPHA = "alpha"  # the opacity of the cut-out, 0..255: a mode of rembg's clients alone
BOOLEANS = ("true", "false")
PARAMETERS = {  # name -> what it means; the rest is said by `portraitnet --help`
    "background": "of replace: a colour #rrggbb, its name, or a photo as a part of the form",
    "blur": "strength of blur: sigma in % of the longer side",
    "matting": "opacity of hair: none, fast or hair",
    "refine": "let the mask follow the photo's edges: true or false",
    "format": "of the answer: png, webp, jpeg or json",
}


class Request(NamedTuple):
    """What is asked for.

    Attributes:
        mode: name in EFFECTS, or ALPHA.
        photo: content of the photo's file.
        name: what errors call it.
        parameters: sorted (name, value) pairs of PARAMETERS, as they came.
        background: content of a background's file, or None.
        format: name in FORMATS where the parameters have none.
    """

    mode: str
    photo: bytes
    name: str
    parameters: tuple[tuple[str, str], ...] = ()
    background: bytes | None = None
    format: str = "png"


class Answer(NamedTuple):
    """What is answered.

    Attributes:
        body: a picture or JSON.
        media_type: of the body.
        person: fraction of the photo's pixels that are person.
        milliseconds: that it took.
    """

    body: bytes
    media_type: str
    person: float
    milliseconds: float


def open_answers(
    open_predictor: Callable[..., Predictor],
    model_path: str,
    backend: str,
    max_pixels: int,
) -> Callable[[Request], Answer]:
    """The function of a request -> Answer, with its network.

    Args:
        open_predictor: `Predictor`, or a function with its arguments that runs more kinds of files.
        model_path, backend: see `Predictor`.
        max_pixels: that a photo may have.
    """
    # Decoders write of damaged photos: that goes nowhere, and a traceback still to the log.
    sys.stderr = os.fdopen(os.dup(2), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    # ONNX Runtime takes every shape alike; OpenVINO would compile each of the many anew.
    predictor = open_predictor(model_path, backend, threads=1, photos=1)
    unrefined = copy.copy(predictor)  # of the same network
    unrefined.refine = False

    def answer(request):
        began = time.perf_counter()
        parameters = request.parameters
        if request.background is not None:  # predict.py's parser says which modes take one
            parameters += (("background", BACKGROUND),)
        args, form = parse_parameters(request.mode, parameters)
        image, layers = decode(request.photo, request.name, max_pixels)
        used = predictor if args.refine else unrefined
        (found,) = used.run([used.prepare(image)], [image])
        probability, options = restore(used, found, image, layers, args)
        if request.background is not None:
            background = decode_image(request.background, "background", max_pixels)
            options = options._replace(background=background)
        mask = mask_of(probability)
        person = round(float(mask.mean()), 4)
        form = form or request.format
        body = b""
        if form != "json":
            body = encode_image(f"answer.{form}", picture(request, image, probability, options))
        milliseconds = round(1000 * (time.perf_counter() - began), 1)
        if form == "json":
            facts = {"person": person, "box": box_of(mask), "milliseconds": milliseconds}
            body = json.dumps(facts).encode()
        return Answer(body, FORMATS[form], person, milliseconds)

    return answer


@lru_cache(256)  # a client asks for the same again and again
def parse_parameters(mode: str, parameters: tuple[tuple[str, str], ...]):
    """Parameters -> (arguments as predict.py has them, format or None).

    predict.py's own parser takes them, so that both refuse the same in the same sentence.

    Raises:
        ValueError: a parameter is unknown, wrong, or has no effect with this mode.
    """
    flags, form = [], None
    for name, value in parameters:
        if name not in PARAMETERS:
            raise ValueError(f"unrecognized arguments: --{name[:100]}={value[:100]}")
        if name == "format":
            form = choice(name, value, FORMATS)
        elif name == "refine":
            flags.append(
                {"true": "--refine", "false": "--no-refine"}[choice(name, value, BOOLEANS)]
            )
        elif name == "background" and parse_color(value) is None:
            raise ValueError(  # never a file of the server
                f"The background {value[:100]} is neither a colour nor a part with a photo: send a "
                "photo by -F background=@beach.jpg."
            )
        else:
            flags.append(f"--{name}={value}")
    command_mode = "cutout" if mode == ALPHA else mode
    argv = ["-", "--output=-", f"--mode={command_mode}", *flags]
    return parse_args(argv, parser_class=RaisingParser), form


def choice(name, value, choices):
    """The value, in argparse's sentence if it is none of the choices."""
    if value not in choices:
        names = ", ".join(choices)
        raise ValueError(
            f"argument --{name}: invalid choice: {value[:100]!r} (choose from {names})"
        )
    return value


def picture(request, image, probability, options):
    """The picture that a request asks for."""
    if request.mode != ALPHA:
        return EFFECTS[request.mode](image, probability, options)
    return cut_out(image, probability, options.side, options.layers, options.alpha)[:, :, 3]


def box_of(mask):
    """The smallest box around the person, pixels of the photo; None if there is no person."""
    x, y, width, height = cv2.boundingRect(mask)
    return {"top": y, "left": x, "height": height, "width": width} if width else None
