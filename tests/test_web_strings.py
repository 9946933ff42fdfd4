"""Every sentence of the page is in apps/web/strings.js, in English and in Chinese."""

import json
import re
import shutil
import subprocess
from functools import cache
from html.parser import HTMLParser

import pytest

from apps.web.__main__ import FOLDER

SCRIPTS = sorted(path for path in FOLDER.glob("*.js") if path.name != "strings.js")
CHINESE = re.compile(r"[\u3000-\u9fff\uff00-\uffef]")
# The same in every language: names, formats, sizes, and the sentence for browsers without scripts.
COMMON = re.compile(r"PortraitNet|PNG|JPEG|WebP|\d+ × \d+|This page needs JavaScript\..*")
SHOWN = ("alt", "title", "aria-label", "placeholder")  # attributes that a visitor reads or hears


class Texts(HTMLParser):
    """The texts and the sentences' keys of index.html."""

    def __init__(self):
        super().__init__()
        self.texts, self.keys = [], set()

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in SHOWN and value:
                self.texts.append(value)
            if name in ("data-text", "data-label", "data-title", "data-alt"):
                self.keys.add(value)

    def handle_data(self, data):
        self.texts.append(data)


def texts_of(html):
    found = Texts()
    found.feed(html)
    outside = [COMMON.sub("", text).strip() for text in found.texts]
    return [text for text in outside if re.search(r"[^\W\d_]", text)], found.keys


def outside_in(script):
    """Literals of a script that look like a sentence, or that are shown as they are."""
    code = re.sub(r"^\s*(//|\*|/\*\*).*|\s// .*", "", script, flags=re.M)
    literal = r"\"[^\"\n]*\"|'[^'\n]*'|`[^`]*`"
    for match in re.finditer(literal, code):
        text = re.sub(r"\$\{[^}]*\}", "", match[0][1:-1])
        before = code[: match.start()][-60:]
        shown = re.search(r"(textContent|ariaLabel|innerText|title|alt|placeholder) = $", before)
        sentence = re.search(r"^[A-Z][a-z]+ [a-z]|[a-z]{2,} [a-z]+ [a-z]{2,}", text)
        if CHINESE.search(text) or sentence or (shown and re.search(r"[a-zA-Z]{2}", text)):
            yield match[0]


@cache
def table():
    """key -> [English, Chinese]"""
    node = shutil.which("node")
    if not node:
        pytest.skip("Node.js is not installed")
    script = f"import {{ STRINGS }} from '{(FOLDER / 'strings.js').as_uri()}';"
    script += "console.log(JSON.stringify(STRINGS));"
    command = [node, "--input-type=module", "-e", script]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_no_sentence_is_in_the_html():
    assert texts_of((FOLDER / "index.html").read_text())[0] == []


def test_no_sentence_is_in_a_script():
    found = [f"{path.name}: {text}" for path in SCRIPTS for text in outside_in(path.read_text())]
    # The console is for developers; these are errors of programmers.
    found = [text for text in found if not re.search(r"WebGPU failed|strings\.js has no", text)]
    assert [text for text in found if "中文" not in text] == []  # the language's own name


def test_sentences_outside_the_table_are_found():
    for html in ("<p>Drop it</p>", '<img alt="A hat">', "<b>照片</b>", '<a title="Zoom">PNG</a>'):
        assert texts_of(html)[0], html
    assert texts_of('<p data-text="ready">PNG</p><img alt="" src="a.png">') == ([], {"ready"})
    for script in (
        'warn("No photo was found here.");',
        "element.title = `Photo ${number}`;",
        'say("照片");',
        'x.textContent = "Stop";',
        "throw new Error(`there is no backend ${name}: give wasm.`);",
    ):
        assert list(outside_in(script)), script
    for script in (
        'const type = "video/webm;codecs=vp9"; // A comment. It is long: so what?',
        'document.querySelector(`input[name="background"][value="${name}"]`).checked = true;',
        'say("ready"); x.textContent = `${scale} ×`;',
    ):
        assert not list(outside_in(script)), script


def test_both_languages_have_every_sentence():
    for key, sentences in table().items():
        assert len(sentences) == 2 and all(sentences), key
        english, chinese = sentences
        placeholders = [sorted(re.findall(r"\{\w+\}", text)) for text in sentences]
        assert placeholders[0] == placeholders[1], key
        assert not CHINESE.search(english), key
        assert CHINESE.search(chinese) or not re.search(r"[a-z]{3}", english), key
        assert not re.search(r"[,:;!?(] ?[\u4e00-\u9fff]|[\u4e00-\u9fff][,:;!?]", chinese), (
            f"{key}: Chinese has its own punctuation"
        )


def test_every_sentence_is_used_and_every_key_exists():
    used = texts_of((FOLDER / "index.html").read_text())[1]
    assert used <= set(table())
    scripts = "\n".join(path.read_text() for path in SCRIPTS)
    backgrounds = re.search(r"BACKGROUNDS = \{(.*)\}", scripts)[1].split(",")
    used |= {name.strip() for name in backgrounds}
    used |= set(re.findall(r"[\"'](\w+)[\"']", scripts))
    prefixes = tuple(re.findall(r"`(\w+_)\$\{", scripts))  # of keys that are put together
    used |= {key for key in table() if prefixes and key.startswith(prefixes)}
    assert set(table()) <= used, "sentences that nobody reads"
    calls = r"\b(?:say|warn|Problem|text)\(\"(\w+)\"|write\([^,]+, \"(\w+)\""
    asked = {a or b for a, b in re.findall(calls, scripts)}
    assert len(asked) > 20 and asked <= set(table())
