"""The browser page, on this machine only: `python -m apps.web`.

`python -m apps.web --build DIR` writes the page as plain files that any web host can serve.
"""

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import webbrowser
from functools import lru_cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from portraitnet.backends import MODELS, choose
from portraitnet.cli import command, int_range, make_parser

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
MODEL_PATH = ROOT / "weights" / "portraitnet.onnx"
PACKAGE = "node_modules/onnxruntime-web"
RUNTIME = (  # of the package, what the worker loads: for the processor and for the graphics card
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.jspi.min.mjs",
    "ort-wasm-simd-threaded.jspi.mjs",
    "ort-wasm-simd-threaded.jspi.wasm",
)
PACKED = ".gz"  # ends an address whose file is sent packed, for the page itself to unpack
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    PACKED: "application/octet-stream",  # "gzip" would have some hosts and browsers unpack it
}
HOSTS = ("127.0.0.1", "localhost", "[::1]")  # names of this machine
HEADERS = {
    # Without these two a browser gives no shared memory, and the network runs on one thread.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",  # nor may another page take ours
    # The browser itself refuses to send anything anywhere else.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self';"
        " img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def parse_args(argv=None):
    parser = make_parser(
        "Serve the browser page on this machine only.", example="python -m apps.web --port 8420"
    )
    add = parser.add_argument
    add(
        "--model_path",
        help=f"{' or '.join(MODELS)}, or an ONNX file that export.py wrote; full and lite are one"
        " file here (default: full for photos, lite for the camera)",
    )
    add(
        "--port",
        type=int_range(0, 65535),
        default=8420,
        help="of the address; 0 for any that is free",
    )
    add(
        "--open",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show the page in the browser",
    )
    add("--build", type=Path, metavar="DIR", help="write the page into this new folder instead")
    return parser.parse_args(argv)


def page_files(model):
    """Every file of the page: its address, without the first slash -> where it lies.

    The large ones have an address that ends in PACKED. That is not left to Content-Encoding, which
    a plain host of static files does not know: so the first load is small whoever serves the page.

    Args:
        model: path of the ONNX file; its metadata lies beside it as .json.
    """
    own = [path for suffix in ("html", "css", "js", "svg") for path in FOLDER.glob(f"*.{suffix}")]
    own += FOLDER.glob("samples/*.jpg")
    files = {path.relative_to(FOLDER).as_posix(): path for path in own}
    for name in RUNTIME:
        ending = PACKED if name.endswith(".wasm") else ""
        files[f"runtime/{name}{ending}"] = FOLDER / PACKAGE / "dist" / name
    return files | {f"model.onnx{PACKED}": model, "model.json": model.with_suffix(".json")}


def content(address, path):
    """What is sent for an address of `page_files`, bytes."""
    if address.endswith(PACKED):
        return packed(path, path.stat().st_mtime_ns)
    return path.read_bytes()


@lru_cache(maxsize=8)  # it takes half a second for each
def packed(path, changed):
    """A file in gzip; `changed`, its time, is there for the cache."""
    return gzip.compress(path.read_bytes(), mtime=0)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD with the files it is given, and with nothing else.

    Args:
        files: address -> path, as `page_files` gives them.
    """

    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds that a client may be silent

    def __init__(self, *args, files, **kwargs):
        self.files = files
        super().__init__(*args, **kwargs)

    def file(self):
        """What is asked for: an address of `files` and its path, or None."""
        try:
            address = unquote(urlsplit(self.path).path).removeprefix("/") or "index.html"
        except ValueError:  # it is none
            return None
        path = self.files.get(address)
        return (address, path) if path and path.is_file() else None

    def is_addressed(self):
        """Whether the browser meant this machine: a foreign name may be made to lead here."""
        host = self.headers.get("Host", "").rpartition(":")
        return (host[0] if host[2].isdigit() else "".join(host)) in HOSTS

    def do_GET(self):  # noqa: N802, the name is http.server's
        file, status, message = self.file(), 404, "There is no such page here."
        if not self.is_addressed():
            port = self.server.server_port
            file, status, message = None, 421, f"This page is at http://127.0.0.1:{port}/ alone."
        body = content(*file) if file else f"{message}\n".encode()
        self.send_response(200 if file else status)
        kind = TYPES[Path(file[0]).suffix] if file else "text/plain; charset=utf-8"
        for name, value in {"Content-Type": kind, "Content-Length": len(body), **HEADERS}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args):
        """Be silent: the terminal shows the address alone."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A browser that hangs up early, or stops reading, is no error of ours."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def check_model(model):
    for path in (model, model.with_suffix(".json")):
        if not path.is_file():
            raise FileNotFoundError(f"There is no {path}: make it with `python export.py`.")


def make_server(model, port=0):
    """Listen on 127.0.0.1.

    Args:
        model: path of the ONNX file.
        port: 0 for any that is free.

    Returns:
        a server: `serve_forever()` runs it, `server_port` is its port.

    Raises:
        FileNotFoundError: the model or its .json is missing.
        OSError: the port is in use.
    """
    check_model(model)
    try:
        return Server(("127.0.0.1", port), partial(Handler, files=page_files(model)))
    except OSError as error:
        raise OSError(f"Port {port} cannot be used ({error}): give another --port.") from None


def install_packages(folder=FOLDER):
    """Bring the packages of package-lock.json into node_modules, if they are not there yet.

    Raises:
        RuntimeError: there is no npm, or it failed.
    """
    locked = json.loads((folder / "package-lock.json").read_text())["packages"]
    installed = folder / PACKAGE / "package.json"
    version = locked[PACKAGE]["version"]
    if installed.is_file() and json.loads(installed.read_text())["version"] == version:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            "The page needs npm to install onnxruntime-web, and there is none: install Node.js"
            " 20 or newer (https://nodejs.org)."
        )
    print(f"Installing onnxruntime-web {version}, once ...", flush=True)
    command = [npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(
            f"`npm ci` failed in {folder} ({' '.join(reason)}): run it there to see why."
        )


def build(folder, model):
    """Copy the page, the model and the runtime into a new folder that any web host can serve.

    A host that reads `_headers` (Netlify, Cloudflare) gives the page several threads and the whole
    of its policy; with any other the page itself brings the policy, and runs on one thread.

    Returns:
        bytes in the folder.

    Raises:
        FileExistsError: there is something in the folder already.
        OSError: it cannot be written, or the model is missing.
    """
    check_model(model)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty and is kept: give a new folder.")
    policy = HEADERS["Content-Security-Policy"].rpartition(";")[0]  # frame-ancestors: header only
    files = page_files(model) | {"LICENSE": ROOT / "LICENSE"}
    files["samples/README.md"] = FOLDER / "samples" / "README.md"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        page = Path(temporary) / "page"
        for address, path in files.items():
            (page / address).parent.mkdir(parents=True, exist_ok=True)
            (page / address).write_bytes(content(address, path))
        index = page / "index.html"
        meta = f'<head>\n    <meta http-equiv="Content-Security-Policy" content="{policy}" />'
        index.write_text(index.read_text().replace("<head>", meta))
        headers = [f"  {name}: {value}" for name, value in HEADERS.items()]
        (page / "_headers").write_text("\n".join(["/*", *headers, ""]))
        if folder.exists():
            folder.rmdir()  # it is empty
        page.rename(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@command("apps.web")
def main(argv=None):
    args = parse_args(argv)
    query = f"?model={args.model_path}" if args.model_path in MODELS else ""
    model = MODEL_PATH if query or not args.model_path else choose(args.model_path, "onnx").path
    if args.build:
        check_model(model)  # before anything is installed
        install_packages()
        size = build(args.build, model)
        opened = f"; index.html{query} opens it with that network" if query else ""
        print(f"{args.build}: the page, {size / 1e6:.0f} MB, ready for any web host{opened}.")
        return 0
    server = make_server(model, args.port)
    install_packages()
    address = f"http://127.0.0.1:{server.server_port}/{query}"
    print(f"{address} shows the page, to this machine only; Ctrl-C stops.", flush=True)
    if args.open:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
