import errno
import json
import os

import pytest

from portraitnet.files import (
    check_writable,
    refuse_inputs,
    whole_file,
    write_json,
    write_whole,
)


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.png"
    with whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        assert not path.exists()
        assert (temporary.parent, temporary.suffix) == (path.parent, path.suffix)
    assert path.read_bytes() == b"half" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), ValueError("x")])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(type(error)), whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert json.loads(path.read_text()) == {"old": 1} and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", ["file", "file/folder"])
def test_a_place_that_is_no_folder_is_named(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises((FileExistsError, NotADirectoryError)) as caught:
        write_whole(tmp_path / place / "a", b"")
    assert caught.value.filename == str(tmp_path / place)


def test_an_error_names_the_file_and_keeps_its_kind(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_whole(tmp_path / "folder", b"data")
    assert caught.value.filename == str(tmp_path / "folder")
    full = OSError(errno.ENOSPC, "No space left on device")
    message = pytest.raises(OSError, match="No space left on device: .*a.npy'")
    with message as caught, whole_file(tmp_path / "a.npy"):
        raise full
    assert caught.value.errno == errno.ENOSPC
    missing = FileNotFoundError("There is no file b: check its name.")
    message = pytest.raises(FileNotFoundError, match="^There is no file b")
    with message, whole_file(tmp_path / "a.npy"):
        raise missing
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_an_input_is_recognised_under_every_name(tmp_path, monkeypatch):
    """A symbolic link, a hard link, a detour, a link that leads nowhere yet."""
    photo, missing = tmp_path / "photo.png", tmp_path / "missing.png"
    photo.touch()
    (tmp_path / "link.png").symlink_to(photo)
    os.link(photo, tmp_path / "hard.png")
    (tmp_path / "soon.png").symlink_to(missing)
    (tmp_path / "folder").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "link.png", "hard.png", "folder/photo.png", "folder/hard.png"):
        for refuse in (refuse_inputs, check_writable):
            with pytest.raises(ValueError, match=f"{name} is an input and is not overwritten"):
                refuse(tmp_path / name, keep=[tmp_path / "other.png", "photo.png"])
    with pytest.raises(ValueError, match="soon.png is an input"):
        refuse_inputs(tmp_path / "soon.png", keep=[missing])
    refuse_inputs(tmp_path / "new.png", keep=[photo, missing])
    assert photo.exists() and (tmp_path / "hard.png").samefile(photo)


def test_a_place_is_looked_at_before_the_work(tmp_path):
    check_writable(tmp_path / "new" / "folder" / "a.json")
    assert not list(tmp_path.iterdir())
    with pytest.raises(IsADirectoryError) as error:
        check_writable(tmp_path)
    assert error.value.filename == str(tmp_path)


def test_a_folder_is_searched_for_partial_files_once_a_process(tmp_path, monkeypatch):
    searched, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: searched.append(path) or listdir(path))
    for name in ("a", "b", "c"):
        write_whole(tmp_path / name, b"")
    assert searched == [tmp_path]
