"""The page's brush (apps/web/brush.js): what a stroke covers, and what it does to a mask."""

import json

import numpy as np
import pytest
from test_web import run_node

SCRIPT = """
import { readFileSync } from "node:fs";
import { coverOf, makeMender } from "FOLDER/brush.js";
import { picture } from "FOLDER/pixels.js";
const { width, height, strokes, turns } = JSON.parse(readFileSync("in.json"));
const image = picture(width, height, 4, new Uint8ClampedArray(readFileSync("image")));
const probability = picture(width, height, 1, new Float32Array(width * height).fill(0.25));
const mend = makeMender(image, probability);
const results = turns.map((turn) => {
  mend(turn.map((id) => ({ id, ...strokes[id] })));
  return [...probability.data];
});
console.log(JSON.stringify(results));
"""
FLAT = np.full((40, 60, 3), 128, np.uint8)


def stroke(*points, radius=8, softness=0, erase=False, follow=False):
    points = [list(point) for point in points]
    return {"points": points, "radius": radius, "softness": softness} | {
        "erase": erase,
        "follow": follow,
    }


def mend(folder, image, strokes, turns=None):
    """The probability after each turn, a list of strokes' indices; it is 0.25 before."""
    height, width = image.shape[:2]
    (folder / "image").write_bytes(
        np.dstack([image, np.full((height, width), 255)]).astype(np.uint8)
    )
    turns = turns or [list(range(len(strokes)))]
    given = {"width": width, "height": height, "strokes": strokes, "turns": turns}
    (folder / "in.json").write_text(json.dumps(given))
    return np.reshape(json.loads(run_node(folder, SCRIPT)), (-1, height, width))


def test_a_hard_stroke_by_hand(tmp_path):
    """A brush of radius 2 at a pixel's corner reaches 4 pixels fully, 8 others by its soft rim."""
    (found,) = mend(tmp_path, FLAT[:6, :6], [stroke((3, 3), radius=2)])
    near, far = np.hypot(0.5, 0.5) / 2, np.hypot(1.5, 0.5) / 2  # of a pixel's centre, in radii
    assert near < 0.5 < far < 1  # the rim is one pixel wide
    rest = (1 - far) / 0.5
    near, far = 1, np.round(255 * (rest**2 * (3 - 2 * rest))) / 255
    expected = np.array([[0, far, far, 0], [far, near, near, far]])
    expected = 0.25 + 0.75 * np.vstack([expected, expected[::-1]])
    assert np.allclose(found[1:5, 1:5], expected, atol=1e-6)
    found[1:5, 1:5] = 0.25
    assert (found == 0.25).all()


def test_restore_and_erase_reach_the_radius_and_no_farther(tmp_path):
    for erase, value in ((False, 1), (True, 0)):
        (found,) = mend(tmp_path, FLAT, [stroke((20, 20), (40, 20), erase=erase)])
        y, x = np.mgrid[:40, :60] + 0.5
        distance = np.hypot(x - np.clip(x, 20, 40), y - 20)
        assert np.allclose(found[distance <= 6.5], value)
        assert (found[distance >= 8] == 0.25).all()


def test_softness_widens_the_rim(tmp_path):
    (hard,), (soft,) = (
        mend(tmp_path, FLAT, [stroke((30, 20), softness=softness)]) for softness in (0, 1)
    )
    assert hard[20, 35] == 1 and 0.3 < soft[20, 35] < 0.7
    assert (soft <= hard + 1e-6).all() and soft[20, 30] > 0.95


def test_a_stroke_outside_the_photo_changes_nothing(tmp_path):
    (found,) = mend(tmp_path, FLAT, [stroke((-50, -50), follow=True), stroke((90, 20))])
    assert (found == 0.25).all()


@pytest.mark.parametrize("roughness", [0, 12])
@pytest.mark.parametrize("size", [1, 10])
def test_a_stroke_that_follows_edges_stops_at_a_contour(tmp_path, roughness, size):
    """The brush reaches 6 pixels (times the size) over the contour between dark and light."""
    rng = np.random.default_rng(0)
    image = np.where(np.arange(60 * size) < 30 * size, 70, 150)[None, :, None]
    image = image + rng.normal(0, roughness, (40 * size, 60 * size, 3))
    image = np.clip(image, 0, 255).astype(np.uint8)
    path = (24 * size, 12 * size), (24 * size, 28 * size)
    (found,) = mend(tmp_path, image, [stroke(*path, radius=12 * size, follow=True)])
    inside = np.s_[10 * size : 30 * size, 15 * size : 29 * size]
    beyond = np.s_[:, 31 * size :]
    assert (found[inside] > 0.5).mean() > 0.97, "the stroke has holes"
    assert (found[beyond] > 0.5).mean() < 0.01, "the stroke crosses the contour"
    (found,) = mend(tmp_path, image, [stroke(*path, radius=12 * size)])
    assert (found[beyond] > 0.5).mean() > 0.05, "the test would check nothing"


def test_undo_and_redo_are_exact(tmp_path):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (40, 60, 3)).astype(np.uint8)
    points = rng.uniform(0, 40, (4, 3, 2)).tolist()
    strokes = [
        stroke(*path, softness=0.5, erase=i % 2 == 1, follow=i > 1) for i, path in enumerate(points)
    ]
    turns = [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1], [], [0, 1, 2, 3], [0, 2]]
    found = mend(tmp_path, image, strokes, turns)
    assert (found[0] == 0.25).all() and (found[6] == 0.25).all()
    assert len({result.tobytes() for result in found[:5]}) == 5
    assert (found[5] == found[2]).all() and (found[7] == found[4]).all()
    assert (found[8] == mend(tmp_path, image, strokes, [[0, 2]])[0]).all()
