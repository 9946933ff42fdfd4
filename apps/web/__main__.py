"""The browser page, served on this machine only: `python -m apps.web`.

`python -m apps.web --build DIR` writes the page as static files for any web host.
"""

import argparse
import gzip
import hashlib
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

from portraitnet.backends import MODELS, NAMES, WEIGHTS, choose
from portraitnet.cli import command, int_range, make_parser
from portraitnet.files import check_sha256

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
MODEL_PATH = WEIGHTS / "portraitnet.onnx"
LITE_PATH = WEIGHTS / "portraitnet_lite.onnx"
LARGE_PATH = WEIGHTS / "portraitnet_large.onnx"  # offered for photos if it is there
PACKAGE = "node_modules/onnxruntime-web"
RUNTIME = (  # files of the package that the worker loads, for processor and graphics card
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.jspi.min.mjs",
    "ort-wasm-simd-threaded.jspi.mjs",
    "ort-wasm-simd-threaded.jspi.wasm",
)
LIBRARIES = {  # files of other packages that the page loads when it needs them: address -> path
    "libraries/mediabunny.mjs": "node_modules/mediabunny/dist/bundles/mediabunny.min.mjs",
    "libraries/mediabunny.LICENSE.txt": "node_modules/mediabunny/LICENSE",
    "libraries/client-zip.mjs": "node_modules/client-zip/index.js",
    "libraries/client-zip.LICENSE.txt": "node_modules/client-zip/LICENSE.txt",
}
PACKED = ".gz"  # ending of the address of a file that is sent compressed; the page decompresses it
OWN = (".html", ".css", ".js", ".webmanifest", ".svg", ".png")  # endings of the page's own files
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    PACKED: "application/octet-stream",  # with "gzip" some hosts and browsers would decompress it
}
HOSTS = ("127.0.0.1", "localhost", "[::1]")  # names of this machine
HEADERS = {
    # Without these two headers a browser allows no shared memory: the network has one thread only.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",  # other pages cannot load these files
    # With this policy the browser refuses every connection to another server.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self';"
        " img-src 'self' blob:; media-src blob:; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
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
        help=f"{NAMES} for photos and camera alike, or an ONNX file of export.py in"
        " the place of full (default: full for photos, lite for the camera)",
    )
    add(
        "--port",
        type=int_range(0, 65535),
        default=8420,
        help="port of the address; 0: any free port",
    )
    add(
        "--open",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="open the page in the browser",
    )
    add("--build", type=Path, metavar="DIR", help="new folder for the page as static files")
    return parser.parse_args(argv)


def page_files(model: Path) -> dict[str, Path]:
    """The files of the page: address without the first slash -> path.

    The addresses of large files end in PACKED. Content-Encoding is not used, because simple hosts
    of static files do not support it; this way the first load is small on every host.

    Args:
        model: path of the ONNX file, with its metadata beside it as .json.
    """
    own = [path for path in FOLDER.iterdir() if path.suffix in OWN]
    own += FOLDER.glob("samples/*.jpg")
    files = {path.relative_to(FOLDER).as_posix(): path for path in own}
    for name in RUNTIME:
        ending = PACKED if name.endswith(".wasm") else ""
        files[f"runtime/{name}{ending}"] = FOLDER / PACKAGE / "dist" / name
    files |= {address: FOLDER / path for address, path in LIBRARIES.items()}
    for name, path in networks_of(model).items():
        address = f"networks/{name}"
        files |= {f"{address}.onnx{PACKED}": path, f"{address}.json": path.with_suffix(".json")}
    return files


def networks_of(model: Path) -> dict[str, Path]:
    """The networks that the page offers: name -> ONNX file, with its metadata beside it as .json.

    Args:
        model: the ONNX file of "full"; "large" is offered beside the bundled one alone, because
            both answer together.
    """
    networks = {"full": model, "lite": LITE_PATH}
    if model.resolve() == MODEL_PATH.resolve() and LARGE_PATH.is_file():
        networks["large"] = LARGE_PATH
    return networks


def content(address: str, files: dict[str, Path]) -> bytes:
    """The body of the answer to an address of `page_files`."""
    path = files[address]
    if address == "site.js":
        return f"self.SITE = {json.dumps(site(files))};\n".encode()
    if address.endswith(PACKED):
        return packed(path, path.stat().st_mtime_ns)
    return path.read_bytes()


def site(files: dict[str, Path]) -> dict:
    """What the page and its service worker know about the site.

    Returns:
        version: text that changes with any file;
        files: all addresses;
        networks: name -> bytes of the networks that are loaded on demand.
    """
    state = [(address, path.stat()) for address, path in sorted(files.items()) if path.is_file()]
    state = [(address, found.st_size, found.st_mtime_ns) for address, found in state]
    names = {address: Path(address.removesuffix(PACKED)) for address in files}
    networks = {
        name.stem: files[address].stat().st_size
        for address, name in names.items()
        if address.startswith("networks/") and name.suffix == ".onnx"
    }
    version = hashlib.sha256(repr(state).encode()).hexdigest()[:16]
    return {"version": version, "files": sorted(files), "networks": networks}


@lru_cache(maxsize=8)  # compression takes half a second per file
def packed(path: Path, changed: int) -> bytes:
    """A file compressed by gzip; `changed`, its time in ns, is a key of the cache only."""
    return gzip.compress(path.read_bytes(), mtime=0)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD requests for the given files, and no others.

    Args:
        files: address -> path, as `page_files` returns them.
    """

    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds without data after which a connection is closed

    def __init__(self, *args, files, **kwargs):
        self.files = files
        super().__init__(*args, **kwargs)

    def file(self) -> tuple[str, Path] | None:
        """The requested address of `files` and its path, or None."""
        try:
            address = unquote(urlsplit(self.path).path).removeprefix("/") or "index.html"
        except ValueError:  # not an address
            return None
        path = self.files.get(address)
        return (address, path) if path and path.is_file() else None

    def is_addressed(self) -> bool:
        """Whether the request names this machine; an attacker's name may resolve to 127.0.0.1."""
        host = self.headers.get("Host", "").rpartition(":")
        return (host[0] if host[2].isdigit() else "".join(host)) in HOSTS

    def do_GET(self):  # noqa: N802, the name is http.server's
        file, status, message = self.file(), 404, "This address does not exist."
        if not self.is_addressed():
            port = self.server.server_port
            file, status, message = None, 421, f"Open this page at http://127.0.0.1:{port}/."
        body = content(file[0], self.files) if file else f"{message}\n".encode()
        kind = TYPES[Path(file[0]).suffix] if file else "text/plain; charset=utf-8"
        fields = {"Content-Type": kind, "Content-Length": len(body), **HEADERS}
        if file:
            # A browser that has the file with this tag already gets no body.
            fields["ETag"] = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
            status = 200
            if self.headers.get("If-None-Match") == fields["ETag"]:
                status, body = 304, b""
                del fields["Content-Length"]
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args):
        """Log nothing: the terminal shows the page's address alone."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Ignore browsers that close a connection early or stop reading."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def check_model(model: Path) -> None:
    """Check that the ONNX file and its .json exist and have their sums in SHA256SUMS.

    Raises:
        FileNotFoundError: one of both is missing.
        ValueError: a SHA256SUMS file beside them gives another sum.
    """
    networks = networks_of(model).values()
    for path in (*networks, *(network.with_suffix(".json") for network in networks)):
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}: make it with `python export.py`.")
        check_sha256(path)


def make_server(model: Path, port: int = 0) -> Server:
    """Listen on 127.0.0.1.

    Args:
        model: path of the ONNX file.
        port: port; 0 for any free port.

    Returns:
        server; `serve_forever()` runs it, `server_port` is its port.

    Raises:
        FileNotFoundError: the model or its .json is missing.
        OSError: the port cannot be used.
    """
    check_model(model)
    try:
        return Server(("127.0.0.1", port), partial(Handler, files=page_files(model)))
    except OSError as error:
        raise OSError(f"Port {port} cannot be used ({error}): give another --port.") from None


def install_packages(folder: Path = FOLDER) -> None:
    """Install the packages of package-lock.json into node_modules, unless installed already.

    Raises:
        RuntimeError: npm is missing or failed.
    """
    locked = json.loads((folder / "package-lock.json").read_text())["packages"]
    missing = [
        f"{name} {version}"
        for name, version in locked[""]["dependencies"].items()
        if installed_version(folder / "node_modules" / name) != version
    ]
    if not missing:
        return
    names = ", ".join(missing)
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            f"The page needs npm to install {names}, and npm is missing: install Node.js 20 or"
            " newer (https://nodejs.org)."
        )
    print(f"Installing {names} (first start only) ...", flush=True)
    command = [npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(
            f"`npm ci` failed in {folder} ({' '.join(reason)}): run it there to see the reason."
        )


def installed_version(package: Path) -> str | None:
    """The version of an npm package's folder, None without it."""
    description = package / "package.json"
    return json.loads(description.read_text())["version"] if description.is_file() else None


def build(folder: Path, model: Path) -> int:
    """Copy the page, the model and the runtime into a new folder that any web host can serve.

    On hosts that read `_headers` (Netlify, Cloudflare) the page has several threads and the full
    security policy. On other hosts index.html contains the policy, and the page has one thread.

    Returns:
        size of the folder in bytes.

    Raises:
        FileExistsError: the folder is not empty.
        OSError: the folder cannot be written, or the model is missing.
    """
    check_model(model)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty: give a new folder.")
    policy = HEADERS["Content-Security-Policy"].rpartition(";")[
        0
    ]  # frame-ancestors works in headers only
    files = page_files(model) | {name: ROOT / name for name in ("LICENSE", "NOTICE")}
    files["samples/README.md"] = FOLDER / "samples" / "README.md"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        page = Path(temporary) / "page"
        for address in files:
            (page / address).parent.mkdir(parents=True, exist_ok=True)
            (page / address).write_bytes(content(address, files))
        index = page / "index.html"
        meta = f'<head>\n    <meta http-equiv="Content-Security-Policy" content="{policy}" />'
        index.write_text(index.read_text().replace("<head>", meta))
        headers = [f"  {name}: {value}" for name, value in HEADERS.items()]
        (page / "_headers").write_text("\n".join(["/*", *headers, ""]))
        if folder.exists():
            folder.rmdir()  # it is empty, as checked above
        page.rename(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@command("apps.web")
def main(argv=None):
    args = parse_args(argv)
    named = args.model_path is None or args.model_path in MODELS
    model = MODEL_PATH if named else choose(args.model_path, "onnx").path
    query = f"?model={args.model_path if named else 'full'}" if args.model_path else ""
    if args.build:
        check_model(model)  # before packages are installed
        install_packages()
        size = build(args.build, model)
        address = f"; index.html{query} opens the page with this network" if query else ""
        print(f"{args.build}: page of {size / 1e6:.0f} MB, ready for any web host{address}.")
        return 0
    server = make_server(model, args.port)
    install_packages()
    address = f"http://127.0.0.1:{server.server_port}/{query}"
    print(f"The page is at {address} for this machine only; Ctrl-C stops.", flush=True)
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
