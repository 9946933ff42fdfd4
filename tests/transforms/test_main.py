import cv2

from transforms.__main__ import main


def test_contact_sheet(tmp_path, image, mask, capsys):
    photo, mask_path = tmp_path / "photo.png", tmp_path / "mask.png"
    cv2.imwrite(str(photo), image)
    cv2.imwrite(str(mask_path), mask * 255)
    assert main([str(photo), "--mask", str(mask_path)]) == 0
    written = tmp_path / "photo_transforms.png"
    assert capsys.readouterr().out == f"{written}\n"
    assert min(cv2.imread(str(written)).shape[:2]) > 4 * 224
    before = photo.read_bytes()
    assert main([str(photo), "--output", str(photo)]) == 1
    assert "is not overwritten" in capsys.readouterr().err
    assert photo.read_bytes() == before
    assert main([str(tmp_path / "none.png")]) == 1
    assert "There is no file" in capsys.readouterr().err
