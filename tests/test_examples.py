"""The examples, which users copy into their programs, give the same results as this project."""

import ast
import json
import os
import runpy
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest

from benchmarks.web_speed import CHROMIUM, FLAGS
from models import PortraitNet
from portraitnet.effects import matte
from portraitnet.geometry import SIZE, input_shape, resize
from portraitnet.images import read_image
from portraitnet.predictor import Predictor, to_batch
from training.checkpoints import MODEL_PATH, open_predictor

ROOT = Path(__file__).parent.parent
EMBED, PORTRAIT = ROOT / "examples" / "embed.py", ROOT / "examples" / "portrait.jpg"
ONNX = MODEL_PATH.with_suffix(".onnx")
NODE, RUNTIME = shutil.which("node"), ROOT / "apps" / "web" / "node_modules" / "onnxruntime-web"
SHAPES = [(h, w) for h in (1, 64, 333, 640, 1080) for w in (17, 64, 480, 641, 1920)]
LEVELS = np.linspace(0, 1, 21, dtype=np.float32)

pytestmark = pytest.mark.skipif(not ONNX.is_file(), reason="no weights in weights/")


@pytest.fixture(scope="module")
def embed():
    pytest.importorskip("onnxruntime")
    return runpy.run_path(str(EMBED))


def test_embed_needs_three_packages_and_nothing_of_this_project():
    imported = set()
    for node in ast.walk(ast.parse(EMBED.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert imported - sys.stdlib_module_names == {"cv2", "numpy", "onnxruntime"}


@pytest.mark.parametrize("shape", [(640, 640), (480, 640), (100, 60)])
def test_embed_gives_predictors_probability(embed, shape):
    image = resize(read_image(PORTRAIT), *shape)
    expected = Predictor(ONNX, "onnx", refine=False).probability(image)
    session = embed["onnxruntime"].InferenceSession(str(ONNX))
    assert np.abs(embed["predict"](session, image) - expected).max() < 1e-5
    assert 0.3 < (expected > 0.5).mean() < 0.7


def test_embed_has_predictors_input_shapes(embed):
    for shape in SHAPES:
        assert embed["input_shape"](*shape) == input_shape(*shape, SIZE), shape


def test_embed_has_our_matte(embed):
    assert np.allclose(embed["matte"](LEVELS), matte(LEVELS), atol=1e-6)


def test_embed_cuts_the_person_out(embed, tmp_path):
    command = [sys.executable, str(EMBED), str(PORTRAIT), str(tmp_path / "cutout.png")]
    env = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    (tmp_path / "home").mkdir()
    home = {name: str(tmp_path / "home") for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    subprocess.run(command, check=True, cwd=ROOT, env=env | home)
    assert not list((tmp_path / "home").iterdir())  # ONNX Runtime notes nothing for its makers
    picture = cv2.imread(str(tmp_path / "cutout.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(picture[:, :, :3], read_image(PORTRAIT))
    assert picture[5, 5, 3] == 0 and picture[320, 320, 3] == 255


@pytest.mark.skipif(NODE is None, reason="needs Node.js")
def test_embed_js_has_predictors_input_shapes_and_our_matte():
    url = json.dumps((ROOT / "examples" / "embed.js").as_uri())
    code = f"""const {{ inputShape, matte }} = await import({url});
        const inputs = {json.dumps(SHAPES)}.map((shape) => inputShape(...shape));
        console.log(JSON.stringify([inputs, {json.dumps(LEVELS.tolist())}.map(matte)]))"""
    command = [NODE, "--input-type=module", "-e", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    inputs, mattes = json.loads(done.stdout)
    assert inputs == [list(input_shape(*shape, SIZE)) for shape in SHAPES]
    assert np.allclose(mattes, matte(LEVELS), atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(
    not (CHROMIUM and RUNTIME.is_dir()), reason="needs Chromium and `npm ci --prefix apps/web`"
)
def test_embed_js_gives_predictors_probability(tmp_path):
    """Exact on a network input, which is not resized; on a photo the browser resizes otherwise."""
    playwright = pytest.importorskip("playwright.sync_api")
    image = read_image(PORTRAIT)
    network_input = resize(image, *input_shape(*image.shape[:2], SIZE))
    cv2.imwrite(str(tmp_path / "input.png"), network_input)
    shutil.copy(PORTRAIT, tmp_path / "photo.jpg")
    for name, path in (("examples", ROOT / "examples"), ("ort", RUNTIME), ("weights", ONNX.parent)):
        (tmp_path / name).symlink_to(path)
    (tmp_path / "index.html").write_text("<!DOCTYPE html>")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = """async (name) => {
        const ort = await import('/ort/dist/ort.wasm.bundle.min.mjs');
        ort.env.wasm.numThreads = 1;
        const { predict, cutOut } = await import('/examples/embed.js');
        const session = await ort.InferenceSession.create('/weights/portraitnet.onnx');
        const image = new Image();
        image.src = name;
        await image.decode();
        const { h, w, probability } = await predict(ort, session, image);
        const canvas = await cutOut(ort, session, image);
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        const alpha = [...data].filter((_, i) => i % 4 == 3);
        return { h, w, probability: [...probability], alpha };
    }"""
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        answers = {name: page.evaluate(code, name) for name in ("input.png", "photo.jpg")}
        browser.close()
    server.shutdown()
    predictor = Predictor(ONNX, "onnx", refine=False)
    expected = predictor.run([predictor.prepare(image)])[0]
    for name, limit in (("input.png", 1e-4), ("photo.jpg", 0.01)):
        answer = answers[name]
        found = np.float32(answer["probability"]).reshape(answer["h"], answer["w"])
        assert np.abs(found - expected).mean() < limit, name
    alpha = np.array(answers["photo.jpg"]["alpha"]).reshape(image.shape[:2])
    assert alpha[5, 5] == 0 and alpha[320, 320] == 255


@pytest.mark.parametrize("pretrained", [True, False])
def test_paddle_hub_gives_the_network(pretrained):
    network = paddle.hub.load(str(ROOT), "portraitnet", source="local", pretrained=pretrained)
    assert type(network).__name__ == PortraitNet.__name__ and network.training is not pretrained
    if pretrained:
        image = read_image(PORTRAIT)
        predictor = open_predictor(MODEL_PATH, "paddle")
        batch = to_batch([predictor.prepare(image)])
        found = network.probability(paddle.to_tensor(batch)).numpy()
        assert np.abs(found - predictor.run_batch(batch)).max() < 1e-5
    assert paddle.hub.list(str(ROOT), source="local") == ["portraitnet"]
