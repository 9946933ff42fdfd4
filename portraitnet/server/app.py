"""The addresses of the server, and which status answers what."""

import asyncio
import hmac
import json
import logging
import math
import re
import time
from enum import Enum

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from portraitnet import __version__
from portraitnet.effects import EFFECTS
from portraitnet.server import answers
from portraitnet.server.answers import ALPHA, FORMATS, PARAMETERS, open_answers
from portraitnet.server.workers import RefusedError, Workers

Mode = Enum("Mode", {name: name for name in EFFECTS})
TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    413: "Content too large",
    422: "Unprocessable content",
    429: "Too many requests",
    503: "Service unavailable",
}
CLOSED = 499  # nginx's status for a client that did not wait
MAX_FILES, MAX_FIELDS = 2, 32  # of a form
NAME_LENGTH = 100  # characters of a file's name in a sentence
YES = ("true", "1", "on", "yes")  # how clients of rembg write a boolean

# What OpenAPI cannot see in the functions below.
BINARY = {"schema": {"type": "string", "format": "binary"}}
FORM = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": BINARY["schema"], "background": BINARY["schema"]},
    }
}
ASKED = {"requestBody": {"required": True, "content": {"image/*": BINARY}}}
ASKED["requestBody"]["content"]["multipart/form-data"] = FORM
ASKED["parameters"] = [
    {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
    for name, text in PARAMETERS.items()
]
FACTS = {
    "person": 0.4213,
    "box": {"top": 96, "left": 40, "height": 704, "width": 512},
    "milliseconds": 41.5,
}
ANSWERED = {
    200: {
        "description": "A picture, with the fraction of person as X-Person; or the facts",
        "content": dict.fromkeys(FORMATS.values(), BINARY)
        | {"application/json": {"example": FACTS}},
    }
} | {
    status: {"description": title, "content": {"application/problem+json": {}}}
    for status, title in TITLES.items()
}


__all__ = ["make_app", "open_answers"]
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it quotes damaged forms


class MemoryParser(MultiPartParser):
    """A parser of forms that writes nothing to the disk."""

    spool_max_size = 2**40  # bytes; the body, which has a limit, is in memory already


def make_app(
    workers: Workers,
    max_bytes: int,
    max_waiting: int,
    max_seconds: float,
    api_key: str | None = None,
) -> FastAPI:
    """The server without its port.

    Args:
        workers: processes of `answers.open_answers`.
        max_bytes: of a body.
        max_waiting: photos that may wait for a process.
        max_seconds: in which a photo must have come, and then again must be done.
        api_key: that requests must name; None for none.
    """
    app = FastAPIOffline(  # its page /docs needs no other server
        title="PortraitNet",
        version=__version__,
        summary="Cuts people out of photos. Nothing of the photos is stored or logged.",
        redoc_url=None,
    )
    metrics = Metrics(workers)
    room = len(workers.processes) + max_waiting

    async def respond(request, mode, make_request):
        """Answer one photo, if there is room for it.

        Args:
            mode: for the metrics.
            make_request: function of (parameters, files, name of the format) ->
                `answers.Request`.
        """
        began, status = time.perf_counter(), 500
        try:
            check_key(request, api_key)
            if metrics.inside >= room:
                wait = metrics.seconds_until_room()
                raise HTTPException(
                    429,
                    f"{metrics.inside} photos are waiting: send this one again in {wait} s.",
                    {"Retry-After": str(wait)},
                )
            metrics.inside += 1
            try:
                body = await body_of(request, max_bytes, max_seconds)
                parameters, files = await form_of(request, body)
                asked = make_request(parameters, files)
                del body, files
                future = workers.submit(asked, time.monotonic() + max_seconds)
                answer = await result_of(future, request, max_seconds)
            finally:
                metrics.inside -= 1
            metrics.worked(answer.milliseconds / 1000)
            status = 200
            headers = {"X-Person": f"{answer.person:.4f}"}
            headers["Server-Timing"] = f"work;dur={answer.milliseconds}"
            return Response(answer.body, media_type=answer.media_type, headers=headers)
        except HTTPException as problem:
            status = problem.status_code
            raise
        except ClientDisconnect:
            status = CLOSED
            return Response(status_code=CLOSED)
        finally:
            metrics.requests.labels(mode, status).inc()
            metrics.seconds.labels(mode).observe(time.perf_counter() - began)

    @app.post("/v1/{mode}", responses=ANSWERED, openapi_extra=ASKED, response_class=Response)
    async def v1(mode: Mode, request: Request):
        """Find the person in a photo and answer the effect; with format=json, the facts."""

        def make_request(parameters, files):
            photo, name = files["file"]
            background = files.get("background", (None,))[0]
            pairs, form = tuple(sorted(parameters.items())), accepted_format(request)
            return answers.Request(mode.value, photo, name, pairs, background, form)

        return await respond(request, mode.value, make_request)

    @app.post(
        "/api/remove", responses=ANSWERED, openapi_extra={"requestBody": ASKED["requestBody"]}
    )
    async def rembg(request: Request):
        """Cut the person out for clients of rembg's server. Of its parameters a (matting), om (only
        the mask) and bgc (r,g,b,a) count; the others have no effect."""

        def make_request(parameters, files):
            photo, name = files["file"]
            pairs = [("matting", "hair")] if parameters.get("a", "").lower() in YES else []
            mode = ALPHA if parameters.get("om", "").lower() in YES else "cutout"
            if parameters.get("bgc") and mode == "cutout":
                mode = "replace"
                pairs.insert(0, ("background", hex_color(parameters["bgc"])))
            return answers.Request(mode, photo, name, tuple(pairs))

        return await respond(request, "rembg", make_request)

    @app.get("/healthz")
    async def health():
        """200 while at least one process has its network, else 503."""
        facts = {"processes": workers.ready, "photos": metrics.inside}
        return json_response(facts, 200 if workers.ready else 503)

    @app.get("/metrics", response_class=Response)
    async def show_metrics(request: Request):
        """The metrics, as Prometheus reads them."""
        check_key(request, api_key)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(HTTPException)
    async def problem(request, error):
        """Any refusal as problem details (RFC 9457)."""
        detail, path = error.detail, request.url.path[:NAME_LENGTH]
        if error.status_code == 404:
            detail = f"There is no {path}: POST a photo to /v1/{', /v1/'.join(EFFECTS)}."
        if error.status_code == 405:
            detail = f"{path} takes another method: photos are sent by POST, and no URL is fetched."
        detail = re.sub(r"[\x00-\x1f\x7f]", " ", detail)  # a sentence is one line
        facts = {"type": "about:blank", "title": TITLES.get(error.status_code, "Error")}
        facts |= {"status": error.status_code, "detail": detail}
        kind = "application/problem+json"
        return json_response(facts, error.status_code, kind, error.headers)

    @app.exception_handler(RequestValidationError)
    async def no_such_mode(request, error):
        """The mode is the only argument that FastAPI itself checks."""
        return await problem(request, HTTPException(404))

    return app


class Metrics:
    """What is counted of the answers; nothing of the photos.

    Attributes:
        inside: photos that are received, wait or are worked on.
    """

    def __init__(self, workers):
        self.inside, self.mean, self.count = 0, 0.1, len(workers.processes)
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "portraitnet_requests", "Answers.", ["mode", "status"], registry=registry
        )
        self.seconds = Histogram(
            "portraitnet_seconds", "Time of an answer.", ["mode"], registry=registry
        )
        for name, text, function in (
            ("photos", "Photos that are received, wait or are worked on.", lambda: self.inside),
            ("processes", "Processes with a network.", lambda: workers.ready),
            ("processes_replaced", "Processes that were replaced.", lambda: workers.replaced),
        ):
            gauge = Gauge(f"portraitnet_{name}", text, registry=registry)
            gauge.set_function(function)

    def worked(self, seconds):
        """Count the time of one photo in its process."""
        self.mean += 0.1 * (seconds - self.mean)

    def seconds_until_room(self):
        """Whole seconds in which the photos that wait are done, at the recent rate."""
        return max(1, math.ceil(self.mean * self.inside / self.count))


def check_key(request, api_key):
    """Refuse a request that does not name the API key."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    given = given if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    # In constant time, or the time would say how many characters are right.
    if api_key is not None and not hmac.compare_digest(given.encode(), api_key.encode()):
        sentence = "The API key is missing or wrong: send the header Authorization: Bearer KEY."
        raise HTTPException(401, sentence, {"WWW-Authenticate": "Bearer"})


async def body_of(request, max_bytes, max_seconds):
    """The body, if it is neither too large nor too slow."""
    body = bytearray()

    def check(size):
        if size > max_bytes:
            raise HTTPException(
                413, f"The body has more than {max_bytes:,} bytes: shrink the photo."
            )

    async def read():
        async for chunk in request.stream():
            check(len(body) + len(chunk))
            body.extend(chunk)

    length = request.headers.get("content-length", "")
    check(int(length) if re.fullmatch(r"[0-9]{1,18}", length) else 0)
    try:
        await asyncio.wait_for(read(), max_seconds)
    except asyncio.TimeoutError:
        sentence = f"The body did not come within {max_seconds:g} s: shrink the photo."
        raise HTTPException(408, sentence) from None
    return bytes(body)


async def form_of(request, body):
    """The parameters {name: value} and the files {name: (content, name of the file)}."""
    parameters = once(request.query_params.multi_items())
    # curl calls any body a form of the other kind: what is no multipart form is a photo.
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return parameters, {"file": (body, "photo")}

    async def stream():
        yield body

    files = {}
    parser = MemoryParser(request.headers, stream(), max_files=MAX_FILES, max_fields=MAX_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        sentence = f'The form is damaged ({error.message}): send the photo as its part "file".'
        raise HTTPException(400, sentence) from None
    for name, value in once(form.multi_items()).items():
        if isinstance(value, UploadFile):
            files[name] = value.file.read(), (value.filename or "photo")[:NAME_LENGTH]
            value.file.close()
        else:
            parameters[name] = value
    if unknown := sorted(set(files) - {"file", "background"}):
        names = ", ".join(unknown)[:NAME_LENGTH]
        raise HTTPException(422, f'The form has the file {names}: call the photo "file".')
    if "file" not in files:
        raise HTTPException(422, 'The form has no photo: send it as the part "file".')
    return parameters, files


def once(pairs):
    """Pairs as a dictionary, if no name is there twice: nobody knows which of the two is meant."""
    given = {}
    for name, value in pairs:
        if name in given:
            raise HTTPException(422, f'"{name[:NAME_LENGTH]}" is there more than once: send one.')
        given[name] = value
    return given


def accepted_format(request):
    """The first format that the header Accept names; PNG where it names none."""
    kinds = [
        each.partition(";")[0].strip() for each in request.headers.get("accept", "").split(",")
    ]
    names = {kind: name for name, kind in FORMATS.items()}
    return next((names[kind] for kind in kinds if kind in names), "png")


def hex_color(text):
    """rembg's r,g,b,a as #rrggbb; what is none stays, and is refused as predict.py would."""
    numbers = re.findall(r"\d+", text)
    if 3 <= len(numbers) <= 4 and all(len(each) <= 3 and int(each) < 256 for each in numbers):
        return "#" + "".join(f"{int(each):02x}" for each in numbers[:3])
    return text


async def result_of(future, request, max_seconds):
    """The result of a future, as long as the client waits and the time lasts."""
    result = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(request.receive())  # after the body only the end can come
    try:
        await asyncio.wait({result, gone}, timeout=max_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    try:
        if result.done():
            return result.result()
        result.cancel()  # what still waits for a process is not done
        if gone.done():
            raise ClientDisconnect
        raise TimeoutError
    except RefusedError as error:
        raise HTTPException(422, str(error)) from None
    except TimeoutError:
        sentence = f"The photo was not done within {max_seconds:g} s: shrink it or try it later."
    except ChildProcessError:
        sentence = "The process with the photo ended, mostly for lack of memory: shrink the photo."
    raise HTTPException(503, sentence, {"Retry-After": "1"})


def json_response(facts, status, kind="application/json", headers=None):
    """JSON in ASCII: whatever a client's name of a file holds can be sent."""
    return Response(json.dumps(facts), status, headers, kind)
