"""Speed of the browser page beside MediaPipe's selfie segmentation, in one headless Chromium.

npm ci --prefix apps/web && pip install playwright && python -m benchmarks.web_speed
python -m benchmarks.web_speed --screenshot examples/web.png    # the README's picture of the page

Each round opens every candidate anew, turns a fake camera of 640x480 on and replaces the background
by a colour; medians of the rounds are printed. There is no graphics card in headless Chromium here,
so MediaPipe, which computes with WebGL, is drawn by the processor too (SwiftShader).
"""

import functools
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
from flags import make_parser
from images import read_image

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "astronaut.png"
PEER = web.FOLDER / "node_modules" / "@mediapipe" / "selfie_segmentation"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --use-fake-device-for-media-stream"
).split()
# Run in a page before its own scripts: counts the pictures that it draws.
COUNT = """
window.drawn = 0;
const put = CanvasRenderingContext2D.prototype.putImageData;
CanvasRenderingContext2D.prototype.putImageData = function (...given) {
  window.drawn++;
  return put.apply(this, given);
};
"""
# As MediaPipe's documentation composes a coloured background.
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
    """A portrait that sways, 640x480, as Chromium's fake camera plays it: JPEGs in a row."""
    photo = cv2.resize(read_image(EXAMPLE), (480, 480))
    with path.open("wb") as file:
        for angle in np.linspace(0, 2 * np.pi, frames, endpoint=False):
            frame = np.full((480, 640, 3), 120, np.uint8)
            left = int(80 + 60 * np.sin(angle))
            frame[:, left : left + 480] = photo
            file.write(cv2.imencode(".jpg", frame)[1].tobytes())


class PeerHandler(web.Handler):
    """Serves MediaPipe's page and files beside ours, and counts what is sent."""

    sent = 0

    def do_GET(self):  # noqa: N802, the name is http.server's
        if self.path.startswith("/peer/"):
            path = PEER / self.path.removeprefix("/peer/")
            body = path.read_bytes() if path.is_file() else PEER_PAGE.encode()
            kind = {".js": "text/javascript", ".wasm": "application/wasm", "": "text/html"}
            self.send_response(200)
            self.send_header("Content-Type", kind.get(path.suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            PeerHandler.sent += len(body)
        else:
            path = self.file()
            PeerHandler.sent += path.stat().st_size if path else 0
            super().do_GET()


def measure(browser, address, seconds, ours):
    """Open a page anew: seconds to the first mask, bytes until then, frames/s and ms a frame."""
    context = browser.new_context(permissions=["camera"], viewport={"width": 1000, "height": 800})
    if ours:
        context.add_init_script(COUNT)
    page = context.new_page()
    PeerHandler.sent = 0
    begin = time.perf_counter()
    page.goto(address)
    page.set_input_files("#files", EXAMPLE)
    while not page.evaluate("window.drawn"):
        page.wait_for_timeout(10)
    first, sent = time.perf_counter() - begin, PeerHandler.sent

    if ours:
        page.locator("input[value=replace]").check(force=True)
        page.click("#color")
        page.locator("input[value=camera]").check(force=True)
        page.click("#start")
    else:
        page.evaluate("void start()")
    page.wait_for_timeout(2500)
    frames, begin = page.evaluate("window.drawn"), time.perf_counter()
    page.wait_for_timeout(1000 * seconds)
    frames = page.evaluate("window.drawn") - frames
    rate = frames / (time.perf_counter() - begin)
    text = page.text_content("#times") if ours else ""
    if not ours:
        text = (
            f"send() {page.evaluate('network.sort((a, b) => a - b)[network.length >> 1]'):.0f} ms"
        )
    context.close()
    return first, sent / 1e6, rate, text


def take_screenshot(browser, address, path):
    """A sample portrait in the page, half of it before a drawn background."""
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
        "Speed of the browser page beside MediaPipe's selfie segmentation, in headless Chromium.",
        example="python -m benchmarks.web_speed",
    )
    parser.add_argument("--model_path", type=Path, default=web.MODEL_PATH, help="ONNX file")
    parser.add_argument("--rounds", type=int, default=3, help="times each page is opened")
    parser.add_argument("--seconds", type=int, default=5, help="that each camera is counted")
    parser.add_argument("--screenshot", type=Path, help="only write a picture of the page here")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    from playwright.sync_api import sync_playwright

    handler = functools.partial(PeerHandler, files=web.page_files(args.model_path))
    server = web.Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    candidates = {
        "PortraitNet, 1 thread": (f"{address}?backend=wasm&threads=1", True),
        "PortraitNet, 2 threads": (f"{address}?backend=wasm&threads=2", True),
    }
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
        for turn in range(args.rounds):
            for name, (url, ours) in candidates.items():
                result = measure(browser, url, args.seconds, ours)
                print(turn, name, *result, flush=True)
                results[name].append(result[:3])
        browser.close()
    server.shutdown()
    print(f"\n{heading(['page', 'first mask, s', 'first load, MB', 'frames/s'])}")
    for name, rows in results.items():
        first, size, rate = map(statistics.median, zip(*rows))
        print(row([name, f"{first:.1f}", f"{size:.1f}", f"{rate:.1f}"]))


if __name__ == "__main__":
    main()
