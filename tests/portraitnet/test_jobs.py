"""Which files a command reads and writes."""

import errno
import os
from pathlib import Path

import cv2
import numpy as np

from portraitnet import jobs
from portraitnet.jobs import Failure, Task, find_photos, is_file_name, without_clashes


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_file_is_taken_as_it_is_and_once(tmp_path):
    touch(tmp_path / "a.png")
    given = [tmp_path / "none.jpg", tmp_path / "a.png", tmp_path / "none.jpg"]
    found = [(tmp_path / "none.jpg", Path()), (tmp_path / "a.png", Path())]
    assert find_photos(given) == (found, [])


def test_a_folder_is_searched_in_order_with_each_photos_place(tmp_path):
    names = ["b.png", "a.JPG", "sub/deep/c.webp", "sub/d.tif"]
    touch(*(tmp_path / name for name in [*names, "notes.txt", ".hidden.png", ".git/e.png"]))
    found = find_photos([tmp_path, tmp_path / "b.png"])[0]
    places = [(str(path.relative_to(tmp_path)), str(place)) for path, place in found]
    assert places == [("a.JPG", "."), ("b.png", "."), ("sub/d.tif", "sub"), (names[2], "sub/deep")]


def test_a_picture_without_a_pictures_name_is_found_by_its_content(tmp_path):
    picture = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    (tmp_path / "IMG_0001").write_bytes(picture)
    (tmp_path / "photo.backup").write_bytes(picture)
    (tmp_path / "notes").write_text("not a picture")
    found, unread = find_photos([tmp_path])
    assert [path.name for path, _ in found] == ["IMG_0001", "photo.backup"] and unread == []


def test_a_raw_file_is_named_and_the_jpeg_beside_it_is_the_photo(tmp_path):
    touch(tmp_path / "a.CR2", tmp_path / "a.jpg", tmp_path / "b.jxl")
    found, unread = find_photos([tmp_path])
    assert [path.name for path, _ in found] == ["a.jpg"]
    assert sorted(str(each) for each in unread) == [
        f"{tmp_path}/a.CR2: .cr2 files are not read; save it as a JPEG.",
        f"{tmp_path}/b.jxl: .jxl files are not read; save it as a JPEG.",
    ]


def test_results_of_earlier_runs_are_skipped_beside_their_photo_only(tmp_path):
    names = ["a.png", "a_blur.png", "a_mask.jpg", "my_blur.png", "a_tree.png", "_blur.png"]
    touch(*(tmp_path / name for name in names))

    def found(results):
        return {path.name for path, _ in find_photos([tmp_path], results)[0]}

    assert found(["blur", "mask"]) == {"a.png", "my_blur.png", "a_tree.png", "_blur.png"}
    assert found([]) == set(names)
    assert find_photos([tmp_path / "a_blur.png"], ["blur"])[0] == [
        (tmp_path / "a_blur.png", Path())
    ]


def test_a_folder_that_cannot_be_read_is_a_failure(tmp_path, monkeypatch):
    """As the system refuses it; root, who may run the tests, may read every folder."""
    touch(tmp_path / "closed" / "a.png", tmp_path / "b.png")
    scandir = os.scandir

    def refuse_closed(path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_closed)
    found, unread = find_photos([tmp_path])
    assert [path.name for path, _ in found] == ["b.png"]
    assert [failure.path for failure in unread] == [tmp_path / "closed"]
    assert f"{tmp_path / 'closed'} cannot be used (Permission denied): change" in str(unread[0])


def test_a_file_without_a_pictures_name_that_cannot_be_opened_is_a_failure(tmp_path, monkeypatch):
    touch(tmp_path / "closed", tmp_path / "b.png")

    def refuse(path, mode):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(jobs, "open", refuse, raising=False)
    found, unread = find_photos([tmp_path])
    assert [path.name for path, _ in found] == ["b.png"]
    assert [failure.path for failure in unread] == [tmp_path / "closed"]
    assert f"{tmp_path / 'closed'} cannot be used (Permission denied): change" in str(unread[0])


def test_an_output_that_ends_like_a_file_is_one_and_a_folder_is_a_folder(tmp_path):
    for name in "a.png b.PDF c.svg d.ppm e.mp4 f.wmv g.docx h.mp3 -".split():
        assert is_file_name(Path(name)), name
    for name in "out out.v2 2024.05 .hidden a.png/out ..".split():
        assert not is_file_name(Path(name)), name
    (tmp_path / "x.pdf").mkdir()
    assert not is_file_name(tmp_path / "x.pdf")


def test_a_failure_names_its_file_once_and_ends_with_one_full_stop():
    assert str(Failure(Path("a.png"), "Permission denied")) == "a.png: Permission denied."
    assert str(Failure(Path("a.png"), "There is no file a.png.")) == "There is no file a.png."


def refused(tasks, inputs=()):
    return [str(failure) for failure in without_clashes(tasks, inputs)[1]]


def test_a_task_whose_result_is_an_input_is_refused(tmp_path):
    photo, mask, other = (tmp_path / name for name in ("a.png", "a_mask.png", "b.png"))
    tasks = [Task(photo, [tmp_path / "a_blur.png", mask]), Task(other, [tmp_path / "b_blur.png"])]
    kept, failures = without_clashes(tasks, [photo, other, mask])
    assert kept == tasks[1:]
    (failure,) = failures
    assert failure.path == photo
    assert f"its result {mask} is an input and is kept: give another --output" in failure.reason


def test_the_second_task_with_a_result_is_refused(tmp_path):
    tasks = [Task(tmp_path / name, [tmp_path / "a_blur.png"]) for name in ("a.png", "a.jpg")]
    assert without_clashes(tasks, [])[0] == tasks[:1]
    (message,) = refused(tasks)
    assert f"{tmp_path / 'a.jpg'}: its result" in message
    assert f"already that of {tmp_path / 'a.png'}: rename one." in message


def test_a_result_that_is_its_own_photo_is_named_twice(tmp_path):
    photo = tmp_path / "a.png"
    assert refused([Task(photo, [photo])], [photo])[0].startswith(f"{photo}: its result {photo} is")


def test_clashes_are_found_through_links_and_dots(tmp_path):
    """The names differ, the files do not: a link to the folder, a link to the file, a detour."""
    real, link = tmp_path / "real", tmp_path / "link"
    touch(real / "a.png", real / "b_blur.png")
    link.symlink_to(real)
    (tmp_path / "photo.png").symlink_to(real / "b_blur.png")
    detour = real / ".." / "real" / "a_blur.png"
    tasks = [Task(Path(f"{i}.png"), [path]) for i, path in enumerate((real / "a_blur.png", detour))]
    tasks.append(Task(Path("2.png"), [link / "a_blur.png"]))
    assert len(refused(tasks)) == 2
    for given, result in (
        (real / "a.png", link / "a.png"),
        (link / "a.png", real / "a.png"),
        (tmp_path / "photo.png", real / "b_blur.png"),
        (real / "a.png", detour.with_name("a.png")),
    ):
        assert "is an input and is kept" in refused([Task(given, [result])], [given])[0]


def test_a_link_that_leads_nowhere_is_a_name_like_any_other(tmp_path):
    (tmp_path / "a_blur.png").symlink_to(tmp_path / "a_blur.png")  # a circle
    task = Task(tmp_path / "a.png", [tmp_path / "a_blur.png"])
    assert without_clashes([task], [tmp_path / "a.png"]) == ([task], [])
