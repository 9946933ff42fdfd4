"""Frames of the page's finished picture (apps/web/frames.js, compose.js, save.js) by hand."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from test_web import run_node

MEASURE = """
import { readFileSync } from "node:fs";
import { frameOf, guidesOf, measure } from "FOLDER/frames.js";
import { picture } from "FOLDER/pixels.js";
const { width, height, frames } = JSON.parse(readFileSync("in.json"));
const data = Float32Array.from(readFileSync("mask"));
const person = measure(picture(width, height, 1, data), 0.5);
console.log(JSON.stringify([person, frames.map((values) => {
  const [name, margin, inside] = values;
  return [frameOf(name, { width, height }, person, margin, inside), guidesOf(name)];
})]));
"""


def frames(folder, mask, *frames):
    height, width = mask.shape
    (folder / "mask").write_bytes(mask.astype(np.uint8).tobytes())
    given = {"width": width, "height": height, "frames": frames}
    (folder / "in.json").write_text(json.dumps(given))
    return json.loads(run_node(folder, MEASURE))


def draw_person(width=200, height=240, x=100, top=40, head=60):
    """A head of `head` pixels to the chin, a neck, and shoulders to the lower edge."""
    mask = np.zeros((height, width), np.uint8)
    centre = (x, top + head // 2)
    cv2.ellipse(mask, centre, (int(0.38 * head), head // 2), 0, 0, 360, 1, -1)
    cv2.rectangle(mask, (x - head // 5, top + head // 2), (x + head // 5, top + head + 14), 1, -1)
    cv2.ellipse(mask, (x, height), (70, height - top - head - 12), 0, 0, 360, 1, -1)
    return mask


def test_the_head_is_measured(tmp_path):
    person, _ = frames(tmp_path, draw_person())
    assert person["box"] == {"left": 30, "top": 40, "right": 171, "bottom": 240}
    assert person["head"]["x"] == pytest.approx(100, abs=1.5)
    assert person["head"]["height"] == pytest.approx(60, rel=0.1)


def test_a_head_without_a_neck_has_the_usual_proportions(tmp_path):
    mask = np.zeros((300, 200), np.uint8)
    mask[50:, 60:140] = 1  # long hair: as wide everywhere
    person, _ = frames(tmp_path, mask)
    assert person["head"] == {"x": pytest.approx(100, abs=1), "top": 50, "height": 1.3 * 80}


def test_frames_by_hand(tmp_path):
    mask = np.zeros((240, 200), np.uint8)
    mask[40:, 60:140] = 1  # 80 x 200, cut off below: the head is 104 pixels tall
    _, found = frames(
        tmp_path,
        mask,
        ("photo", 0, False),
        ("person", 0.1, False),
        ("person", 0.5, True),
        ("square", 0, False),
        ("35x45", 0, False),
        ("2x2in", 0, False),
        ("25x35", 0, False),
    )
    photo, person, inside, square, passport, american, small = (frame for frame, _ in found)
    assert photo == {"width": 200, "height": 240, "scale": 1, "x": 0, "y": 0}
    # A margin of 20 pixels, but none below, where the photo ends.
    assert person == {"width": 120, "height": 220, "scale": 1, "x": -40, "y": -20}
    assert inside == {"width": 180 + 20, "height": 240, "scale": 1, "x": 0, "y": 0}
    assert square == {"width": 200, "height": 200, "scale": 1, "x": 0, "y": -4}
    pixels = 300 / 25.4  # per millimetre
    assert (passport["width"], passport["height"]) == (413, 531)
    assert (american["width"], american["height"]) == (600, 600)
    assert (small["width"], small["height"]) == (295, 413)
    for (frame, guides), crown, shortest, longest, size in (
        (found[4], 4, 31.5, 36, 45),
        (found[5], 5, 25.4, 34.9, 50.8),
    ):
        assert guides["crown"] == pytest.approx(crown / size)
        assert guides["chin"] == [
            pytest.approx((crown + head) / size) for head in (shortest, longest)
        ]
        assert frame["y"] + frame["scale"] * 40 == pytest.approx(crown * pixels, abs=0.5)
        assert frame["scale"] * 104 == pytest.approx((shortest + longest) / 2 * pixels, abs=0.5)
        assert frame["x"] + frame["scale"] * 100 == pytest.approx(frame["width"] / 2, abs=3)
    assert found[0][1] is None and found[6][1] is None


def test_a_photo_of_nobody_has_every_frame(tmp_path):
    mask = np.zeros((30, 20), np.uint8)
    names = "photo person square circle 35x45 2x2in 25x35".split()
    person, found = frames(tmp_path, mask, *((name, 0.1, False) for name in names))
    assert person is None
    assert all(frame["width"] > 0 and frame["height"] > 0 for frame, _ in found)


MATRIX = """
import { matrixOf } from "FOLDER/compose.js";
const frame = { width: 100, height: 50, scale: 2, x: 10, y: -20 };
const pivot = { x: 15, y: 20 }; // at (40, 20) of the frame
const places = [[1, 0, 0, 0], [3, 0, 0, 0], [1, 90, 0, 0], [1, 0, 0.1, 0.2], [2, 90, 0.5, 0]];
console.log(JSON.stringify(places.map(([scale, angle, x, y]) => {
  const [a, b, c, d, e, f] = matrixOf(frame, { scale, angle, x, y }, pivot);
  return [[15, 20], [20, 20]].map(([u, v]) => [a * u + c * v + e, b * u + d * v + f]);
})));
"""


def test_a_moved_person_by_hand(tmp_path):
    """Where the pivot and a point 5 pixels right of it come to."""
    found = json.loads(run_node(tmp_path, MATRIX))
    expected = [
        [[40, 20], [50, 20]],
        [[40, 20], [70, 20]],
        [[40, 20], [40, 30]],
        [[50, 30], [60, 30]],
        [[90, 20], [90, 40]],
    ]
    assert np.allclose(found, expected)


RESOLUTION = """
import { readFileSync, writeFileSync } from "node:fs";
import { withResolution } from "FOLDER/save.js";
for (const type of ["png", "jpeg", "webp"]) {
  const blob = await withResolution(new Blob([readFileSync(type)], { type: `image/${type}` }), 300);
  if (blob.type !== `image/${type}`) throw new Error(blob.type);
  writeFileSync(`new.${type}`, new Uint8Array(await blob.arrayBuffer()));
}
"""


def test_printed_pictures_have_their_resolution(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    for kind in ("png", "jpeg", "webp"):
        Image.fromarray(image).save(tmp_path / kind, kind)
    run_node(tmp_path, RESOLUTION)
    for kind in ("png", "jpeg"):
        with Image.open(tmp_path / f"new.{kind}") as new, Image.open(tmp_path / kind) as old:
            assert np.round(new.info["dpi"]).tolist() == [300, 300]
            new.verify() if kind == "png" else None  # checks the chunks' sums
        with Image.open(tmp_path / f"new.{kind}") as new, Image.open(tmp_path / kind) as old:
            assert (np.asarray(new) == np.asarray(old)).all()
    assert (tmp_path / "new.webp").read_bytes() == (tmp_path / "webp").read_bytes()
