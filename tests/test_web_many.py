"""Many photos in the page: the strip and the ZIP, in a real browser (slow tests)."""

import io
import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_web import address, browser, choose, clip, page, pictures, save  # noqa: F401, fixtures

from benchmarks.web_speed import EXAMPLE
from portraitnet.images import read_image

pytestmark = pytest.mark.slow


def write_photos(folder, *names):
    """Portraits of different widths; "wall" shows nobody and "broken" is no picture."""
    paths = []
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        wall = np.full((300, 400, 3), 150, np.uint8)
        cv2.imwrite(str(path), wall if "wall" in name else read_image(EXAMPLE)[:, : 300 + 20 * i])
        if "broken" in name:
            path.write_bytes(b"no picture")
        paths.append(path)
    return paths


def open_all(page, paths):  # noqa: F811
    page.set_input_files("#files", paths)
    page.wait_for_selector("#save:not([disabled])", timeout=60_000)


def download_all(page):  # noqa: F811
    """The ZIP of "Download all", and its name."""
    with page.expect_download(timeout=300_000) as download:
        page.click("#save_all")
    return zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())), download.value


def test_all_photos_come_in_one_zip_with_their_names(page, tmp_path):  # noqa: F811
    names = ["é 1.png", "b.png", "wall.png", "sub/b.png", "broken.jpg"]
    open_all(page, write_photos(tmp_path, *names))
    single = save(page, tmp_path / "single.png")
    packed, file = download_all(page)
    message = "3 of 5 downloaded: nobody was found in the others, or they could not be read."
    page.wait_for_selector(f"#status.wrong:has-text('{message}')")
    assert file.suggested_filename == "photos_cutout.zip" and packed.testzip() is None
    assert packed.namelist() == ["é 1_cutout.png", "b_cutout.png", "b_cutout (2).png"]
    for i, name in zip((0, 1, 3), packed.namelist()):
        picture = cv2.imdecode(np.frombuffer(packed.read(name), np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (512, 300 + 20 * i, 4)
        assert 0.2 < (picture[:, :, 3] == 0).mean() < 0.8
        if i == 0:
            assert np.array_equal(picture, single)
    # The photo that was open is open again, and what is no picture has left the strip.
    assert page.get_attribute("#strip [aria-current=true]", "aria-label") == "Show é 1.png"
    assert page.locator("#strip .open").count() == 4
    choose(page, "mask")
    page.select_option("#format", "JPEG")
    packed, _ = download_all(page)
    assert packed.namelist()[0] == "é 1_mask.jpg"
    assert packed.read("b_mask.jpg")[:2] == b"\xff\xd8"


def test_a_zip_can_be_cancelled(page, tmp_path):  # noqa: F811
    open_all(page, write_photos(tmp_path, *(f"{i}.png" for i in range(12))))
    with pictures(page, 2):
        page.click("#save_all")
    assert re.fullmatch(r"Photo \d+ of 12", page.inner_text("#status"))
    assert page.is_disabled("#save") and page.inner_text("#save_all") == "Cancel"
    page.click("#save_all")
    page.wait_for_selector("#status:has-text('Cancelled: nothing was downloaded.')")
    assert page.inner_text("#save_all") == "Download all"
    assert page.get_attribute("#strip [aria-current=true]", "aria-label") == "Show 0.png"


def test_photos_leave_the_strip(page, tmp_path):  # noqa: F811
    open_all(page, write_photos(tmp_path, "a.png", "b.png", "c.png", "d.png"))
    page.hover("#strip .thumb >> nth=1")
    page.click("#strip .remove >> nth=1")
    assert page.locator("#strip .open").count() == 3
    assert page.inner_text("#status").startswith("a.png")  # the shown photo stays
    page.focus("#strip .open >> nth=0")
    page.keyboard.press("Delete")  # the shown photo itself: the next one is opened
    page.wait_for_selector("#status:has-text('c.png')")
    assert page.evaluate("document.activeElement.ariaLabel") == "Show c.png"
    page.keyboard.press("Delete")
    page.wait_for_selector("#status:has-text('d.png')")
    assert not page.is_visible("#strip")
    assert page.evaluate("document.activeElement.id") == "another"


def test_small_pictures_are_drawn(page, tmp_path):  # noqa: F811
    open_all(page, write_photos(tmp_path, "a.png", "b.png"))
    drawn = (
        "() => [...document.querySelectorAll('#strip canvas')].every((canvas) =>"
        " canvas.getContext('2d').getImageData(60, 60, 1, 1).data[3] === 255)"
    )
    page.wait_for_function(drawn)


def test_a_photo_that_failed_can_be_tried_again(page, tmp_path):  # noqa: F811
    """The browser runs out of memory once."""
    open_all(page, write_photos(tmp_path, "a.png", "b.png"))
    page.evaluate(
        """() => {
          const { postMessage } = Worker.prototype;
          Worker.prototype.postMessage = function (message, transfer) {
            Worker.prototype.postMessage = postMessage;
            const data = { id: message.id, error: { message: "out of memory" } };
            setTimeout(() => this.onmessage({ data }));
          };
        }"""
    )
    page.click("#strip .open >> nth=1")
    page.wait_for_selector("#status.wrong:has-text('This failed: out of memory')")
    assert page.get_attribute("#strip .failed .open", "aria-label") == "Try b.png again"
    page.click("#strip .open >> nth=1")
    page.wait_for_selector("#status:has-text('b.png, 320')")
    assert page.locator("#strip .failed").count() == 0
