"""Lists of photos and masks, in data folders of both layouts."""

import codecs
import re

import cv2
import pytest

from data.lists import Pair, find_pairs, read_lines, read_lists, read_pairs, split_backgrounds


def pairs_of(data_root, split, seed=0):
    return find_pairs(data_root, split, seed)[0]


def test_official_layout(data_root):
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        pairs, notes = find_pairs(data_root, split)
        assert len(pairs) == count and notes == []
    image_path, mask_path, soft = pairs_of(str(data_root), "val")[0]
    assert image_path == str(data_root / "Images" / "00012.png")
    assert mask_path == str(data_root / "Labels" / "00012.png") and soft is False


def test_list_layout(tmp_path):
    (tmp_path / "val_list.txt").write_text("a.jpg a.png\n\nmy photos/b.jpg\tb mask.png\n")
    (tmp_path / "soft_list.txt").write_text("/c.jpg c.png\n")
    assert read_lists(tmp_path) == {
        "val": [
            Pair(f"{tmp_path}/a.jpg", f"{tmp_path}/a.png"),
            Pair(f"{tmp_path}/my photos/b.jpg", f"{tmp_path}/b mask.png"),
        ],
        "train": [Pair("/c.jpg", f"{tmp_path}/c.png", soft=True)],
    }


def test_a_list_is_read_in_utf_8_and_in_both_utf_16(tmp_path):
    path = tmp_path / "list.txt"
    little, big = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE
    for data in (
        "é\nb".encode(),
        "é\r\nb".encode("utf-8-sig"),
        little + "é\nb".encode("utf-16-le"),
        big + "é\nb".encode("utf-16-be"),
    ):
        path.write_bytes(data)
        assert read_lines(path) == ["é", "b"]
    path.write_bytes(b"a a\nb b\ncaf\xe9 c\n")
    with pytest.raises(ValueError, match="list.txt line 3 is not in UTF-8: save the list as UTF-8"):
        read_lines(path)


def test_a_listed_suffix_may_differ_from_the_file(data_root):
    image = cv2.imread(str(data_root / "Images" / "00000.png"))
    cv2.imwrite(str(data_root / "Images" / "00000.jpg"), image)
    (data_root / "Images" / "00000.png").unlink()  # listed as .png, stored as .jpg
    text = (data_root / "eg1800_train.txt").read_text().replace("00001.png", "00001.jpg")
    (data_root / "eg1800_train.txt").write_text(text)  # and the other way round
    pairs = pairs_of(data_root, "train")
    assert [pair.image_path[-9:] for pair in pairs[:2]] == ["00000.jpg", "00001.png"]
    assert [pair.mask_path[-9:] for pair in pairs[:2]] == ["00000.png", "00001.png"]


def test_validation_photos_are_split_off_by_seed_and_noted(list_root):
    train, (val, notes) = pairs_of(list_root, "train"), find_pairs(list_root, "val")
    assert len(train) == 18 and len(val) == 2
    assert set(train) | set(val) == set(read_lists(list_root)["train"])
    assert len(notes) == 1
    assert re.search(r"2 of the 20 training photos .* for validation \(seed 0\)", notes[0])
    assert pairs_of(list_root, "val") == val
    assert any(pairs_of(list_root, "val", seed) != val for seed in range(1, 5))


def test_a_root_without_a_validation_list_only_trains(data_root, list_root):
    both = [data_root, list_root]
    assert len(pairs_of(both, "train")) == 32
    assert find_pairs(both, "val") == (pairs_of(data_root, "val"), [])


def test_a_soft_list_adds_to_the_training_photos_only(data_root, soft_root):
    (data_root / "soft_list.txt").write_text(f"{soft_root}/photo.png {soft_root}/mask.png\n")
    assert [pair.soft for pair in pairs_of(data_root, "train")] == [False] * 12 + [True]
    assert not any(pair.soft for pair in pairs_of(data_root, "val"))


def test_validation_photos_are_split_off_the_hard_masks(list_root, soft_root):
    lines = f"{soft_root}/photo.png {soft_root}/mask.png\n" * 50
    (list_root / "soft_list.txt").write_text(lines)
    val = pairs_of(list_root, "val")
    assert len(val) == 2 and not any(pair.soft for pair in val)
    assert len(pairs_of(list_root, "train")) == 68


def test_soft_masks_validate_if_there_are_no_hard_ones(soft_root):
    (soft_root / "soft_list.txt").write_text("photo.png mask.png\n" * 10)
    assert [len(pairs_of(soft_root, split)) for split in ("train", "val")] == [9, 1]


def test_errors_say_what_to_do(data_root, list_root, tmp_path):
    with pytest.raises(FileNotFoundError, match="No folder .*nowhere: give the folder"):
        find_pairs(tmp_path / "nowhere", "train")
    with pytest.raises(FileNotFoundError, match="it needs eg1800_train.txt beside Images/"):
        find_pairs(data_root / "Images", "train")
    with pytest.raises(ValueError, match="no split 'valid': choose one of train, val, test"):
        find_pairs(data_root, "valid")
    with pytest.raises(FileNotFoundError, match="No test photos .* there are train and val photos"):
        find_pairs(list_root, "test")
    (data_root / "Labels" / "00003.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 listed files are missing.*00003\.png.*--data"):
        find_pairs(data_root, "train")
    (list_root / "train_list.txt").write_text("my photos/1.jpg 1_mask.png\n")
    with pytest.raises(ValueError, match="line 1 is .*: write `image mask`"):
        find_pairs(list_root, "train")


def test_every_wrong_line_of_every_list_is_named(list_root):
    (list_root / "train_list.txt").write_text("a.jpg a.png\nb.jpg\n\nc d e\n")
    (list_root / "val_list.txt").write_text("f.jpg\n" * 23)
    with pytest.raises(ValueError) as error:
        find_pairs(list_root, "train")
    train, val = str(error.value).splitlines()
    assert "train_list.txt line 2 is 'b.jpg', line 4 is 'c d e': write `image mask`" in train
    assert "val_list.txt line 1 is" in val and "line 20 is 'f.jpg' and 3 more: write" in val


def test_names_in_a_list_are_relative_to_its_folder(tmp_path):
    path = tmp_path / "lists" / "some.txt"
    path.parent.mkdir()
    path.write_text("a.jpg a.png\n")
    assert read_pairs(tmp_path, path) == [Pair(f"{tmp_path}/a.jpg", f"{tmp_path}/a.png")]


def test_every_tenth_background_is_held_out(backgrounds):
    train, held_out = split_backgrounds(backgrounds)
    assert [path[-6:] for path in held_out] == ["00.png", "10.png"]
    assert len(train) == 18 and not set(train) & set(held_out)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_backgrounds_are_an_error(tmp_path, count):
    for number in range(count):
        (tmp_path / f"{number}.jpg").touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=f"has {count} photos: backgrounds need a folder"):
        split_backgrounds(tmp_path)
