"""The field's words (CONTRIBUTING.md): none of those that were given up is in code or documents.

Each word has the reasons why a text may still hold it: names of other people's programs, and other
meanings. Whatever else holds it fails.
"""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = "apps benchmarks data docs examples kernels losses metrics models portraitnet recipes"
FOLDERS += " tests training transforms weights"
SUFFIXES = {".py", ".js", ".css", ".html", ".h", ".c", ".cpp", ".sh", ".md", ".txt"}
LEFT_OUT = (
    "docs/log/",  # the diary keeps the words of its day
    "CHANGELOG.md",  # names the old words on purpose
    "node_modules/",
    "tests/test_words.py",
)


def words(*forms):
    """Pattern of words in a text or in a name: word, a_word, WORD, aWord, Word2; not swords."""
    return "|".join(
        rf"(?<![a-zA-Z]){form}(?![a-z])|(?<![A-Z]){form.capitalize()}(?![a-z])"
        rf"|(?<![A-Z]){form.upper()}(?![A-Z])"
        for form in forms
    )


class Word(NamedTuple):
    """A word that is not said.

    Attributes:
        pattern: regular expression of it.
        say: the field's word.
        bad: texts that hold it.
        lawful: regular expressions of what may hold it, each with its reason.
    """

    pattern: str
    say: str
    bad: tuple[str, ...]
    lawful: dict[str, str] = {}


WORDS = {
    "film": Word(
        words("film", "films", "filmed", "filming"), "video", ("a film", "hard_films", "readFilm")
    ),
    "view": Word(
        words("view", "views", "viewed"),
        "network input, input size",
        ("a photo's view", "view_size", "inputView"),
        {
            r"viewBox|viewport|scrollIntoView": "of the browser",
            r"DataView": "of JavaScript",
            r"self\.view|^ +view: .*": "a memoryview in models/safe_load.py",
        },
    ),
    "texture": Word(
        words("texture", "textures"),
        "photometric copy",
        ("the texture of a sample", "texture_prob"),
        {r"photo's\s+texture": "what cloth and walls have"},
    ),
    "thing": Word(
        words("thing", "things"), "occluder, occlusion", ("a thing in front", "thing_prob")
    ),
    "empty sample": Word(
        r"[eE]mpty[\s_-]+(samples?|share)", "negative sample", ("an empty sample", "empty_share")
    ),
    "share": Word(
        words("share", "shares"),
        "fraction, weight, alpha",
        ("the person's share", "teacher_share", "a share of 3 %", "share = mask / 255"),
        {
            r"shares?[\s_]+(the|a|an|one)(?![a-z])": "the verb: to share the folder",
            r"(losses|threads)[\s_]+share\b": "the verb, its object before it",
            r"share_inputs": "of OpenVINO",
            r"navigator\.share|canShare": "of the browser",
            r"\"Share\"": "the button that every phone has",
        },
    ),
    "smoke": Word(
        words("smoke", "smokes", "smoked"), "interior transparency", ("no smoke", '"smoke"')
    ),
    "whole(), real()": Word(
        r"(?<![\w.])(whole|real)\(", "int_range(), float_range()", ("type=whole(1)", "real(0, 1)")
    ),
    "told": Word(words("told"), "message", ("the user is told", "told = error")),
    "Run, claim": Word(
        r"class Run\b|(?<![\w.])Run\(|(?<![\w.])claim\(",
        "TrainingState, lock_output",
        ("class Run:", "Run(model)", "claim(folder)"),
    ),
    "Selfie, Salient": Word(
        r"(?<![A-Za-z])(Selfie|Salient)(?![a-z])",
        "MediaPipeSelfie, ISNet",
        ("class Selfie:", "Salient(path)"),
        {
            r"MediaPipe('s)?\s+Selfie": "the program's name",
            r"SelfieSegmentation": "the program's class in JavaScript",
        },
    ),
    "taught": Word(words("taught"), "distilled", ("a photo is taught", "taught = indices")),
    "card": Word(
        words("card", "cards"),
        "model card",
        ("the weights' card",),
        {
            r"[mM]odel\s+card|model_card": "the field's word",
            r"graphics\s+cards?|GraphicsCard": "the processor",
            r"--card\b": "a colour of the page",
        },
    ),
}


def texts():
    """(path, text) of every file that is read: code, help texts in it, and documents."""
    paths = [
        *ROOT.glob("*"),
        *(p for folder in FOLDERS.split() for p in (ROOT / folder).rglob("*")),
    ]
    for path in sorted(path for path in paths if path.suffix in SUFFIXES):
        name = str(path.relative_to(ROOT))
        if not any(left in name for left in LEFT_OUT):
            yield name, path.read_text()


TEXTS = dict(texts())


def found(word, text):
    """(line, what it holds) of each place that holds a word without a lawful reason."""
    for lawful in word.lawful:
        text = re.sub(lawful, lambda match: re.sub(r"\S", " ", match[0]), text, flags=re.M)
    lines = text.splitlines()
    for match in re.finditer(word.pattern, text):
        number = text.count("\n", 0, match.start())
        yield number + 1, lines[number].strip()


@pytest.mark.parametrize("name", WORDS)
def test_code_and_documents_hold_the_fields_word(name):
    word = WORDS[name]
    places = [
        f"{path}:{n}: {line}" for path, text in TEXTS.items() for n, line in found(word, text)
    ]
    assert not places, f"say {word.say}:\n" + "\n".join(places)


@pytest.mark.parametrize("name", WORDS)
def test_each_pattern_finds_its_word(name):
    for text in WORDS[name].bad:
        assert list(found(WORDS[name], f"before\n{text}\n")) == [(2, text)]


def test_what_is_lawful_is_not_found():
    for name, text in (
        ("view", "memoryview(data), new DataView(buffer), <svg viewBox='0'>, a preview, reviews"),
        ("share", "the threads may share the folder; infer(x, share_inputs=True), shared hardware"),
        ("share", 'navigator.share(file); send: ["Share"]'),
        ("texture", "a textured photo; the photo's texture"),
        ("thing", "nothing, something, anything, clothing"),
        ("card", "the model\ncard, a graphics card, cardinal"),
        ("Selfie, Salient", "MediaPipeSelfie, a selfie, MediaPipe's Selfie Segmentation, salient"),
        ("whole(), real()", "np.real(x), the whole (all of it)"),
        ("Run, claim", "Run `pip install`, RunBatch(x), the header claims"),
    ):
        assert not list(found(WORDS[name], text)), name


def names_in(tree):
    """Every name that a module of Python gives to something."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def extreme(name):
    """Whether least or most is a word of a name; `at_least` and `at_most` are prose."""
    return bool(re.search(r"(?<!at)(?:^|_)(least|most)(_|$)", name.lower()))


@pytest.mark.parametrize("suffix", [".py", ".js"])
def test_names_say_min_and_max(suffix):
    """Names of Python, flags and arguments in its texts; in JavaScript also aMost."""
    places = []
    for path, text in TEXTS.items():
        if not path.endswith(suffix):
            continue
        if suffix == ".py":
            names = set(filter(extreme, names_in(ast.parse(text))))
            names |= set(re.findall(r"--(?:least|most)_\w+|^ +(?:least|most): ", text, re.M))
        else:
            names = set(
                re.findall(r"\b(?:least|most)(?=[A-Z_])\w+|\b\w*[a-z](?:Least|Most)\b", text)
            )
        places += [f"{path}: {name}" for name in sorted(names)]
    assert not places, "say min and max:\n" + "\n".join(places)


def test_extreme_names_are_found():
    assert all(map(extreme, ("least_scale", "MOST_PIXELS", "most", "the_least")))
    assert not any(map(extreme, ("at_most_two", "almost", "mostly_person", "leastways")))
