"""The phone apps in examples/ have our constants and, if kotlinc is installed, our arithmetic."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import draw_portrait

import export
from apps.video import smoothing
from models import PortraitNetLite
from portraitnet import effects, images, postprocess
from portraitnet.geometry import input_shape, resize
from portraitnet.predictor import MEAN, SCALE

ROOT = Path(__file__).parent.parent
ANDROID, IOS = ROOT / "examples" / "android", ROOT / "examples" / "ios"
KOTLIN = ANDROID / "app" / "src" / "main" / "kotlin" / "org" / "portraitnet" / "blur"
SWIFT = IOS / "PortraitNetBlur"
APPS = {  # folder -> its sources with constants, how it writes one, where the file's name stands
    ANDROID: ([KOTLIN / "PortraitNet.kt", KOTLIN / "Postprocess.kt"], r"\bval (\w+) = (.+)"),
    IOS: (
        [SWIFT / "PortraitNet.swift", SWIFT / "Postprocess.swift"],
        r"^let (\w+)(?:: [\w\[\]]+)? = (.+)",
    ),
}
NODE, KOTLINC, JAVA = (shutil.which(name) for name in ("node", "kotlinc", "java"))


def constants(app):
    """{name: number, text or list of numbers} of an app's sources."""
    files, pattern = APPS[app]
    found = {}
    for file in files:
        for name, value in re.findall(pattern, file.read_text(), re.MULTILINE):
            if name.isupper():
                value = value.partition("//")[0].strip().removeprefix("floatArrayOf")
                value = re.sub(r"(?<=\d)f\b", "", value.replace("(", "[").replace(")", "]"))
                found[name] = json.loads(value)
    return found


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.name)
def test_constants_of_the_post_processing_are_ours(app):
    found, ours = constants(app), {}
    for module, names in (
        (smoothing, "FLOOR NOISE CHANGED DOUBT MOVED"),
        (postprocess, "GUIDE_SIDE GUIDE_RADIUS GUIDE_EPSILON CLEAR SOLID"),
        (postprocess, "APPLY_SIDE SPIKE SPECK SUPPORT"),
        (images, "THRESHOLD"),
        (effects, "BLUR_SIGMA"),
    ):
        ours |= {name: getattr(module, name) for name in names.split()}
    assert {name: found[name] for name in ours} == ours
    assert found["BLUR"] == effects.blur.__defaults__[0]


def command_of(app):
    """The flags of the command in an app's README that makes its model file."""
    line = re.search(r"^python export\.py (.+)$", (app / "README.md").read_text(), re.MULTILINE)
    return shlex.split(line[1])


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.name)
def test_constants_of_the_network_are_the_exports(app):
    found, args = constants(app), export.parse_args(command_of(app))
    assert len(args.formats) == 1
    metadata = export.describe(args.model_path, PortraitNetLite.size)
    assert found["MEAN"] == metadata["mean"] == list(MEAN)
    assert found["SCALE"] == metadata["scale"] == SCALE
    assert found["CHANNEL_ORDER"] == metadata["channel_order"]
    assert (found["INPUT_HEIGHT"], found["INPUT_WIDTH"]) == args.shape
    assert args.shape == input_shape(4, 3, PortraitNetLite.size)


def test_android_opens_the_exported_file():
    args = export.parse_args(command_of(ANDROID))
    assets = ANDROID / "app" / "src" / "main" / "assets"
    stem, size, shape = args.model_path.stem, PortraitNetLite.size, args.shape
    (path,) = export.export_paths(args.formats[0], args.output, stem, size, shape)
    assert ROOT / path == assets / constants(ANDROID)["MODEL_FILE"]


def test_ios_opens_the_exported_package():
    coreml_graph = pytest.importorskip("models.coreml_graph", exc_type=ImportError)
    found = constants(IOS)
    assert f"{found['MODEL_NAME']}.mlpackage" == coreml_graph.PACKAGE
    assert found["OUTPUT"] == coreml_graph.OUTPUT


KOTLIN_MAIN = """
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.portraitnet.blur.*

fun read(name: String, width: Int, height: Int, channels: Int): Picture {
    val buffer = ByteBuffer.wrap(File(name).readBytes()).order(ByteOrder.LITTLE_ENDIAN)
    val picture = Picture(width, height, channels)
    buffer.asFloatBuffer().get(picture.data)
    return picture
}

fun write(name: String, picture: Picture) {
    val buffer = ByteBuffer.allocate(4 * picture.data.size).order(ByteOrder.LITTLE_ENDIAN)
    buffer.asFloatBuffer().put(picture.data)
    File(name).writeBytes(buffer.array())
}

fun main(args: Array<String>) {
    val sizes = args.map { it.toInt() }
    val image = read("image", sizes[0], sizes[1], 3)
    val guide = read("guide", sizes[2], sizes[3], 3)
    val answer = read("answer", sizes[4], sizes[5], 1)
    val input = read("input", sizes[4], sizes[5], 3)
    val probability = guidedUpsample(answer, image, guide)
    write("probability", probability)
    write("blur", blur(image, probability))
    val smoother = Smoother()
    smoother.smooth(input, Picture(answer.width, answer.height, 1))
    write("still", smoother.smooth(input, answer))
    val other = Picture(answer.width, answer.height, 3, FloatArray(input.data.size) { 255f })
    write("cut", smoother.smooth(other, answer))
}
"""

NODE_MAIN = """
import { readFileSync, writeFileSync } from "node:fs";
import { blur } from "FOLDER/effects.js";
import * as pixels from "FOLDER/pixels.js";
import { makeSmoother } from "FOLDER/smoothing.js";
const sizes = process.argv.slice(2).map(Number);
const floats = (name) => new Float32Array(new Uint8Array(readFileSync(name)).buffer);
function color(name, width, height) {
  const given = floats(name);
  const image = pixels.picture(width, height, 4, new Uint8ClampedArray(4 * width * height));
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = given[3 * i + c];
    image.data[4 * i + 3] = 255;
  }
  return image;
}
const image = color("image", sizes[0], sizes[1]);
const guide = color("guide", sizes[2], sizes[3]);
const answer = pixels.picture(sizes[4], sizes[5], 1, floats("answer"));
const input = color("input", sizes[4], sizes[5]);
const probability = pixels.guidedUpsample(answer, image, guide);
writeFileSync("probability.js", probability.data);
writeFileSync("blur.js", blur(image, probability, { blur: 0.02, small: image }));
const smooth = makeSmoother();
smooth(input, pixels.picture(answer.width, answer.height, 1));
writeFileSync("still.js", smooth(input, answer).data);
input.data.fill(255);
writeFileSync("cut.js", smooth(input, answer).data);
"""


@pytest.mark.slow
@pytest.mark.skipif(not (NODE and KOTLINC and JAVA), reason="needs Node.js, Java and kotlinc")
def test_kotlin_computes_what_javascript_does(tmp_path, monkeypatch):
    (tmp_path / "Main.kt").write_text(KOTLIN_MAIN)
    page = (ROOT / "apps" / "web").as_uri()
    (tmp_path / "main.mjs").write_text(NODE_MAIN.replace("FOLDER", page))
    sources = [tmp_path / "Main.kt", KOTLIN / "Postprocess.kt"]
    command = [KOTLINC, *map(str, sources), "-include-runtime", "-d", str(tmp_path / "main.jar")]
    subprocess.run(command, check=True, cwd=tmp_path)
    for height, width, noise in (
        (300, 200, 0),
        (97, 160, 0),
        (128, 96, 0),
        (640, 480, 60),  # the apps' frame, in little light: spikes and specks
        (750, 1000, 60),  # larger than APPLY_SIDE
    ):
        rng = np.random.default_rng(height)
        image, mask = draw_portrait(rng, height, width)
        image = np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)
        guide = resize(image, *small_size(height, width))
        shape = input_shape(height, width, PortraitNetLite.size)
        answer = resize((mask * 255).astype(np.float32), *shape) / 255 * 0.98 + 0.01
        if noise:
            answer = cv2.GaussianBlur(answer, (0, 0), 8)  # a wide boundary
            for name in ("without_spikes", "without_specks"):
                assert matters(name, answer, image, monkeypatch), "the test would check nothing"
        pictures = {"image": image, "guide": guide, "input": resize(image, *shape)}
        for name, picture in pictures.items():
            picture[:, :, ::-1].astype(np.float32).tofile(tmp_path / name)
        answer.astype(np.float32).tofile(tmp_path / "answer")
        sizes = (width, height, guide.shape[1], guide.shape[0], shape[1], shape[0])
        for program in ([JAVA, "-cp", "main.jar", "MainKt"], [NODE, "main.mjs"]):
            subprocess.run([*program, *map(str, sizes)], check=True, cwd=tmp_path)
        for name in ("probability", "still", "cut"):
            one, other = (np.fromfile(tmp_path / file, np.float32) for file in (name, f"{name}.js"))
            assert np.ptp(other) > 0.5
            # Rounding may put a rise of STILL on either side, and a spike falls by that much more.
            assert np.abs(one - other).max() < constants(ANDROID)["STILL"] + 1e-3, name
            assert (np.abs(one - other) > 1e-3).mean() < 1e-4, name
        if noise:
            continue  # the page's blur averages areas where the apps' interpolates
        probability = np.fromfile(tmp_path / "probability", np.float32).reshape(height, width)
        one = np.fromfile(tmp_path / "blur", np.float32).reshape(height, width, 3)
        other = np.fromfile(tmp_path / "blur.js", np.uint8).reshape(height, width, 4)[:, :, :3]
        # In between, the page also takes the background's colour out of the person's.
        pure = (probability < postprocess.CLEAR) | (probability > postprocess.SOLID)
        assert np.abs(one - other)[pure].max() < 1


def matters(name, answer, image, monkeypatch):
    """Whether the post-processing's result is another one without this filter."""
    expected = postprocess.guided_upsample(answer, image)
    with monkeypatch.context() as patch:
        patch.setattr(postprocess, name, lambda refined, coarse: refined)
        kept = postprocess.guided_upsample(answer, image)
    return (np.abs(kept - expected) > 0.01).mean() > 1e-3


def small_size(height, width):
    ratio = min(1, postprocess.GUIDE_SIDE / max(height, width))
    return round(height * ratio), round(width * ratio)
