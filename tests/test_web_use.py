"""What a visitor does with the page, in a real browser (slow tests)."""

import re

import pytest
from test_web import address, browser, clip, open_example, page  # noqa: F401, fixtures
from test_web_strings import CHINESE, COMMON

pytestmark = pytest.mark.slow

READ = """[...document.querySelectorAll("body *")].flatMap((element) => [
  ...[...element.childNodes].filter(({ nodeType }) => nodeType === 3).map(({ data }) => data),
  element.title, element.ariaLabel, element.alt,
]).filter(Boolean).concat(document.title)"""


def test_the_page_speaks_the_browsers_language_and_another_on_request(browser, address):  # noqa: F811
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()  # noqa: F811
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
