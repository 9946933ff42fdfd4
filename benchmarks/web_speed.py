"""Speed of the browser page and of MediaPipe's selfie segmentation, in one headless Chromium.

npm ci --prefix apps/web && pip install playwright && python -m benchmarks.web_speed
python -m benchmarks.web_speed --threads 1 2 --beside ../before    # and an earlier version
python -m benchmarks.web_speed --screenshot examples/web.png    # the README's picture of the page
python -m benchmarks.web_speed --phone 4    # a phone's screen, CPU throttled fourfold by DevTools
python -m benchmarks.web_speed --photos 100    # memory of 100 photos of 12 megapixels in one ZIP

Each round opens every candidate again, turns on a fake camera of 640x480 and replaces the
background by a colour. Medians of the rounds are printed. Headless Chromium has no graphics card
here, so MediaPipe's WebGL runs on the processor too (SwiftShader). The earlier version of --beside
needs its own `npm ci --prefix apps/web`.
"""

import functools
import importlib.util
import os
import re
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np

from apps.web import __main__ as web
from benchmarks.table import heading, row
from portraitnet.cli import make_parser
from portraitnet.images import read_image

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "astronaut.png"
PEER = web.FOLDER / "node_modules" / "@mediapipe" / "selfie_segmentation"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --use-fake-device-for-media-stream"
).split()
# Runs in a page before the page's own scripts and counts the pictures that the page draws.
COUNT = """
window.drawn = 0;
const put = CanvasRenderingContext2D.prototype.putImageData;
CanvasRenderingContext2D.prototype.putImageData = function (...values) {
  window.drawn++;
  return put.apply(this, values);
};
"""
# Coloured background as in MediaPipe's documentation.
PEER_PAGE = """<!doctype html>
<input id="files" type="file">
<canvas id="canvas" width="640" height="480"></canvas>
<script src="/peer/selfie_segmentation.js"></script>
<script>
  window.drawn = 0;
  window.network = [];
  const context = canvas.getContext("2d");
  const peer = new SelfieSegmentation({ locateFile: (file) => `/peer/${file}` });
  peer.setOptions({ modelSelection: 0 });
  peer.onResults((results) => {
    context.save();
    context.clearRect(0, 0, 640, 480);
    context.drawImage(results.segmentationMask, 0, 0, 640, 480);
    context.globalCompositeOperation = "source-in";
    context.drawImage(results.image, 0, 0, 640, 480);
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "#3f7d5c";
    context.fillRect(0, 0, 640, 480);
    context.restore();
    window.drawn++;
  });
  files.onchange = async () => peer.send({ image: await createImageBitmap(files.files[0]) });
  async function start() {
    const video = document.createElement("video");
    video.srcObject = await navigator.mediaDevices.getUserMedia({
      video: { width: 640, height: 480 },
    });
    await video.play();
    for (;;) {
      const begin = performance.now();
      await peer.send({ image: video });
      network.push(performance.now() - begin);
      await new Promise(requestAnimationFrame);
    }
  }
</script>
"""  # noqa: E501


def write_clip(path, frames=30):
    """Write a swaying portrait, 640x480, as Chromium's fake camera reads it: concatenated JPEGs."""
    photo = cv2.resize(read_image(EXAMPLE), (480, 480))
    with path.open("wb") as file:
        for angle in np.linspace(0, 2 * np.pi, frames, endpoint=False):
            frame = np.full((480, 640, 3), 120, np.uint8)
            left = int(80 + 60 * np.sin(angle))
            frame[:, left : left + 480] = photo
            file.write(cv2.imencode(".jpg", frame)[1].tobytes())


class Sent:
    """Bytes sent by the servers, headers included (`wire`), and their size after decompression."""

    wire = 0
    unpacked = 0


class Counted:
    """Mixin of a handler that counts the bytes it sends."""

    def setup(self):
        super().setup()
        write = self.wfile.write

        def counting(data):
            Sent.wire += len(data)
            return write(data)

        self.wfile.write = counting

    def do_GET(self):  # noqa: N802, the name is http.server's
        file = self.file()
        path = (
            file[1] if isinstance(file, tuple) else file
        )  # an earlier version returns the path alone
        Sent.unpacked += path.stat().st_size if path else 0
        super().do_GET()


class PeerHandler(web.Handler):
    """Serves MediaPipe's page and files beside this project's."""

    def do_GET(self):  # noqa: N802, the name is http.server's
        if not self.path.startswith("/peer/"):
            return super().do_GET()
        path = PEER / self.path.removeprefix("/peer/")
        body = path.read_bytes() if path.is_file() else PEER_PAGE.encode()
        kind = {".js": "text/javascript", ".wasm": "application/wasm", "": "text/html"}
        self.send_response(200)
        self.send_header("Content-Type", kind.get(path.suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        Sent.unpacked += len(body)
        return None


def serve(page, handler, model):
    """Start serving a page; returns its address.

    Args:
        page: module apps.web of this project or of another version.
        handler: class, a Handler of that module.
        model: path of an ONNX file.
    """
    handler = type("CountedHandler", (Counted, handler), {})
    files = page.page_files(model)
    server = page.Server(("127.0.0.1", 0), functools.partial(handler, files=files))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def load_page(folder):
    """The module apps.web of another version of this project."""
    path = Path(folder).resolve() / "apps" / "web" / "__main__.py"
    spec = importlib.util.spec_from_file_location("page_beside", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def processor_time(browser):
    """CPU seconds of all processes of the browser since its start."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return sum(process["cpuTime"] for process in processes)


def measure(browser, address, seconds, ours, phone=None):
    """Open a page in a new context, with a photo first and the camera afterwards.

    Returns:
        seconds to the first mask; MB sent until then, compressed and decompressed; frames/s;
        CPU milliseconds per frame (whole browser with the fake camera); network's milliseconds.
    """
    screen = {"viewport": {"width": 1000, "height": 800}}
    if phone:
        screen = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    context = browser.new_context(permissions=["camera"], **screen)
    if ours:
        context.add_init_script(COUNT)
    page = context.new_page()
    if phone:
        session = context.new_cdp_session(page)
        session.send("Emulation.setCPUThrottlingRate", {"rate": phone})
    Sent.wire = Sent.unpacked = 0
    begin = time.perf_counter()
    page.goto(address)
    page.set_input_files("#files", EXAMPLE)
    while not page.evaluate("window.drawn"):
        page.wait_for_timeout(10)
    first, sizes = time.perf_counter() - begin, (Sent.wire / 1e6, Sent.unpacked / 1e6)

    if ours:
        page.locator("input[value=replace]").check(force=True)
        page.click("#color")
        page.locator("input[value=camera]").check(force=True)
        page.click("#start")
    else:
        page.evaluate("void start()")
    page.wait_for_timeout(2500)
    computed = processor_time(browser)
    frames, begin = page.evaluate("window.drawn"), time.perf_counter()
    page.wait_for_timeout(1000 * seconds)
    frames = page.evaluate("window.drawn") - frames
    rate = frames / (time.perf_counter() - begin)
    computed = 1000 * (processor_time(browser) - computed) / frames
    if ours:
        network = float(re.search(r"network ([\d.]+) ms", page.text_content("#times"))[1])
    else:
        network = page.evaluate("network.sort((a, b) => a - b)[network.length >> 1]")
    context.close()
    return first, *sizes, rate, computed, network


def memory(browser):
    """Resident MB of the browser's processes: the page's own, and all together."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    sizes = {"renderer": 0, "all": 0}
    for process in processes:
        pages = int(Path(f"/proc/{process['id']}/statm").read_text().split()[1])
        for kind in {process["type"], "all"} & set(sizes):
            sizes[kind] += pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return sizes["renderer"], sizes["all"]


def save_many(browser, address, folder, count):
    """Put photos of 12 megapixels into one ZIP by "Download all"; prints time and memory."""
    photo = cv2.resize(read_image(ROOT / "examples" / "portrait.jpg"), (3000, 4000))
    noise = np.random.default_rng(0).normal(0, 4, photo.shape)
    encoded = cv2.imencode(".jpg", np.clip(photo + noise, 0, 255).astype(np.uint8))[1].tobytes()
    paths = [folder / f"{i:03}.jpg" for i in range(count)]
    for path in paths:
        path.write_bytes(encoded)
    page = browser.new_page()
    page.goto(address)
    page.set_input_files("#files", paths)
    page.wait_for_selector("#save:not([disabled])", timeout=300_000)
    peak, begin = (0, 0), time.perf_counter()
    files = []
    page.on("download", lambda file: files.append(file))
    page.click("#save_all")
    while not files:
        peak = tuple(map(max, peak, memory(browser)))
        page.wait_for_timeout(500)
    seconds = time.perf_counter() - begin
    size = Path(files[0].path()).stat().st_size / 1e6
    print(
        f"{count} photos of {len(encoded) / 1e6:.1f} MB in {seconds:.0f} s: ZIP of {size:.0f} MB,"
    )
    print(
        f"at most {peak[0]:.0f} MB in the page's process, {peak[1]:.0f} MB in all of the browser's"
    )


def take_screenshot(browser, address, path):
    """Take a picture of the page with a sample portrait, half of it with a drawn background."""
    page = browser.new_page(viewport={"width": 1000, "height": 620})
    page.goto(address)
    page.locator("input[value=replace]").check(force=True)
    page.locator("input[value=garden]").check(force=True)
    page.click("#samples button >> nth=0")
    page.wait_for_selector("#save:not([disabled])")
    page.mouse.move(0, 0)
    page.screenshot(path=path)


def parse_args(argv=None):
    parser = make_parser(
        "Speed of the browser page and of MediaPipe's selfie segmentation, in headless Chromium.",
        example="python -m benchmarks.web_speed",
    )
    parser.add_argument("--model_path", type=Path, default=web.MODEL_PATH, help="ONNX file")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1], help="thread counts to measure"
    )
    parser.add_argument("--beside", type=Path, help="folder of an earlier version to compare")
    parser.add_argument("--rounds", type=int, default=3, help="number of times each page is opened")
    parser.add_argument("--seconds", type=int, default=5, help="duration of each frame count")
    parser.add_argument(
        "--phone", type=float, help="screen of a phone, and how many times slower its processor is"
    )
    parser.add_argument(
        "--screenshot", type=Path, help="picture of the page to write; no measurement"
    )
    parser.add_argument(
        "--photos", type=int, help="number of photos for one ZIP: its memory alone is measured"
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    from playwright.sync_api import sync_playwright

    address = serve(web, PeerHandler, args.model_path)
    candidates = {}
    for threads in args.threads:
        query = f"?backend=wasm&threads={threads}"
        for name in ("full", "lite"):  # what the camera offers
            candidates[f"{name}, threads: {threads}"] = (f"{address}{query}&model={name}", True)
        if args.beside:
            page = load_page(args.beside)
            earlier = serve(page, page.Handler, page.MODEL_PATH)
            candidates[f"{args.beside.name}, threads: {threads}"] = (f"{earlier}{query}", True)
    if PEER.is_dir():
        candidates["MediaPipe selfie 256x256"] = (f"{address}peer/", False)
    results = {name: [] for name in candidates}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        clip = Path(folder) / "clip.mjpeg"
        write_clip(clip)
        flags = [*FLAGS, f"--use-file-for-fake-video-capture={clip}", "--enable-unsafe-swiftshader"]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        if args.screenshot:
            take_screenshot(browser, address, args.screenshot)
            return
        if args.photos:
            save_many(browser, address, Path(folder), args.photos)
            return
        for turn in range(args.rounds):
            for name, (url, ours) in candidates.items():
                result = measure(browser, url, args.seconds, ours, args.phone)
                print(turn, name, *result, flush=True)
                results[name].append(result)
        browser.close()
    columns = [
        "page",
        "first mask, s",
        "sent, MB",
        "decompressed, MB",
        "frames/s",
        "CPU ms a frame",
        "network, ms",
        "frames/s, by rounds",
    ]
    print(f"\n{heading(columns)}")
    for name, rows in results.items():
        first, *values = map(statistics.median, zip(*rows))
        turns = ", ".join(f"{rate:.1f}" for _, _, _, rate, *_ in rows)
        print(row([name, f"{first:.2f}", *(f"{value:.1f}" for value in values), turns]))


if __name__ == "__main__":
    main()
