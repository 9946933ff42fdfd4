"""Every reader of files, given files that hypothesis damages: an answer or one sentence, no crash.

FUZZ_SECONDS=600 pytest -m slow tests/test_fuzz.py -s    (default: 20 seconds a reader)
"""

import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import draw_portrait, save_random_weights

from apps.web.__main__ import MODEL_PATH, Handler, page_files
from data.lists import read_pairs
from models.weights import load_model
from portraitnet import images
from portraitnet.backends import load
from portraitnet.files import check_sha256

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import strategies as st  # noqa: E402

SECONDS = float(os.environ.get("FUZZ_SECONDS", 20))
ROOT = Path(__file__).parent.parent
RIGHT = (OSError, ValueError)  # errors that are a sentence


def damaged(seeds):
    """Strategy: one of some files, cut, with bytes changed, doubled or put in; or any bytes."""

    def change(parts):
        seed, start, end, edits, more = parts
        data = bytearray(seeds[seed])
        data = data[int(start * len(data)) : len(data) - int(end * len(data))]
        for place, value in edits:
            if data:
                data[int(place * (len(data) - 1))] = value
        return bytes(data + more)

    fraction = st.one_of(st.just(0.0), st.just(0.0), st.floats(0, 1))
    head = st.one_of(st.floats(0, 0.02), st.floats(0, 1))  # rather in the header
    edits = st.lists(st.tuples(head, st.integers(0, 255)), max_size=12)
    parts = st.tuples(
        st.integers(0, len(seeds) - 1), fraction, fraction, edits, st.binary(max_size=8)
    )
    return st.one_of(parts.map(change), st.binary(max_size=200))


def pictures():
    image = draw_portrait(np.random.default_rng(0), 24, 20)[0]
    alpha = np.dstack([image, image[:, :, :1]])
    deep = image.astype(np.uint16) * 257
    seeds = [(s, image) for s in (".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm", ".gif")]
    seeds += [(".png", alpha), (".webp", alpha), (".png", deep), (".tiff", deep)]
    return [cv2.imencode(suffix, picture)[1].tobytes() for suffix, picture in seeds]


def weights(folder):
    path = folder / "seed.pdparams"
    save_random_weights(path)
    return [path.read_bytes()]


def onnx_files(folder):
    pytest.importorskip("onnxruntime")
    path = ROOT / "weights" / "portraitnet_lite.onnx"
    if not path.exists():
        pytest.skip("no weights in weights/")
    return [path.read_bytes()]


def answer(path):
    """Load an ONNX file and run it."""
    batch = np.zeros((1, 3, 32, 32), np.float32)
    return load(path, "onnx", threads=1).run_batch(batch)


def address(path):
    handler = Handler.__new__(Handler)
    handler.files, handler.path = page_files(MODEL_PATH), path.read_bytes().decode("latin-1")
    assert handler.file() in (None, *handler.files.items())


LISTS = ["a.png b.png\nc d.png\te.png\n".encode(e) for e in ("utf-8", "utf-16", "utf-8-sig")]
SUMS = [f"{'0' * 64}  f\n{'A' * 64} *g\nSHA256 (h) = {'1' * 64}\n".encode()]
TARGETS = [b"/model.onnx.gz", b"/main.js?x=1", b"http://[::1]/", b"/%2e%2e/%2e%2e/etc/passwd"]
READERS = {  # name -> seeds, reader of a path
    "photo": (lambda folder: pictures(), images.read_image),
    "mask": (lambda folder: pictures(), images.read_mask),
    "soft mask": (lambda folder: pictures(), images.read_alpha),
    "list": (lambda folder: LISTS, lambda path: read_pairs(path.parent, path)),
    "sums": (lambda folder: SUMS, check_sha256),
    "address": (lambda folder: TARGETS, address),
    "weights": (weights, load_model),
    "onnx": (onnx_files, answer),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_reader_answers_or_says_a_sentence(name, tmp_path):
    seeds, read = READERS[name]
    path, executions, answered = tmp_path / "file", 0, 0
    if name == "sums":
        (tmp_path / "SHA256SUMS").touch()
    end = time.perf_counter() + SECONDS

    @hypothesis.given(damaged(seeds(tmp_path)))
    @hypothesis.settings(
        max_examples=200,  # and again, until the time is over
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def attempt(data):
        nonlocal executions, answered
        if time.perf_counter() > end:
            return
        target = tmp_path / "SHA256SUMS" if name == "sums" else path
        target.write_bytes(data)
        if name == "sums":
            path.touch()
        executions += 1
        try:
            read(path)
            answered += 1
        except RIGHT as error:
            assert str(error)

    while time.perf_counter() < end:
        attempt()
    assert executions > SECONDS / 2
    print(f"\nfuzz {name}: {executions} executions, {answered} of them could be read")
