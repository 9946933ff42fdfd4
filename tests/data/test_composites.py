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
