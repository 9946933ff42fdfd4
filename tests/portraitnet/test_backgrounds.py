"""What --background may name."""

import cv2
import numpy as np
import pytest

from portraitnet.backgrounds import COLORS, read_background


@pytest.mark.parametrize(
    ("text", "bgr"),
    [
        ("red", (0, 0, 255)),
        ("green", (64, 177, 0)),
        ("white", (255, 255, 255)),
        ("#0a1420", (32, 20, 10)),
        ("#FFFFFF", (255, 255, 255)),
        ("#00b140", (64, 177, 0)),
    ],
)
def test_colors_are_bgr(text, bgr):
    assert tuple(read_background(text).tolist()) == bgr


def test_every_named_color_is_three_bytes():
    for name in COLORS:
        color = read_background(name)
        assert color.shape == (3,) and 0 <= color.min() <= color.max() <= 255


def test_a_path_is_its_photo(tmp_path, monkeypatch):
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    monkeypatch.chdir(tmp_path)
    for name in ("wall.png", "#0a1420.png"):
        cv2.imwrite(name, image)
        assert np.array_equal(read_background(name), image)
    assert read_background("red").shape == (3,)  # the colour, also beside a file of this name


@pytest.mark.parametrize("text", ["mauve", "#12345g", "#123", "", "a/b.png"])
def test_everything_else_is_named(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    message = f"neither colour nor photo: There is no file {text}" if text else "neither colour"
    with pytest.raises(ValueError, match=message):
        read_background(text)


def test_a_file_that_is_no_photo_is_named(tmp_path):
    (tmp_path / "wall.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="neither colour nor photo: .*wall.png"):
        read_background(str(tmp_path / "wall.png"))
