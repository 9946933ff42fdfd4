import cv2
import numpy as np
import pytest

import check
from data.alignment import contour_offset, edge_profile, inset, inside_distance
from data.lists import Pair

SIZE = 120


def blob(seed, grow=0.0):
    """An image of a dark, slightly blurred shape before a light, noisy background, and its mask
    with a contour that lies `grow` px outside the shape."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    middle, axes = rng.uniform(50, 70, 2), rng.uniform(20, 32, 2)
    shape = (((rows - middle[0]) / axes[0]) ** 2 + ((columns - middle[1]) / axes[1]) ** 2 < 1) * 1.0
    image = 200 - 120 * cv2.GaussianBlur(shape, (0, 0), 0.7)[..., None].repeat(3, axis=2)
    image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    return image, (inside_distance(shape.astype(np.uint8)) > -grow).astype(np.uint8)


def test_distances_are_signed_and_between_pixels():
    mask = np.zeros((3, 6), np.uint8)
    mask[:, 4:] = 1
    assert inside_distance(mask)[1].tolist() == [-3.5, -2.5, -1.5, -0.5, 0.5, 1.5]


@pytest.mark.parametrize("grow", [-2, -1, 0, 1, 2])
def test_the_offset_of_contours_is_found(grow):
    profiles = [edge_profile(*blob(seed, grow)) for seed in range(20)]
    assert contour_offset(profiles) == pytest.approx(grow, abs=0.3)  # grown by whole pixels, nearly


def test_no_profile_without_a_contour():
    image, mask = blob(0)
    assert edge_profile(image, np.zeros_like(mask)) is None
    assert edge_profile(image, np.ones_like(mask)) is None
    corner = np.zeros_like(mask)
    corner[0, 0] = 1
    assert edge_profile(image, corner) is None


@pytest.mark.parametrize("pixels", [-1.5, 0.5, 2])
def test_inset_moves_a_contour_and_keeps_the_rest(pixels):
    _, mask = blob(1)
    share = 255 * mask
    moved = inset(share, pixels)
    assert moved.dtype == np.uint8
    expected = inside_distance(mask) - pixels
    assert moved[expected > 1].min() >= 245 and moved[expected < -1].max() <= 10
    assert moved.sum() / 255 - mask.sum() == pytest.approx(
        ((expected > 0).sum() - (expected < 0).sum() - mask.sum() + (mask == 0).sum()) / 2,
        rel=0.15,
    )
    soft = cv2.GaussianBlur(share, (0, 0), 3)
    assert np.abs(inset(inset(soft, pixels), -pixels).astype(int) - soft).max() < 16
    assert np.abs(inset(soft, pixels).astype(int) - soft).max() > 16


def test_inset_leaves_the_frame_and_masks_without_a_contour():
    person = np.zeros((40, 40), np.uint8)
    person[10:, 10:30] = 255  # down to the lower side
    moved = inset(person, 2)
    assert (moved[-1] == moved[-8]).all() and moved[12, 20] == 255 and moved[10, 20] == 0
    for value in (0, 255):
        assert (inset(np.full((9, 9), value, np.uint8), 2) == value).all()


def test_check_says_where_the_contours_lie(tmp_path, capsys):
    root = tmp_path / "wide"
    root.mkdir()
    for seed in range(24):
        image, mask = blob(seed, 2)
        cv2.imwrite(str(root / f"{seed}.png"), image)
        cv2.imwrite(str(root / f"{seed}_mask.png"), 255 * mask)
    lines = [f"{seed}.png {seed}_mask.png\n" for seed in range(24)]
    (root / "train_list.txt").write_text("".join(lines))
    (root / "val_list.txt").write_text("".join(lines[:5]))
    check.main(["--data_root", str(root)])
    printed = capsys.readouterr().out
    assert f"{root} train: 24 pairs\n  contours 2.0 px outside the photos' edges" in printed
    assert printed.count("contours") == 1  # five photos say too little


def test_large_photos_are_reduced_first(tmp_path, monkeypatch):
    """A contour 4 px outside the edge lies 2 px outside in a photo of half the size."""
    monkeypatch.setattr(check, "SIDE", SIZE)
    profiles = []
    for seed in range(20):
        paths = [str(tmp_path / f"{seed}{name}.png") for name in ("", "_mask")]
        image, mask = blob(seed, 2)
        for path, picture in zip(paths, (image, 255 * mask)):
            cv2.imwrite(path, cv2.resize(picture, (2 * SIZE, 2 * SIZE)))
        profiles.append(check.check_pair(Pair(*paths), compare=True)[2])
    assert contour_offset(profiles) == pytest.approx(2, abs=0.3)
