import cv2

from benchmarks import refine_quality
from portraitnet.effects import LABEL_HEIGHT, MARGIN


def test_every_way_is_scored_and_drawn(data_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(refine_quality, "SIZES", {"CPU ms": (90, 60)})
    command = ["--data_root", str(data_root), "--true_mask", "--pictures", str(tmp_path / "looks")]
    refine_quality.main(command)
    message = capsys.readouterr().out
    assert message.startswith("4 photos (val), the true mask\n")
    lines = [line.split(" | ") for line in message.splitlines() if line.startswith("| ")]
    heading, *rows = ([cell.strip("| ") for cell in line] for line in lines)
    assert heading[1:] == [*refine_quality.SCORES, "CPU ms"]
    assert [name for name, *_ in rows] == list(refine_quality.METHODS)
    for _, boundary, contour, iou, *errors in rows:
        assert 90 < float(boundary) <= 100 and float(contour) > 99 and float(iou) > 99
        assert all(0 <= float(error) < 5 for error in errors[:3])
    assert len(list((tmp_path / "looks").iterdir())) == 4
    sheet = cv2.imread(str(next((tmp_path / "looks").iterdir())))
    assert sheet.shape == (96 + MARGIN + LABEL_HEIGHT, 4 * (80 + 2 * MARGIN), 3)
