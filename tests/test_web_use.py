# ruff: noqa: F401, F811 (the fixtures page and address)
"""What a visitor does with the page, in a real browser (slow tests)."""

import re
import time

import cv2
import numpy as np
import pytest
from PIL import Image
from test_web import address, browser, choose, clip, open_example, page, pictures, save  # fixtures
from test_web_strings import CHINESE, COMMON

from apps.web import __main__ as web
from benchmarks.web_speed import COUNT, EXAMPLE
from portraitnet import Predictor
from portraitnet.images import read_image

pytestmark = pytest.mark.slow
PORTRAIT = EXAMPLE.with_name("portrait.jpg")

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


def test_hair_is_solved_on_request_and_can_be_mended(page, tmp_path):
    """The opacity is Python's; a stroke is in it as in the fast one."""
    open_example(page, PORTRAIT)
    before = alpha(page)
    with pictures(page, 1):
        page.locator("#hair").check()
    page.wait_for_selector("#busy", state="hidden")
    found = save(page, tmp_path / "hair.png")[:, :, 3] / 255
    expected = Predictor().alpha(read_image(PORTRAIT), matting="hair")
    difference = np.abs(found - expected)
    assert difference.mean() < 2e-3 and (difference > 0.2).mean() < 1e-3
    assert np.abs(found - before / 255).mean() > 2 * difference.mean(), "hair changes nothing"

    tool(page, "brush")
    page.locator("#follow").uncheck()
    drag(page, (0.05, 0.05), (0.05, 0.3))
    assert (alpha(page)[40:180, 26:36] == 255).all()
    with pictures(page, 1):
        page.locator("#hair").uncheck()
    with pictures(page, 1):
        page.keyboard.press("Control+z")
    assert (alpha(page) == before).all()


def test_a_newcomer_has_a_mended_cut_out_within_a_minute(browser, address, tmp_path):
    """Open the page, drop a photo, mend with the brush, download; nothing is in the cache."""
    context = browser.new_context()
    context.add_init_script(COUNT)
    page = context.new_page()
    begun = time.monotonic()
    page.goto(address)
    open_example(page)
    shown = time.monotonic() - begun
    tool(page, "brush")
    drag(page, (0.05, 0.05), (0.05, 0.3))
    picture = save(page, tmp_path / "mended.png")
    seconds = time.monotonic() - begun
    context.close()
    print(f"first cut-out after {shown:.1f} s, mended and saved after {seconds:.1f} s")
    assert picture.shape[2] == 4 and picture[100, 25, 3] == 255
    assert seconds < 60


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


# The finished picture


def set_slider(page, name, value):
    page.evaluate(
        "([name, value]) => { const slider = document.getElementById(name);"
        " slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })) }",
        [name, value],
    )


def finished(page, path):
    """The downloaded picture, after the page has stopped moving."""
    page.wait_for_timeout(400)
    return save(page, path).astype(int)


def test_colours_are_swatches_and_a_picked_one_stays(page, tmp_path):
    open_example(page)
    choose(page, "replace")
    corners = {}
    for color in ("#ffffff", "#000000"):
        with pictures(page, 1):
            page.locator(f"[name=background][value='{color}']").check(force=True)
        corners[color] = finished(page, tmp_path / "a.png")[0, 0].tolist()
    assert corners == {"#ffffff": [255, 255, 255, 255], "#000000": [0, 0, 0, 255]}
    assert page.locator(".swatch.own").count() == 0
    with pictures(page, 1):
        page.evaluate("() => { color.value = '#123456'; color.dispatchEvent(new Event('change')) }")
    assert page.is_checked(".swatch.own [value='#123456']")
    assert finished(page, tmp_path / "a.png")[0, 0].tolist() == [0x56, 0x34, 0x12, 255]


def test_the_person_is_moved_scaled_and_turned(page, tmp_path):
    open_example(page)
    before = finished(page, tmp_path / "a.png")[:, :, 3] / 255
    tool(page, "frame")
    assert page.is_disabled("#move_reset")
    box = page.locator("#figure").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.3 * box["height"], steps=4)
    page.mouse.up()
    moved = finished(page, tmp_path / "a.png")[:, :, 3] / 255
    x, y = round(0.1 * 512), round(0.2 * 512)
    assert np.abs(moved[: 512 - y - 1, x + 1 :] - before[y + 1 :, : 511 - x]).mean() < 0.01
    assert (moved[512 - y + 2 :] == 0).all() and (moved[:, : x - 2] == 0).all()

    page.click("#move_reset")
    set_slider(page, "move_scale", -100)  # half
    half = finished(page, tmp_path / "a.png")[:, :, 3] / 255
    assert half.sum() == pytest.approx(before.sum() / 4, rel=0.01)
    page.click("#move_reset")
    set_slider(page, "move_angle", 45)
    turned = finished(page, tmp_path / "a.png")[:, :, 3] / 255
    assert np.abs(turned - before).mean() > 0.1
    page.click("#move_reset")
    assert np.abs(finished(page, tmp_path / "a.png")[:, :, 3] / 255 - before).max() == 0
    page.focus("#figure")
    page.keyboard.press("ArrowDown")
    keyed = finished(page, tmp_path / "a.png")[:, :, 3] / 255
    assert np.abs(keyed[12:] - before[2:502]).mean() < 0.02 and (keyed[:9] == 0).all()


def test_an_own_background_is_moved_and_scaled_and_covers_the_frame(page, tmp_path):
    """A picture twice as wide as high, red left and blue right."""
    wide = np.full((100, 200, 3), (0, 0, 255), np.uint8)
    wide[:, 100:] = (255, 0, 0)
    cv2.imwrite(str(tmp_path / "own.png"), wide)
    open_example(page)
    choose(page, "replace")
    with pictures(page, 1):
        page.set_input_files("#own_file", tmp_path / "own.png")
    tool(page, "frame")
    page.locator("[name=layer][value=background]").check(force=True)
    first = finished(page, tmp_path / "a.png")
    assert first[5, 5].tolist() == [0, 0, 255, 255] and first[5, 505].tolist() == [255, 0, 0, 255]
    page.focus("#figure")
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    right = finished(page, tmp_path / "a.png")
    assert right[5, 505].tolist() == [0, 0, 255, 255], "the background was not moved"
    assert (right[:, :, 3] == 255).all(), "the background leaves a gap"
    person = (first == right).all(axis=2)[200:, 200:300].mean()
    assert person > 0.9, "the person was moved too"
    set_slider(page, "move_scale", 100)
    page.focus("#figure")
    for _ in range(120):
        page.keyboard.press("ArrowLeft")
    left = finished(page, tmp_path / "a.png")
    assert left[5, 5].tolist() == [255, 0, 0, 255] and (left[:, :, 3] == 255).all()


def test_frames_have_their_size_and_resolution(page, tmp_path):
    open_example(page)
    tool(page, "frame")
    shapes = {}
    for name in ("person", "square", "circle", "35x45", "2x2in", "25x35"):
        page.select_option("#frame", name)
        shapes[name] = finished(page, tmp_path / f"{name}.png").shape
        assert page.is_visible("#guides") == (name in ("35x45", "2x2in")), name
        assert not page.is_visible("#divider")
    assert shapes["35x45"] == (531, 413, 4) and shapes["2x2in"] == (600, 600, 4)
    assert shapes["25x35"] == (413, 295, 4)
    assert shapes["square"] == shapes["circle"] and shapes["square"][0] == shapes["square"][1]
    with Image.open(tmp_path / "35x45.png") as passport:
        assert np.round(passport.info["dpi"]).tolist() == [300, 300]
    page.wait_for_selector("#weight:has-text('25 × 35 mm')")
    circle = cv2.imread(str(tmp_path / "circle.png"), cv2.IMREAD_UNCHANGED)
    square = cv2.imread(str(tmp_path / "square.png"), cv2.IMREAD_UNCHANGED)
    side = len(circle)
    y, x = np.mgrid[:side, :side] + 0.5
    distance = np.hypot(x - side / 2, y - side / 2)
    assert (circle[distance > side / 2 + 1] == 0).all()
    assert (circle == square)[distance < side / 2 - 1].all()
    page.select_option("#frame", "person")
    set_slider(page, "margin", 0)
    tight = finished(page, tmp_path / "a.png")[:, :, 3]
    person = finished(page, tmp_path / "a.png")[:, :, 3] > 127
    assert person[:3].any() and person[-3:].any() and person[:, :3].any() and person[:, -3:].any()
    set_slider(page, "margin", 20)
    margin = 0.2 * max(tight.shape)
    assert len(finished(page, tmp_path / "a.png")) == pytest.approx(len(tight) + margin, abs=2)


def test_a_shadow_and_an_outline(page, tmp_path):
    open_example(page)
    before = finished(page, tmp_path / "a.png")
    tool(page, "style")
    set_slider(page, "outline", 20)  # thousandths of the longer side: 10 pixels
    page.evaluate("() => { outline_color.value = '#ff00ff'; outline.dispatchEvent("
                  "new Event('input', { bubbles: true })) }")  # fmt: skip
    outlined = finished(page, tmp_path / "a.png")
    solid = (before[:, :, 3] == 255).astype(np.uint8)
    distance = cv2.distanceTransform(1 - solid, cv2.DIST_L2, 5)
    ring = (distance > 4) & (distance < 8) & (before[:, :, 3] == 0)
    away = np.abs(outlined[ring] - (255, 0, 255, 255)).max(axis=1)
    assert ring.sum() > 500 and (away <= 2).mean() > 0.98, np.percentile(
        away, [50, 90, 95, 98, 99, 100]
    )
    clear = cv2.distanceTransform((before[:, :, 3] == 0).astype(np.uint8), cv2.DIST_L2, 5)
    assert (outlined[clear > 13][:, 3] == 0).all()
    assert (outlined[solid == 1] == before[solid == 1]).all()
    set_slider(page, "outline", 0)
    set_slider(page, "shadow", 100)
    shadow = finished(page, tmp_path / "a.png")
    around = (distance > 2) & (distance < 6) & (before[:, :, 3] == 0)
    assert (shadow[around][:, :3] == 0).all() and 20 < shadow[around][:, 3].mean() < 200
    assert (shadow[solid == 1] == before[solid == 1]).all()
    tool(page, "effect")
    choose(page, "blur")
    tool(page, "style")
    assert page.is_disabled("#shadow") and page.is_visible("#style_note")


def test_quality_and_size_are_shown_and_true(page, tmp_path):
    open_example(page)
    assert not page.is_visible("#quality_row")
    sizes = {}
    for name, quality in (("JPEG", 95), ("JPEG", 50), ("WebP", 50), ("PNG", 0)):
        page.select_option("#format", name)
        assert page.is_visible("#quality_row") == (name != "PNG")
        set_slider(page, "quality", quality)
        page.wait_for_selector("#weight:not(:empty)")
        shown = page.inner_text("#weight")
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "file")
        size = (tmp_path / "file").stat().st_size
        assert shown == f"512 × 512 pixels, {-(-size // 1000)} kB"
        sizes[name, quality] = size
    assert sizes["JPEG", 50] < 0.6 * sizes["JPEG", 95]


def test_the_brush_shows_the_photo_and_the_download_has_the_frame(page, tmp_path):
    open_example(page)
    tool(page, "frame")
    page.select_option("#frame", "2x2in")
    tool(page, "brush")
    assert page.evaluate("[result.width, result.height]") == [512, 512]
    assert save(page, tmp_path / "a.png").shape == (600, 600, 4)


# What the page remembers


def test_settings_survive_a_reload_and_travel_in_a_link(page, address):
    def settings():
        return page.evaluate(
            "[...document.querySelectorAll('#controls input, #controls select')].map((e) =>"
            " [e.name || e.id, e.value, e.checked])."
            "filter(([name]) => !['tool', 'color'].includes(name))"
        )

    first = settings()
    page.locator("[name=mode][value=replace]").check(force=True)
    page.evaluate("() => { color.value = '#123456'; color.dispatchEvent(new Event('change')) }")
    page.locator("#models [value=lite]").check(force=True)
    page.locator("#hair").check()
    tool(page, "frame")
    page.select_option("#frame", "35x45")
    tool(page, "style")
    for name, value in {"shadow": 40, "outline": 10}.items():
        set_slider(page, name, value)
    tool(page, "brush")
    page.locator("#follow").uncheck()
    page.select_option("#format", "JPEG")
    set_slider(page, "quality", 80)
    tool(page, "effect")
    wanted = settings()
    assert wanted != first
    page.reload()
    page.wait_for_selector("#runtime:not(:empty)", state="attached", timeout=90_000)
    assert settings() == wanted
    assert page.is_checked(".swatch.own [value='#123456']")

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("summary")
    page.click("#link")
    page.wait_for_selector("#status:has-text('Link copied')")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(address) and "frame=35x45" in link and "shadow=40" in link
    assert page.url == link
    page.evaluate("localStorage.clear()")
    page.goto(address)
    page.wait_for_selector("#runtime:not(:empty)", state="attached", timeout=90_000)
    assert settings() == first
    page.goto(link)
    page.wait_for_selector("#runtime:not(:empty)", state="attached", timeout=90_000)
    assert settings() == wanted


def test_nonsense_in_the_address_changes_nothing(page, address):
    read = "[...document.querySelectorAll('select')].map(({ value }) => value).join()"
    before = page.evaluate(read)
    page.goto(
        f"{address}?mode=nothing&frame=huge&format=text/html&background=own&outline_color=red"
        "&blur=-7&colors=red,%23zzzzzz&model_photo=tiny&quality=x"
    )
    page.wait_for_selector("#runtime:not(:empty)", state="attached", timeout=90_000)
    assert page.evaluate(read) == before
    assert page.is_checked("[value=cutout]") and page.is_checked("[value=studio]")
    assert page.input_value("#outline_color") == "#ffffff"
    assert page.input_value("#blur") == "0.5" and page.locator(".swatch.own").count() == 0


# Everybody


AXE = web.FOLDER / "node_modules" / "axe-core" / "axe.min.js"


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, address, language, scheme):
    """Names, contrast, roles and landmarks in every state of the page."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: `npm ci --prefix apps/web`")
    context = browser.new_context(
        locale=language, color_scheme=scheme, viewport={"width": 1280, "height": 800},
        reduced_motion="reduce", bypass_csp=True, permissions=["camera"],
    )  # fmt: skip
    context.add_init_script(COUNT)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#runtime:not(:empty)", state="attached", timeout=90_000)
    page.evaluate(AXE.read_text() + "; 0")

    def check(state):
        found = page.evaluate("axe.run().then(({ violations }) => violations)")
        problems = [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found]
        assert problems == [], state

    check("nothing is open")
    page.click("summary")
    open_example(page, [EXAMPLE, EXAMPLE])
    check("two photos")
    for mode in ("replace", "blur", "grey", "overlay", "mask"):
        with pictures(page, 1):
            choose(page, mode)
        check(mode)
    with pictures(page, 1):
        choose(page, "replace")
    for name in ("brush", "frame", "style"):
        tool(page, name)
        check(name)
    tool(page, "frame")
    page.select_option("#frame", "35x45")
    page.select_option("#format", "JPEG")
    check("a passport")
    page.locator("input[value=camera]").check(force=True)
    check("the camera")
    context.close()


def test_every_control_is_reached_by_the_tab_key(page):
    open_example(page, [EXAMPLE, EXAMPLE])
    for name in ("effect", "brush", "frame", "style"):
        tool(page, name)
        choose(page, "replace")
        wanted = page.evaluate(
            "[...document.querySelectorAll('button, select, input, summary')].filter((e) =>"
            " e.checkVisibility() && !e.disabled && e.offsetWidth && !e.hidden)"
            ".map((e) => e.type === 'radio' ? e.name : e.id || e.className || e.tagName)"
        )
        page.focus("[name=source]")  # the first control
        reached = {"source"}
        for _ in range(70):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate(
                    "(() => { const e = document.activeElement; return e.type === 'radio'"
                    " ? e.name : e.id || e.className || e.tagName })()"
                )
            )
        assert set(wanted) <= reached, name
        assert ("figure" in reached) == (name in ("brush", "frame"))
