"""Composites of cut-out people and photos without people."""

import cv2
import numpy as np
import pytest

from data import composites
from data.lists import read_lists
from portraitnet.images import read_image, read_mask

RED = (0, 0, 255, 255)


def person(height=60, width=24):
    """A red figure with a transparent frame."""
    cutout = np.zeros((height, width, 4), np.uint8)
    cutout[4:-4, 4:-4] = RED
    return cutout


@pytest.fixture
def folders(tmp_path):
    for name in ("cutouts", "backgrounds"):
        (tmp_path / name).mkdir()
    for i in range(9):
        cv2.imwrite(str(tmp_path / "cutouts" / f"{i}.png"), person())
    for i in range(11):
        cv2.imwrite(str(tmp_path / "backgrounds" / f"{i}.png"), np.full((50, 70, 3), 90, np.uint8))
    return tmp_path


def run(folders, *flags):
    return composites.main([f"{folders / 'cutouts'}", "--backgrounds",
                            f"{folders / 'backgrounds'}", "--output", f"{folders / 'made'}",
                            "--count", "5", *flags])  # fmt: skip


def test_the_person_stands_where_it_was_put():
    image, alpha = np.full((100, 80, 3), 90, np.float32), np.zeros((100, 80), np.float32)
    composites.paste(image, alpha, person(), 60, 40, 100, np.random.default_rng(0))
    rows, columns = np.nonzero(alpha > 0.5)
    assert (rows.min(), rows.max()) == (44, 95) and (columns.min(), columns.max()) == (32, 47)
    assert (image[alpha == 0] == 90).all()
    blue, green, red = image[70, 40]
    assert red > 100 and blue < 20 and green < 20


def test_people_overlap_without_being_added():
    image, alpha = np.full((100, 80, 3), 90, np.float32), np.zeros((100, 80), np.float32)
    for _ in range(2):
        composites.paste(image, alpha, person(), 60, 40, 100, np.random.default_rng(0))
    assert alpha.max() == 1


def test_a_person_outside_changes_nothing():
    image, alpha = np.full((100, 80, 3), 90, np.float32), np.zeros((100, 80), np.float32)
    composites.paste(image, alpha, person(), 60, 500, 100, np.random.default_rng(0))
    assert (image == 90).all() and not alpha.any()


def scene(grey=90):
    """An empty picture (100, 80) and its alpha."""
    return np.full((100, 80, 3), grey, np.float32), np.zeros((100, 80), np.float32)


@pytest.mark.parametrize("height, columns", [(30, 12), (10, 4)])
def test_a_person_keeps_its_proportions(height, columns):
    image, alpha = scene()
    whole = np.full((60, 24, 4), RED, np.uint8)
    composites.paste(image, alpha, whole, height, 40, 90, np.random.default_rng(0))
    seen = np.nonzero(alpha > 0.5)
    assert [np.ptp(axis) + 1 for axis in seen] == [height, columns] and seen[0].max() == 89


def test_half_of_the_people_are_mirrored():
    left, half = 0, person()
    half[:, 12:] = 0
    for seed in range(40):
        image, alpha = scene()
        composites.paste(image, alpha, half, 60, 40, 100, np.random.default_rng(seed))
        left += alpha[:, :40].any()
        assert alpha[:, :40].any() != alpha[:, 40:].any()
    assert 10 < left < 30


def test_a_person_comes_closer_to_the_light_of_its_place():
    grey = np.full((60, 24, 4), (200, 200, 200, 255), np.uint8)
    seen = []
    for seed in range(40):
        image, alpha = scene(50)
        composites.paste(image, alpha, grey, 60, 40, 100, np.random.default_rng(seed))
        seen.append(image[70, 40, 0])
    # 0.8 to 1.15 times as bright, and up to (51 / 201)**0.45 = 0.54 of that in a dark place
    assert 200 * 0.8 * 0.54 < min(seen) < 130 and 190 < max(seen) < 200 * 1.15


def test_where_people_stand(monkeypatch):
    found = []
    monkeypatch.setattr(composites, "SIDE", 100)
    monkeypatch.setattr(composites, "paste", lambda *arguments: found.append(arguments))
    background, few, many = np.zeros((90, 90, 3), np.uint8), [], []
    for seed in range(400):
        found.clear()
        composites.compose([person()], background, np.random.default_rng(seed))
        height, width = found[0][0].shape[:2]
        here = [(tall / height, center / width, bottom / height)
                for _, _, _, tall, center, bottom, _ in found]  # fmt: skip
        (few if len(here) == 1 else many).append(here)
    assert 160 < len(few) < 240 and {len(here) for here in many} == {2, 3, 4}
    alone = [center for ((_, center, _),) in few]
    assert 0.15 <= min(alone) < 0.18 and 0.82 < max(alone) <= 0.85
    for here in many:  # each in its own part of the picture
        for place, center in enumerate(sorted(center for _, center, _ in here)):
            assert place + 0.2 <= center * len(here) <= place + 0.8
    feet = {True: [], False: []}
    for tall, _, bottom in sum(few + many, []):
        if tall < 0.9 * 0.75 or tall > 0.9 * 1.2:  # surely small, surely large
            feet[tall < 0.9].append(bottom)
            assert bottom >= min(1, 0.95 * tall)
    assert 0.75 <= min(feet[True]) < 0.77 and 1 < max(feet[True]) <= 1.02
    assert 1 <= min(feet[False]) < 1.02 and 1.3 < max(feet[False]) <= 0.4 + 0.75 * 1.5


def test_a_composite_depends_on_its_generator_alone():
    background = np.random.default_rng(1).integers(0, 255, (200, 300, 3), np.uint8)
    made = [composites.compose([person()], background, np.random.default_rng(7)) for _ in range(2)]
    assert (made[0][0] == made[1][0]).all() and (made[0][1] == made[1][1]).all()
    assert max(made[0][0].shape) == composites.SIDE


def test_the_command_makes_a_data_folder(folders):
    assert run(folders) == 0
    (pairs,) = read_lists(folders / "made").values()
    assert len(pairs) == 5 and all(pair.soft for pair in pairs)
    image, mask = read_image(pairs[0].image_path), read_mask(pairs[0].mask_path)
    assert image.shape[:2] == mask.shape and 0 < mask.mean() < 1


def test_held_out_cutouts_are_for_validation(folders, capsys):
    assert run(folders, "--split", "val") == 0
    assert "5 composites of 2 cut-outs" in capsys.readouterr().out  # numbers 0 and 8
    (pairs,) = read_lists(folders / "made").values()
    assert set(np.unique(cv2.imread(str(pairs[0].mask_path), 0))) == {0, 255}


def test_mistakes_are_one_sentence(folders, capsys):
    assert run(folders) == 0 and run(folders) == 1
    assert "exists already" in capsys.readouterr().err
    cv2.imwrite(str(folders / "cutouts" / "3.png"), np.zeros((9, 9, 3), np.uint8))
    (folders / "made").rename(folders / "old")
    assert run(folders) == 1
    assert "3.png has no transparency" in capsys.readouterr().err
    assert not (folders / "made").exists()
