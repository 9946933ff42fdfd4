"""What the documents promise: commands parse, paths exist, figures of the model hold."""

import re
import shlex
import sys
from pathlib import Path

import pytest

import check
import evaluate
import export
import label
import predict
import train

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("weights/*.md")])
SCRIPTS = {
    "train.py": train,
    "check.py": check,
    "evaluate.py": evaluate,
    "predict.py": predict,
    "label.py": label,
    "export.py": export,
}


def commands():
    """Every `python SCRIPT.py …` line of a fenced block, continuation lines joined."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"```\w*\n(.*?)```", document.read_text(), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                match = re.search(
                    r"python (?:-m paddle\.distributed\.launch .*?)?(\w+\.py)(.*)", line
                )
                if match and match[1] in SCRIPTS:
                    flags = re.split("#|&&", match[2])[0]
                    found.append((document.name, match[1], flags))
    return found


@pytest.mark.parametrize("document, script, flags", commands())
def test_commands_in_the_documents_parse(document, script, flags):
    SCRIPTS[script].parse_args(shlex.split(flags))


def test_the_documents_hold_commands():
    assert {script for _, script, _ in commands()} == set(SCRIPTS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text()):
        if not target.startswith(("http", "mailto")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


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
    assert sys.version_info >= (3, 10)
