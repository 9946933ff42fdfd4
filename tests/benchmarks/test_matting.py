import cv2
import numpy as np
import pytest

from benchmarks import matting
from benchmarks.matting import composite, spread, true_alpha, true_colors
from portraitnet.images import write_image
from portraitnet.predictor import Predictor

PERSON, WALL = np.array((40, 50, 200.0)), np.array((200, 120, 60.0))


def disc_before_a_wall(height=300, width=240):
    """image (H, W, 3) uint8, alpha (H, W) float32 and the drawn mask."""
    alpha = cv2.circle(np.zeros((height, width), np.float32), (120, 170), 80, 1, -1)
    mask = alpha.astype(np.uint8)
    alpha = cv2.GaussianBlur(alpha, (0, 0), 3)
    weight = alpha[:, :, None]
    return np.rint(weight * PERSON + (1 - weight) * WALL).astype(np.uint8), alpha, mask


def test_alpha_and_colours_before_a_plain_wall_are_found():
    image, alpha, mask = disc_before_a_wall()
    found = true_alpha(image, mask)
    assert np.abs(found - alpha).max() < 0.05  # MIXED is cut off at both ends: 0.02
    colors = true_colors(image, found)
    assert np.abs(colors[alpha > 0.5] - PERSON).max() < 12  # 255 * 0.05
    assert np.abs(colors[(alpha > 0.05) & (alpha < 0.5)] - PERSON).max() < 12


def test_spread_takes_the_narrowest_gaussian_with_weight():
    colors = np.zeros((21, 101, 3), np.float32)
    colors[:, :50] = 100
    weight = np.ones((21, 101), np.float32)
    weight[:, 30:] = 0
    assert spread(colors, weight, (2, 10))[10, 33] == pytest.approx([100] * 3, abs=0.1)


@pytest.mark.parametrize("blurred", [False, True])
def test_a_composite_has_both_colours(blurred):
    _, alpha, _ = disc_before_a_wall()
    colors = np.broadcast_to(PERSON, (*alpha.shape, 3))
    background = np.full((50, 40, 3), (10, 20, 30), np.uint8)
    image = composite(colors, alpha, background, blurred)
    assert image[170, 120].tolist() == PERSON.tolist() and image[0, 0].tolist() == [10, 20, 30]


def test_every_way_has_a_row_and_hair_is_best(model_path, tmp_path, monkeypatch, capsys):
    image, _, mask = disc_before_a_wall()
    for name, picture in (("Images/a.jpg", image), ("Labels/a.png", 255 * mask)):
        (tmp_path / name).parent.mkdir()
        write_image(tmp_path / name, picture)
    (tmp_path / "walls").mkdir()
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "walls" / name, np.full((60, 50, 3), (20, 90, 30), np.uint8))
    monkeypatch.setattr(matting, "FOREGROUNDS", ["a"])
    monkeypatch.setattr(matting, "drop_doubtful", lambda _: cv2.resize(blurred, (192, 256)))
    monkeypatch.setattr(Predictor, "look_at_hair", lambda self, image, answer: answer)
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 4)
    flags = ["--data_root", tmp_path, "--backgrounds", tmp_path / "walls"]
    flags += ["--model_path", model_path, "--pictures", tmp_path / "looks"]
    matting.main([str(flag) for flag in flags])
    message = capsys.readouterr().out
    assert "EG1800, plain backgrounds: 1 composites" in message
    rows = [line.strip("| ").split(" | ") for line in message.splitlines() if line[:1] == "|"]
    scores = {name: float(band) for name, band, *_ in rows[2:]}
    assert list(scores)[:4] == ["none", "fast", "eroded and feathered", "hair"]
    assert scores["hair"] == min(scores.values()) < 0.5 * scores["none"]
    assert len(list((tmp_path / "looks").iterdir())) == 1
