"""The measured figures of the documents, from one place: benchmarks/figures.json.

    python -m benchmarks.figures fill
    python -m benchmarks.infer_speed --mediapipe FOLDER | tee inference.txt
    python -m benchmarks.figures take inference inference.txt --by "benchmarks.infer_speed ..."

A group of figures is a `table`, a list of rows, of which the first names the columns. `measured`
says on what processor, when and by which command, if a command made it; recipes/figures.sh runs the
commands. A cell may hold cells of other groups:

    {inference|OpenVINO, INT8, 1|ms}      the cell of a column, in the first row of that beginning
    {inference|OpenVINO, INT8, 1|ms:.1f}  its first number with one digit
    {inference|OpenVINO, INT8, 1|*}       all cells behind the label
    {inference|processor}                 a word of `measured`

A document has the table of a group between `<!-- figures: NAME -->` and `<!-- end -->`, after
`<!-- figures: NAME, measured -->` with a line of where and when. `sentences` are those of a
document that hold figures, each reference a number: `fill` changes the numbers in them.
"""

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks.table import heading, row
from portraitnet.cli import command, make_parser
from portraitnet.files import write_whole

ROOT = Path(__file__).parent.parent
FILE = ROOT / "benchmarks" / "figures.json"
FOLDERS = (".", "weights", "benchmarks", "docs", "apps/*", "examples")  # of the documents
BLOCK = re.compile(r"(<!-- figures: (\w+)(, measured)? -->\n).*?(<!-- end -->)", re.S)
REFERENCE = re.compile(r"\{(\w+)\|([^|{}]+)(?:\|([^|{}]+?)(?::(\.\df))?)?\}")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
INSTRUCTIONS = {  # flag of /proc/cpuinfo -> name
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_tile": "AMX",
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Keep the measured figures of the documents in one file.",
        example="python -m benchmarks.figures check",
    )
    add = parser.add_argument
    act = "check: name what differs in the documents; fill: write it there; take: read a result"
    add("act", choices=["check", "fill", "take"], help=act)
    words = "take: groups for the tables of a result, in their order (- leaves one out), then the "
    words += "file with what the command printed or with evaluate.py's JSON"
    add("words", nargs="*", metavar="GROUP", help=words)
    add("--by", metavar="COMMAND", default="", help="the command that made the result")
    args = parser.parse_args(argv)
    if args.act == "take" and (len(args.words) < 2 or not args.by):
        parser.error("take needs groups, a file and --by.")
    return args


def machine() -> dict[str, str]:
    """This machine as `measured` has it: processor, its instruction sets, cores."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"^model name\s*: (.*)$", info, re.M)
    words = set(re.findall(r"\w+", info))
    sets = [said for flag, said in INSTRUCTIONS.items() if flag in words]
    return {
        "processor": name[1] if name else platform.processor(),
        "instructions": ", ".join(sets) if sets != ["AVX2"] else "AVX2 alone",
        "cores": str(len(os.sched_getaffinity(0)) if name else os.cpu_count()),
    }


def value(groups: dict, match: re.Match) -> str:
    """What a reference stands for.

    Raises:
        ValueError: there is no such group, row or column.
    """
    name, label, column, digits = match.groups()
    group = groups.get(name, {"table": [[]]})
    if column is None and label in group.get("measured", {}):
        return group["measured"][label]
    columns, *rows = group["table"]
    held = [cells for cells in rows if cells[0] == label]
    held += [cells for cells in rows if f"{', '.join(cells)}, ".startswith(f"{label}, ")]
    if not held or column not in ("*", *columns):
        raise ValueError(f"{FILE.name} has no {match[0]}.")
    cells = held[0][1:] if column == "*" else [held[0][columns.index(column)]]
    cells = [REFERENCE.sub(lambda inner: value(groups, inner), cell) for cell in cells]
    if digits:
        cells = [f"{float(NUMBER.search(cell)[0]):{digits}}" for cell in cells]
    return " | ".join(cells)


def table(groups: dict, name: str, measured: bool = False) -> str:
    """The lines of a group's table; with `measured`, first a line of where and when."""
    if name not in groups:
        raise ValueError(f"{FILE.name} has no group {name}.")
    columns, *rows = groups[name]["table"]
    lines = [heading(columns)]
    lines += [REFERENCE.sub(lambda match: value(groups, match), row(cells)) for cells in rows]
    if measured:
        said = groups[name]["measured"]
        cores = f"{said['cores']} core{'s' * (said['cores'] != '1')}"
        where = f"{said['processor']}, {cores}; {said['instructions']}; {said['date']}:\n"
        lines.insert(0, where)
    return "".join(f"{line}\n" for line in lines)


def filled(text: str, groups: dict, sentences: Sequence[str]) -> str:
    """A document with the figures of the groups.

    Args:
        text: the document.
        groups: name -> group.
        sentences: those that it has, with references.

    Raises:
        ValueError: a group is missing, or a sentence is not there.
    """
    text = BLOCK.sub(lambda m: m[1] + table(groups, m[2], bool(m[3])) + m[4], text)
    for sentence in sentences:
        values = [value(groups, match) for match in REFERENCE.finditer(sentence)]
        words = re.split(r"\{[^{}]+\}", sentence)
        # Between the references the words as they are, at any line breaks.
        said = [r"\s+".join(re.escape(word) for word in re.split(r"\s+", w)) for w in words]
        found = re.search(NUMBER.pattern.join(f"({each})" for each in said), text)
        if not found:
            raise ValueError(f"A document lacks this sentence of {FILE.name}: {sentence}")
        changed = "".join(map("".join, zip(found.groups(), [*values, ""])))
        text = text[: found.start()] + changed + text[found.end() :]
    return text


def taken(text: str) -> list[list[list[str]]]:
    """Each table that a command printed, or the one of evaluate.py's JSON."""
    if not text.startswith("{"):
        found = re.findall(r"^\|.*\|\n\|[-|]+\|\n(?:\|.*\|\n?)*", text, re.M)
        lines = [[line for line in each.splitlines() if "|---" not in line] for each in found]
        return [[[c.strip() for c in line[1:-1].split("|")] for line in each] for each in lines]
    lists = json.loads(text)["lists"]

    def cell(each: dict, name: str) -> str:
        low, high = each["intervals"][name]
        return f"{100 * each['scores'][name]:.2f} ({100 * low:.1f}-{100 * high:.1f})"

    scores = next(iter(lists.values()))["scores"]
    rows = [[name, *(cell(each, name) for each in lists.values())] for name in scores]
    rows.append(["photos", *(str(each["photos"]) for each in lists.values())])
    return [[["score", *lists], *rows]]


def take(groups: dict, names: Sequence[str], result: str, by: str) -> None:
    """Put a command's tables into groups. One that exists keeps its choice of columns.

    Raises:
        ValueError: the result has too few tables, or a table lacks a column.
    """
    tables = taken(result)
    if len(tables) < len(names):
        raise ValueError(f"The result has {len(tables)} tables for {len(names)} groups.")
    for name, (columns, *rows) in zip(names, tables):
        if name == "-":
            continue
        kept = groups.get(name, {"table": [columns]})["table"][0]
        if not set(kept) <= set(columns):
            raise ValueError(f"{name} has the columns {kept}, the result has {columns}.")
        chosen = [[cells[columns.index(column)] for column in kept] for cells in rows]
        measured = {**machine(), "date": date.today().isoformat(), "command": by}
        groups[name] = {"measured": measured, "table": [kept, *chosen]}


def as_json(figures: dict) -> str:
    """JSON with one line a row of a table."""
    text = json.dumps(figures, indent=1, ensure_ascii=False)
    text = re.sub(r"\n {5,}", " ", re.sub(r"\[\n {5,}", "[", text))
    return re.sub(r"\n {4}\]", "]", text) + "\n"


def documents() -> list[Path]:
    """The documents whose figures are kept here."""
    return sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.md"))


@command("benchmarks.figures")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    figures = json.loads(FILE.read_text())
    if args.act == "take":
        *names, result = args.words
        take(figures["groups"], names, Path(result).read_text(), args.by)
        write_whole(FILE, as_json(figures).encode())
        return 0
    differ = 0
    for path in documents():
        name, text = str(path.relative_to(ROOT)), path.read_text()
        new = filled(text, figures["groups"], figures["sentences"].get(name, ()))
        if new != text:
            differ += 1
            print(f"{name} {'is filled' if args.act == 'fill' else 'has other figures'}.")
            if args.act == "fill":
                path.write_text(new)
    return int(differ > 0 and args.act == "check")


if __name__ == "__main__":
    sys.exit(main())
