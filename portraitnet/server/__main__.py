"""Answer over HTTP: `portraitnet serve`."""

import functools
import os
import signal
import socket
import sys
from collections.abc import Callable

from portraitnet.backends import AUTO, BACKENDS, DEFAULT, MODEL_HELP
from portraitnet.cli import command, float_range, int_range, make_parser
from portraitnet.parallel import core_count
from portraitnet.predictor import Predictor
from portraitnet.server.workers import Workers

KEY_VARIABLE = "PORTRAITNET_API_KEY"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_PIXELS = 50_000_000  # a process takes 20 bytes a pixel: 1 GB


def parse_args(argv=None, example="portraitnet serve --port 8000"):
    parser = make_parser("Answer over HTTP: POST a photo to /v1/cutout.", example=example)
    parser.prog = example.partition(" --")[0]
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: every network")
    add("--port", type=int_range(0, 65535), default=8000, help="port; 0: any free port")
    key = f"key that clients must send (default: the environment variable {KEY_VARIABLE}, or none)"
    add("--api_key", metavar="KEY", help=key)
    workers = "processes, each with a network on one core (default: one a core)"
    add("--workers", type=int_range(1, 1024), help=workers)
    add("--max_bytes", type=int_range(1), default=32_000_000, help="byte limit of a body")
    add("--max_pixels", type=int_range(1), default=MAX_PIXELS, help="pixel limit of a photo")
    add("--max_waiting", type=int_range(0), default=64, help="photos that may wait for a process")
    seconds = "time limit of a photo, waiting included, seconds"
    add("--max_seconds", type=float_range(above=0), default=30.0, help=seconds)
    add("--model_path", default=DEFAULT, help=MODEL_HELP)
    backend = "runtime of the network; auto: the fastest for photos of any shape"
    add("--backend", choices=[AUTO, *BACKENDS], default=AUTO, help=backend)
    return parser.parse_args(argv)


def serve(argv, open_predictor: Callable[..., Predictor]) -> int:
    """The command, which returns the exit code once what was accepted is answered.

    Args:
        open_predictor: `Predictor`, or a function with its arguments that runs more kinds of files.
    """
    args = parse_args(argv)
    try:
        import uvicorn

        from portraitnet.server import app
    except ModuleNotFoundError as error:
        raise ImportError(
            f"The server needs {error.name}: run `pip install 'portraitnet[server]'`, in a clone "
            "`pip install '.[server]'`."
        ) from None
    listener = listen(args.host, args.port)
    arguments = (open_predictor, args.model_path, args.backend, args.max_pixels)
    workers = Workers(app.open_answers, arguments, args.workers or core_count())
    try:
        key = args.api_key or os.environ.get(KEY_VARIABLE) or None
        limits = args.max_bytes, args.max_waiting, args.max_seconds
        config = uvicorn.Config(
            app.make_app(workers, *limits, key), log_level="warning", access_log=False
        )
        host = f"[{args.host}]" if ":" in args.host else args.host
        address = f"http://{host}:{listener.getsockname()[1]}"
        print(f"{address}/docs shows the API; {workers.ready} processes; Ctrl-C stops.", flush=True)
        if args.host not in LOOPBACK and key is None:
            print(f"Everybody who reaches {args.host} may use it: set --api_key.", flush=True)
        # Both end the program after the last answer: uvicorn sends the signal once more.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        workers.close()
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; OSError in one sentence if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(
            f"{host} with port {port} cannot be used ({error}): give another --host or --port."
        ) from None


main = command("portraitnet serve")(functools.partial(serve, open_predictor=Predictor))

if __name__ == "__main__":
    sys.exit(main())
