"""check.py: every problem is named, and no good data set has one."""

import shutil

import cv2
import numpy as np
import pytest
from conftest import draw_blob, grid

import check
from data.alignment import contour_offset
from data.lists import Pair
from portraitnet.images import read_mask, write_image


def test_a_soft_mask_of_0_and_1_is_named(soft_root, capsys):
    assert check.main(["--data_root", str(soft_root)]) == 0
    write_image(soft_root / "mask.png", np.eye(90, dtype=np.uint8))
    assert check.main(["--data_root", str(soft_root)]) == 1
    assert "no soft mask" in capsys.readouterr().out


def test_a_good_data_set_has_no_problem(data_root, list_root, capsys):
    assert check.main(["--data_root", str(data_root), str(list_root)]) == 0
    output = capsys.readouterr().out
    assert f"{data_root} train: 12 pairs\n" in output
    assert "0 problems in 40 pairs" in output
    assert check.main(["--data_root", str(data_root), "--split", "val"]) == 0
    assert "0 problems in 4 pairs" in capsys.readouterr().out


def test_every_problem_is_named(data_root, capsys):
    images, labels = data_root / "Images", data_root / "Labels"
    (images / "00000.png").unlink()
    (labels / "00001.png").write_bytes(b"no picture")
    cv2.imwrite(str(labels / "00002.png"), np.ones((5, 6), np.uint8) * np.eye(5, 6, dtype=np.uint8))
    cv2.imwrite(str(labels / "00003.png"), np.zeros((96, 80), np.uint8))
    cv2.imwrite(str(labels / "00004.png"), np.full((96, 80), 255, np.uint8))
    shutil.copy(images / "00005.png", images / "00013.png")  # train and val
    cv2.imwrite(str(labels / "00013.png"), read_mask(labels / "00005.png") * 255)
    assert check.main(["--data_root", str(data_root)]) == 1
    output = capsys.readouterr().out
    for line in (
        f"missing: {images / '00000.png'}",
        f"unreadable: {labels / '00001.png'}",
        f"different sizes: {images / '00002.png'} and {labels / '00002.png'}, 80x96 and 6x5",
        f"empty mask: {labels / '00003.png'}",
        f"full mask: {labels / '00004.png'}",
        f"duplicate: {images / '00013.png'} (val) has the content of "
        f"{images / '00005.png'} (train)",
        "6 problems in 20 pairs",
    ):
        assert line in output


def test_inverted_masks_and_pairs_listed_twice_are_named(data_root, capsys):
    label, image = data_root / "Labels" / "00002.png", data_root / "Images" / "00013.png"
    cv2.imwrite(str(label), 255 - 255 * read_mask(label))
    with open(data_root / "eg1800_train.txt", "a") as file:
        file.write("00013.png\n")
    assert check.main(["--data_root", str(data_root), f"{data_root}"]) == 1
    message = capsys.readouterr().out
    assert f"inverted mask? {label}: the frame is mostly person" in message
    assert f"listed twice: {image} (val) and {image} (train)" in message
    assert "2 problems in 21 pairs" in message


def test_a_folder_without_lists_is_one_sentence(tmp_path, capsys):
    assert check.main(["--data_root", str(tmp_path)]) == 1
    assert "has no list of photos" in capsys.readouterr().err


def test_the_contours_offset_is_printed(tmp_path, capsys):
    root = tmp_path / "wide"
    root.mkdir()
    for seed in range(24):
        image, mask = draw_blob(seed, 2)
        cv2.imwrite(str(root / f"{seed}.png"), image)
        cv2.imwrite(str(root / f"{seed}_mask.png"), 255 * mask)
    lines = [f"{seed}.png {seed}_mask.png\n" for seed in range(24)]
    (root / "train_list.txt").write_text("".join(lines))
    (root / "val_list.txt").write_text("".join(lines[:5]))
    check.main(["--data_root", str(root)])
    printed = capsys.readouterr().out
    assert f"{root} train: 24 pairs\n  contours 2.0 px outside the photos' edges" in printed
    assert printed.count("  contours ") == 1  # five photos are too few


def test_large_photos_are_reduced_before_their_contours_are_compared(tmp_path, monkeypatch):
    """A contour 4 px outside the edge lies 2 px outside in a photo of half the size."""
    monkeypatch.setattr(check, "SIDE", 120)
    profiles = []
    for seed in range(20):
        paths = [str(tmp_path / f"{seed}{name}.png") for name in ("", "_mask")]
        image, mask = draw_blob(seed, 2)
        for path, picture in zip(paths, (image, 255 * mask)):
            cv2.imwrite(path, cv2.resize(picture, (240, 240)))
        profiles.append(check.check_pair(Pair(*paths), compare=True)[2])
    assert contour_offset(profiles) == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize(
    ("mask", "inverted"),
    [
        ("1111 1001 1001 1111", True),  # a person as a hole in the middle
        ("1111 1001 1001 1001", True),  # and one that leaves the photo below
        ("0000 0110 0110 1111", False),
        ("0000 1111 1111 1111", False),  # a large person below a strip of background
        ("0001 1001 1001 1111", False),  # a frame of person, but background at the top
        ("0011 1001 1001 1111", False),  # half of the top row is not most of it
        ("1111 1111 1111 1111", False),  # frame and inside are alike
    ],
)
def test_a_mask_is_inverted_if_frame_and_top_row_are_mostly_person(mask, inverted):
    assert check.is_inverted(grid(mask) == 1) == inverted


def test_a_pair_has_problems_digest_and_profile(data_root):
    pair = Pair(str(data_root / "Images" / "00000.png"), str(data_root / "Labels" / "00000.png"))
    problems, digest, profile = check.check_pair(pair, compare=True)
    assert problems == [] and len(digest) == 20 and profile.max() == 1
    assert check.check_pair(pair) == ([], digest, None)
    missing = Pair("none.png", pair.mask_path)
    assert check.check_pair(missing) == (["missing: none.png"], None, None)


def test_an_empty_list_is_a_problem_and_no_list_an_error(data_root, capsys):
    (data_root / "eg1800_test.txt").write_text("\n")
    assert check.main(["--data_root", str(data_root)]) == 1
    assert f"{data_root} test: empty list, no pairs" in capsys.readouterr().out
    (data_root / "eg1800_test.txt").unlink()
    assert check.main(["--data_root", str(data_root), "--split", "test"]) == 1
    assert f"No test list in {data_root}: add one." in capsys.readouterr().err


def test_an_index_mask_with_an_ignore_value_is_unreadable(data_root, capsys):
    """0, a class and 255 for "ignore", as PaddleSeg and VOC have it: the person would be lost."""
    label = data_root / "Labels" / "00002.png"
    index_mask = read_mask(label) * np.uint8(15)
    index_mask[40] = 255
    cv2.imwrite(str(label), index_mask)
    assert check.main(["--data_root", str(data_root)]) == 1
    message = capsys.readouterr().out
    assert f"unreadable: {label} holds classes 15 and 255" in message
    assert "1 problems in 20 pairs" in message
