"""What the documents promise: commands parse, paths exist, figures of the model hold."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.mutations import MUTATIONS

ROOT = Path(__file__).parent.parent
RECIPES = sorted(ROOT.glob("recipes/*.sh"))
DOCUMENTS = sorted(
    path
    for folder in (".", "docs", "weights", "examples", "benchmarks", "apps/*", "apps/*/*")
    for path in ROOT.glob(f"{folder}/*.md")
)
# Every command: a script, or what `python -m` runs.
SCRIPTS = ["train", "check", "evaluate", "predict", "label", "export"]
APPS = ["apps.video", "apps.web", "apps.server", "transforms"]
BENCHMARKS = [
    f"benchmarks.{path.stem}"
    for path in sorted(ROOT.glob("benchmarks/*.py"))
    if path.stem not in ("table", "torch_portraitnet")  # no command; needs PyTorch
]
COMMANDS = [*SCRIPTS, *APPS, *BENCHMARKS, "data.composites"]
COMMANDS += ["models.movenet", "models.selfie", "models.widen"]
LAUNCHER = ["-m", "paddle.distributed.launch"]


def parser_of(command):
    """`parse_args` of a command."""
    if command == "predict":
        command = "portraitnet"
    name = f"{command}.__main__" if (ROOT / command.replace(".", "/")).is_dir() else command
    return importlib.import_module(name).parse_args


def command_of(words):
    """The words after `python` -> (command, its arguments), or None if it is none of ours."""
    if words[:2] == LAUNCHER:
        script = next(i for i, word in enumerate(words) if word.endswith(".py"))
        words = words[script:]
    name = words[1] if words[0] == "-m" else words[0].removesuffix(".py")
    arguments = words[2:] if words[0] == "-m" else words[1:]
    if name == "portraitnet":  # what `pip install .` installs: predict's command line
        name = "predict"
    if name in COMMANDS:
        return name, arguments
    if name.startswith("examples/") and (ROOT / f"{name}.py").is_file():
        return None
    # Anything else that looks like a part of this project does not exist.
    assert name in ("pytest", "venv", "http.server", "-c", "-"), f"no command {name}"
    return None


def blocks(document):
    """The fenced blocks of a document."""
    return re.findall(r"```\w*\n(.*?)```", document.read_text(), re.S)


def commands_in(document):
    """Every `python …` of a document: those in fenced blocks, and those between backticks that have
    arguments (without, they only name a command, which must exist). "…" is any value."""
    text = document.read_text()
    fenced = "".join(blocks(document)).replace("\\\n", " ").splitlines()
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    found = []
    for line in fenced + inline:
        for part in re.split(r"&&|\|", line):
            match = re.search(r"(?:^|\s)python3? (.+)", part.split(" > ")[0])
            if match and "..." not in part:
                command = command_of(shlex.split(match[1], comments=True))
                if command and (command[1] or line in fenced):
                    found.append(command)
    return found


def commands_of_recipe(recipe, folder):
    """Every `python …` that a recipe runs, printed by a shell in which python only prints."""
    define = 'python() { printf "%s\\n" "$@" ""; }\n'
    done = subprocess.run(
        ["bash", "-c", define + recipe.read_text()], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    calls = [call.splitlines() for call in done.stdout.strip().split("\n\n")]
    return [command_of(call) for call in calls if call[0] != "-"]  # that is a script of its own


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_the_documents_parse(document):
    for command, arguments in commands_in(document):
        parses(command, arguments, document.name)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_commands_of_the_recipes_parse(recipe, tmp_path):
    commands = commands_of_recipe(recipe, tmp_path)
    assert len(commands) > 1
    for command, arguments in commands:
        parses(command, arguments, recipe.name)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_flags_named_with_a_command_are_its_own(document, capsys):
    """As in `predict.py --max_pixels`, of which the rest is left out."""
    for name, words in re.findall(r"`(\w+)\.py ([^`]+)`", document.read_text()):
        with pytest.raises(SystemExit):
            parser_of(name)(["--help"])
        known = capsys.readouterr().out
        for flag in re.findall(r"--\w+", words):
            assert re.search(rf"{flag}\b", known), f"{document.name}: {name}.py has no {flag}"


def test_every_kind_of_command_is_parsed_in_the_documents(tmp_path):
    """A wrong flag is found in a fenced block, between backticks and over a line's end."""
    document = tmp_path / "a.md"
    for command in (
        "check.py DIR",
        "-m apps.video a.mp4",
        "-m transforms a.png",
        "-m benchmarks.soak photos",
    ):
        for form in (
            "```\npython {} --wrong 1\n```\n",
            "`python {}\n--wrong 1`",
            "```\nnice python3 {} \\\n  --wrong … && true\n```",
        ):
            document.write_text(form.format(command))
            ((name, arguments),) = commands_in(document)
            with pytest.raises(pytest.fail.Exception, match="--wrong .* is wrong usage"):
                parses(name, arguments, "")
    for command in ("dataset.py a", "pairs.py a", "-m apps.none a"):
        document.write_text(f"`python {command}`")
        with pytest.raises(AssertionError, match="no command"):
            commands_in(document)


def parses(command, arguments, where):
    try:
        parser_of(command)(arguments)
    except SystemExit:
        pytest.fail(f"{where}: {command} {shlex.join(arguments)} is wrong usage")


def test_the_documents_hold_every_command():
    held = {command for document in DOCUMENTS for command, _ in commands_in(document)}
    assert held >= {*SCRIPTS, *APPS}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_clean_and_its_example_parses(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        parser_of(command)(["--help"])
    message = capsys.readouterr().out
    assert stopped.value.code == 0
    for stain in ("None", "Path(", "['", "('", str(ROOT)):
        assert stain not in message, stain
    example = message.split("example:\n")[1].strip()
    name, arguments = command_of(shlex.split(example.removeprefix("python ")))
    assert name == command
    parses(name, arguments, "--help")


def test_the_chinese_readme_has_the_same_blocks():
    """But for the comments, and for what is English alone: the tree and BibTeX."""

    def code(name):
        text = [re.sub(r" *#.*", "", block) for block in blocks(ROOT / name)]
        return [block for block in text if not block.startswith(("train.py  ", "@"))]

    assert code("README_zh.md") == code("README.md")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text()):
        if not target.startswith(("http", "mailto")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_links_to_headings_lead_there():
    for document in DOCUMENTS:
        for target, heading in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", document.read_text()):
            if not target.startswith("http"):
                text = (document.parent / target if target else document).read_text()
                headings = re.findall(r"^#+ (.*)$", text, re.M)
                anchors = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]
                assert heading in anchors, f"{document.name} links to {target}#{heading}"


def test_every_path_of_the_tree_exists():
    tree = re.search(r"## Files\n.*?```\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    paths = [name for line in tree.splitlines() for name in line.split("  ")[0].split()]
    assert len(paths) > 15
    for path in paths:
        assert (ROOT / path).exists(), path


def test_run_time_packages_are_five():
    lines = (ROOT / "requirements.txt").read_text().split()
    names = sorted(re.split(r"[=<>~]", line)[0] for line in lines)
    assert names == ["numpy", "opencv-python", "paddlepaddle", "tqdm", "visualdl"]
    more = "onnxruntime openvino av onnx pytest playwright hypothesis pyvirtualcam".split()
    without = f"import sys; sys.modules.update(dict.fromkeys({more})); import {', '.join(SCRIPTS)}"
    done = subprocess.run([sys.executable, "-c", without], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_reliability_names_every_broken_line_and_tests_that_exist():
    text = (ROOT / "docs" / "reliability.md").read_text()
    rows = re.findall(r"^\| (.+) \| `(.+)` \| `(tests/.+)` \|$", text, re.M)
    assert rows == [(each.promise, each.file, each.test) for each in MUTATIONS]
    for words in re.findall(r"`(?:pytest )?[^`\n]*?(tests/[^`]+)`", text):
        path, _, rest = words.partition(" ")
        held = (ROOT / path).read_text()
        expression = re.search(r"""-k ("[^"]+"|\S+)""", rest)
        for word in re.split(" or | and ", expression[1].strip('"')) if expression else ():
            assert re.search(rf"def test\w*{word}|def {word}", held), f"{path} has no {word}"
