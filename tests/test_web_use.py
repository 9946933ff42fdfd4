# ruff: noqa: F401, F811 (the fixtures page and address)
"""What a visitor does with the page, in a real browser (slow tests)."""

import re

import cv2
import numpy as np
import pytest
from test_web import address, browser, clip, open_example, page, pictures, save  # fixtures
from test_web_strings import CHINESE, COMMON

from benchmarks.web_speed import COUNT, EXAMPLE
from portraitnet.images import read_image

pytestmark = pytest.mark.slow

READ = """[...document.querySelectorAll("body *")].flatMap((element) => [
  ...[...element.childNodes].filter(({ nodeType }) => nodeType === 3).map(({ data }) => data),
  element.title, element.ariaLabel, element.alt,
]).filter(Boolean).concat(document.title)"""


def test_the_page_speaks_the_browsers_language_and_another_on_request(browser, address):
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto(address)
    open_example(page)
    assert page.inner_text("#status") == "astronaut.png，512 × 512 像素"
    foreign = r"astronaut\.png|EN|\d+(\.\d+)? ms|^\s*$|^[\d\W]+$"
    for text in page.evaluate(READ):
        outside = re.sub(f"{COMMON.pattern}|{foreign}", "", text)
        assert not outside or CHINESE.search(outside), text
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    page.click("#language")
    assert page.inner_text("#status") == "astronaut.png, 512 × 512 pixels"
    assert page.inner_text("#save") == "Download"
    english = [COMMON.sub("", text) for text in page.evaluate(READ)]
    assert [text for text in english if CHINESE.search(text)] == ["中文"]
    page.reload()
    assert page.evaluate("document.documentElement.lang") == "en", "the choice is forgotten"
    page.goto(f"{address}?language=zh-CN")
    assert page.inner_text("#save") == "下载"
    context.close()


# The brush


def tool(page, name):
    page.locator(f"[name=tool][value={name}]").check(force=True)


def at(page, x, y):
    """Place of a fraction of the shown picture in the window."""
    box = page.locator("#result").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def drag(page, *places, moved=1):
    """Paint from place to place and wait until the picture has the stroke."""
    with pictures(page, moved):
        page.mouse.move(*at(page, *places[0]))
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*at(page, *place), steps=5)
        page.mouse.up()


def alpha(page):
    """Opacity of the shown picture, 0 to 255."""
    size = page.evaluate("[result.height, result.width]")
    data = page.evaluate(
        "[...result.getContext('2d').getImageData(0, 0, result.width, result.height).data]"
        ".filter((_, i) => i % 4 === 3)"
    )
    return np.reshape(data, size).astype(int)


def brush_size(page, value):
    page.evaluate("(value) => { brush_size.value = value }", value)


def test_a_wrong_mask_is_mended_with_the_brush(page):
    open_example(page)
    before = alpha(page)
    tool(page, "brush")
    page.locator("#follow").uncheck()
    assert page.is_disabled("#undo") and page.is_disabled("#redo") and page.is_disabled("#reset")
    size = page.locator("#result").bounding_box()["width"]

    drag(page, (0.05, 0.05), (0.05, 0.3))  # restore a piece of the wall
    restored = alpha(page)
    assert (before[20:150, 20:30] == 0).all() and (restored[30:150, 21:30] == 255).all()
    radius = 24 / size  # of the default brush, fraction of the picture's width
    edge = round(512 * (0.05 + radius))
    assert (restored[30:150, edge - 9 : edge - 7] > 60).all(), "the stroke is too narrow"
    assert (restored[30:150, edge + 1 : edge + 40] == before[30:150, edge + 1 : edge + 40]).all()

    page.locator("[name=brush][value=erase]").check(force=True)
    drag(page, (0.5, 0.9), (0.5, 0.95))
    erased = alpha(page)
    assert before[475, 256] == 255 and erased[475, 256] == 0 and erased[100, 25] == 255
    with pictures(page, 1):
        page.keyboard.press("Control+z")
    assert (alpha(page) == restored).all()
    with pictures(page, 1):
        page.keyboard.press("Control+z")
    assert (alpha(page) == before).all() and page.is_disabled("#undo")
    with pictures(page, 1):
        page.keyboard.press("Control+Shift+z")
    with pictures(page, 1):
        page.click("#redo")
    assert (alpha(page) == erased).all() and page.is_disabled("#redo")
    with pictures(page, 1):
        page.click("#reset")
    assert (alpha(page) == before).all()
    with pictures(page, 2):
        page.click("#redo"), page.click("#redo")
    assert (alpha(page) == erased).all(), "reset cannot be undone"


def test_strokes_stay_with_their_photo(page, tmp_path):
    cv2.imwrite(str(tmp_path / "other.png"), read_image(EXAMPLE)[:, :400])
    open_example(page, [EXAMPLE, tmp_path / "other.png"])
    tool(page, "brush")
    drag(page, (0.05, 0.05), (0.1, 0.2))
    mended = alpha(page)
    with pictures(page, 1):
        page.click("#strip .open >> nth=1")
    assert page.is_disabled("#undo") and alpha(page).shape == (512, 400)
    with pictures(page, 1):
        page.click("#strip .open >> nth=0")
    page.wait_for_selector("#undo:not([disabled])")
    assert (alpha(page) == mended).all()
    with pictures(page, 1):
        page.locator("[value=lite]").check(force=True)
    assert alpha(page)[80, 35] == mended[80, 35] == 255, "the other network has lost the stroke"
    tool(page, "effect")
    cut = save(page, tmp_path / "cut.png")
    assert cut[80, 35, 3] == 255 and (cut[:, :, 3] == alpha(page)).all()


def test_the_brush_follows_zoom_and_contours(page, tmp_path):
    """Two colours; the network finds nobody, and the brush makes one side the person."""
    photo = np.full((400, 400, 3), (60, 60, 200), np.uint8)
    photo[:, 200:] = (200, 190, 120)
    cv2.imwrite(str(tmp_path / "two.png"), photo)
    page.set_input_files("#files", tmp_path / "two.png")
    page.wait_for_selector("#status.wrong")
    assert page.is_disabled("#save")
    tool(page, "brush")
    drag(page, (0.48, 0.4), (0.48, 0.6))
    found = alpha(page)
    assert (found[170:230, 188:198] == 255).all() and (found[:, 203:] == 0).all()
    assert page.is_enabled("#save"), "a person made with the brush cannot be downloaded"
    with pictures(page, 1):
        page.click("#reset")
    page.mouse.move(*at(page, 0.25, 0.25))
    page.mouse.wheel(0, -415)  # about 4 times
    zoom = (
        page.locator("#result").bounding_box()["width"]
        / page.locator("#figure").bounding_box()["width"]
    )
    assert 3.5 < zoom < 4.5
    drag(page, (0.25, 0.25), (0.3, 0.25))
    rows = np.flatnonzero(alpha(page)[:, 110] > 127)
    width = page.locator("#figure").bounding_box()["width"]
    assert len(rows) == pytest.approx(48 / zoom / width * 400, abs=2)
    assert abs(rows.mean() + 0.5 - 100) < 1
    before = page.locator("#result").bounding_box()
    page.mouse.move(*at(page, 0.25, 0.25))
    page.mouse.down(button="middle")
    page.mouse.move(*at(page, 0.27, 0.25), steps=3)
    page.mouse.up(button="middle")
    assert page.locator("#result").bounding_box()["x"] > before["x"] + 5


def test_the_keyboard_alone_paints(page):
    open_example(page)
    tool(page, "brush")
    page.locator("#follow").uncheck()
    before = alpha(page)
    page.focus("#figure")
    for key in ("ArrowUp", "ArrowLeft"):
        for _ in range(15):
            page.keyboard.press(key)
    assert page.is_visible("#ring")
    with pictures(page, 1):
        page.keyboard.press(" ")
    new = (alpha(page) == 255) & (before == 0)
    y, x = np.argwhere(new).mean(axis=0)
    size = page.locator("#figure").bounding_box()["width"]
    expected = 256 - 15 * 12 / size * 512
    assert (x, y) == (pytest.approx(expected, abs=2), pytest.approx(expected, abs=2))
    page.keyboard.press("]")
    assert page.input_value("#brush_size") == "56"


def test_a_finger_paints_and_two_fingers_zoom(browser, address):
    context = browser.new_context(
        has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844}
    )
    context.add_init_script(COUNT)
    page = context.new_page()
    page.goto(address)
    open_example(page)
    tool(page, "brush")
    before = alpha(page)
    touch = context.new_cdp_session(page)

    def fingers(kind, *places):
        points = [dict(zip("xy", at(page, *place)), id=i) for i, place in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    with pictures(page, 1):
        fingers("touchStart", (0.05, 0.1))
        for y in (0.12, 0.16, 0.2):
            fingers("touchMove", (0.05, y))
        fingers("touchEnd")
    painted = alpha(page)
    assert (painted[60:100, 24:28] == 255).all() and (before[60:100, 24:28] == 0).all()
    fingers("touchStart", (0.4, 0.5))
    fingers("touchStart", (0.4, 0.5), (0.6, 0.5))
    box = page.locator("#figure").bounding_box()
    for x in (0.65, 0.7, 0.8):
        points = [
            {"x": box["x"] + place * box["width"], "y": box["y"] + box["height"] / 2, "id": i}
            for i, place in enumerate((1 - x, x))
        ]
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": points})
    fingers("touchEnd")
    assert page.locator("#result").bounding_box()["width"] > 1.5 * box["width"]
    page.wait_for_timeout(500)
    assert (alpha(page) == painted).all(), "two fingers have painted"
    context.close()
