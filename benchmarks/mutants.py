"""Break random places of the library and see a test fail: python -m benchmarks.mutants

Draws places of training/, data/, metrics/ and portraitnet/, breaks each in a copy of the
repository's tracked files with a random mutation of cosmic-ray, and runs the tests that execute
the broken line. One process imports the large packages once and forks for each mutant. Linux only.
Needs `pip install cosmic-ray pytest-cov` besides requirements-dev.txt.
"""

import ast
import contextlib
import difflib
import gc
import hashlib
import importlib
import itertools
import json
import math
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.mutations import ROOT, copy_tracked
from portraitnet.cli import command, float_range, int_range, make_parser

PARTS = ("training", "data", "metrics", "portraitnet")
PACKAGES = ("paddle", "onnxruntime", "cv2", "pytest", "fastapi", "PIL.Image", "tqdm")
QUICKLY = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
SECONDS = itertools.count(10**9)
MEMORY = 8 << 30  # bytes that a broken loop may take
# The main process names the test by itself. The others' name is in pytest's variable.
COVERAGE = """[run]
source = {parts}
data_file = {folder}/coverage
concurrency = multiprocessing,thread
context = ${{PYTEST_CURRENT_TEST-}}
"""


def set_limit(seconds: float) -> None:
    """End this process after so much of a core's time, or after a wait of five times as long."""
    signal.setitimer(signal.ITIMER_PROF, seconds)  # without a handler its signal ends the process
    signal.alarm(math.ceil(5 * seconds))


class Watch:
    """Plugin of pytest: notes which test runs and how long each took, and ends one that hangs."""

    def __init__(self, note: Path, limit: Callable[[str], float]):
        self.note, self.limit = note, limit
        self.seconds, self.failed = {}, set()

    def pytest_runtest_logstart(self, nodeid):
        self.note.write_text(nodeid)
        set_limit(self.limit(nodeid))

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.outcome != "passed":
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self):
        set_limit(60)


def run_pytest(
    copy: Path, arguments: list[str], note: Path, limit: Callable[[str], float], **environment: str
) -> None:
    """Run pytest in this process, which must be a fork of its own; end with its exit code."""
    import resource  # not on Windows

    import pytest

    os.setsid()
    os.chdir(copy)
    os.environ.update(PYTHONPATH=str(copy), **environment)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the tests' bytecode is worth keeping
    sys.dont_write_bytecode = False
    sys.path[0] = str(copy)
    own = {path.stem for path in copy.iterdir()}
    for name in list(sys.modules):  # the copy's modules are imported, not this repository's
        if name.partition(".")[0] in own:
            del sys.modules[name]
    sys.modules["__main__"] = importlib.import_module("pytest.__main__")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    with open(note.with_suffix(".log"), "w") as log, open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    watch = Watch(note, limit)
    set_limit(60)
    gc.freeze()  # else a collection copies every page of memory
    code = pytest.main(["-q", "-p", "no:cacheprovider", *arguments], plugins=[watch])
    note.with_suffix(".json").write_text(json.dumps([watch.seconds, sorted(watch.failed)]))
    sys.stdout.flush()
    os._exit(code)


def forked(function: Callable, *arguments, **named) -> int:
    """Call a function in a fork. Returns its exit code, or minus the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            function(*arguments, **named)
        finally:
            os._exit(3)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what the test had started


def measure(folder: Path, copy: Path) -> None:
    """Run the tests once and keep, in `folder`, which lines each executes and how long it takes."""
    settings = folder / "coveragerc"
    parts = ",".join(str(copy / part) for part in PARTS)
    settings.write_text(COVERAGE.format(parts=parts, folder=folder))
    arguments = ["--cov", f"--cov-config={settings}", "--cov-context=test", "--cov-report="]
    note = folder / "measured"
    # Subprocesses measure themselves; coverage's .pth file looks for this variable.
    started = {"COVERAGE_PROCESS_START": str(settings)}
    code = forked(run_pytest, copy, arguments, note, lambda _: 1200, **started)
    if code not in (0, 1):
        raise RuntimeError(f"The tests could not be measured, see {note.with_suffix('.log')}.")
    seconds, failed = json.loads(note.with_suffix(".json").read_text())
    passed = {test: value for test, value in seconds.items() if test not in failed}
    (folder / "seconds.json").write_text(json.dumps(passed))


def statements(tree: ast.AST) -> Iterator[tuple[int, int, bool]]:
    """First and last line of each statement, a block's without its body; whether an import runs it.

    The statements inside a block come after it.
    """

    def visit(node, imported):
        for child in ast.iter_child_nodes(node):
            inside = imported and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            if isinstance(child, (ast.stmt, ast.ExceptHandler)):
                first = min(
                    [child.lineno, *(d.lineno for d in getattr(child, "decorator_list", []))]
                )
                body = getattr(child, "body", None)
                last = max(child.lineno, body[0].lineno - 1) if body else child.end_lineno
                yield first, last, inside
            yield from visit(child, inside)

    yield from visit(tree, True)


def annotations(tree: ast.AST) -> list[ast.expr]:
    """The types of arguments, results and variables, which no test can see."""
    found = []
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            found += [getattr(node, name)] if getattr(node, name, None) is not None else []
    return found


def sources(root: Path, part: str) -> list[Path]:
    return sorted((root / part).rglob("*.py"))


def list_mutants(copy: Path) -> list[list[dict]]:
    """The mutants of every place: path, operator, occurrence, line, column."""
    from cosmic_ray.commands.init import _all_work_items

    paths = sorted(path for part in PARTS for path in sources(copy, part))
    places = {}
    for path in paths:
        lines = path.read_text().splitlines()
        types = annotations(ast.parse(path.read_text()))
        for item in _all_work_items([path], {}):
            spec = item.mutations[0]
            start, end = tuple(spec.start_pos), tuple(spec.end_pos)
            if any(
                (t.lineno, t.col_offset) <= start < (t.end_lineno, t.end_col_offset) for t in types
            ):
                continue
            if "os.kill(" in lines[start[0] - 1]:  # a broken one could end any process
                continue
            mutant = {
                "path": str(path.relative_to(copy)),
                "operator": spec.operator_name,
                "occurrence": spec.occurrence,
                "line": start[0],
                "column": start[1],
            }
            places.setdefault((path, start, end), []).append(mutant)
    return list(places.values())


def draw(copy: Path, count: int, seed: int) -> list[dict]:
    """Random places of the code, and for each one of its mutants that compiles."""
    rng = random.Random(seed)
    places, drawn = list_mutants(copy), []
    rng.shuffle(places)
    while len(drawn) < count and places:
        mutant = rng.choice(places.pop())
        with contextlib.suppress(SyntaxError):
            compile(mutate((copy / mutant["path"]).read_text(), mutant), mutant["path"], "exec")
            drawn.append(mutant)
    return drawn


def mutate(text: str, mutant: dict) -> str:
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    return mutate_code(text, get_operator(mutant["operator"])(), mutant["occurrence"])


def write_source(file: Path, code: str) -> None:
    """Write a module so that Python's cached bytecode of another version is never taken for it."""
    file.write_text(code)
    os.utime(file, (next(SECONDS),) * 2)  # Python compares the second and the size


class Choice:
    """Which tests execute a line, those of the part's own test file first, then the fastest."""

    def __init__(self, folder: Path, copy: Path):
        from coverage import CoverageData

        self.copy = copy
        self.seconds = json.loads((folder / "seconds.json").read_text())
        self.data = CoverageData(str(folder / "coverage"))
        self.data.read()
        self.refused = set()  # fail in this order in an unbroken copy too

    def tests(self, path: str, line: int) -> list[str]:
        file = self.copy / path
        contexts = self.data.contexts_by_lineno(str(file))
        spans = [s for s in statements(ast.parse(file.read_text())) if s[0] <= line <= s[1]]
        first, last, imported = spans[-1]
        # An import runs once, before or within any test: every test of the file may see its lines.
        lines = contexts if imported else range(first, last + 1)
        names = {c.split("|")[0].split(" (")[0] for n in lines for c in contexts.get(n, ())}
        own = f"test_{file.stem}.py"
        # The server's processes are killed with what they measured.
        names = names or {name for name in self.seconds if f"test_{file.parent.name}.py" in name}
        return sorted(
            (names & self.seconds.keys()) - self.refused,
            key=lambda name: (own not in name, self.seconds[name]),
        )


def run_mutant(mutant: dict, choice: Choice, folder: Path, budget: float) -> dict:
    """Break one place and run its tests, at most `budget` seconds of them by their measured time.

    Returns:
        `mutant` with "noticed" (the test that failed or hung, or ""), "code" (how the tests ended;
        negative: by which signal), "tests" (how many execute the line), "left" (how many of them
        the budget left out) and "diff".
    """
    file, note = choice.copy / mutant["path"], folder / "running"
    text = file.read_text()
    broken = mutate(text, mutant)
    tests = choice.tests(mutant["path"], mutant["line"])
    chosen, total = [], 0.0
    for test in tests:
        total += choice.seconds[test]
        if total > budget and chosen:
            break
        chosen.append(test)

    noticed, code = "", 0
    if chosen:
        note.write_text("")
        write_source(file, broken)

        def limit(test):
            return 15 + 5 * choice.seconds.get(test, 0)

        code = forked(run_pytest, choice.copy, ["-x", *chosen], note, limit, **QUICKLY)
        if code != 0:
            noticed = note.read_text() or "import"
        write_source(file, text)
    changed = difflib.unified_diff(text.splitlines(), broken.splitlines(), n=0, lineterm="")
    diff = [line for line in changed if line[:2] not in ("--", "++", "@@")]
    return mutant | {
        "noticed": noticed,
        "code": code,
        "tests": len(tests),
        "left": len(tests) - len(chosen),
        "diff": diff,
    }


def parse_args(argv=None):
    parser = make_parser(
        "Break random places of the library, and see a test fail.",
        "python -m benchmarks.mutants --folder ../mutants --count 300 --seed 1",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        required=True,
        help="of copy, measured tests and results; an unchanged tree's run continues there",
    )
    parser.add_argument("--count", type=int_range(1), default=300, help="number of mutants")
    parser.add_argument("--seed", type=int_range(0), default=1, help="of the draw")
    parser.add_argument(
        "--budget", type=float_range(1), default=60, help="seconds of tests for a mutant"
    )
    return parser.parse_args(argv)


@command("mutants")
def main(argv=None):
    args = parse_args(argv)
    tree = b"".join(path.read_bytes() for part in (*PARTS, "tests") for path in sources(ROOT, part))
    folder = args.folder.resolve() / hashlib.sha256(tree).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    copy, results = folder / "copy", folder / "results.jsonl"
    shutil.rmtree(copy, ignore_errors=True)
    copy_tracked(copy)
    for package in PACKAGES:
        importlib.import_module(package)
    if not (folder / "seconds.json").exists():
        measure(folder, copy)
    plan = folder / f"drawn_{args.count}_{args.seed}.json"
    if not plan.exists():
        plan.write_text(json.dumps(draw(copy, args.count, args.seed)))
    drawn = json.loads(plan.read_text())
    lines = results.read_text().splitlines() if results.exists() else []
    done = [json.loads(line) for line in lines]
    choice = Choice(folder, copy)
    for mutant in drawn[len(done) :]:
        started = time.monotonic()
        done.append(run_mutant(mutant, choice, folder, args.budget))
        done[-1]["seconds"] = round(time.monotonic() - started, 1)
        with results.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
    witnesses = sorted({mutant["noticed"] for mutant in done} & choice.seconds.keys())
    forked(run_pytest, copy, witnesses, folder / "unbroken", lambda _: 600, **QUICKLY)
    choice.refused = set(json.loads((folder / "unbroken.json").read_text())[1])
    for i, mutant in enumerate(done):
        if mutant["noticed"] in choice.refused:  # as it is: no sign of the mutant
            done[i] = run_mutant(mutant, choice, folder, args.budget)
    survivors = [mutant for mutant in done if not mutant["noticed"]]
    for mutant in survivors:
        print(
            f"{mutant['path']}:{mutant['line']}: {mutant['tests']} tests, {mutant['left']} not run"
        )
        print(*mutant["diff"], sep="\n")
    print(f"{len(done) - len(survivors)} of {len(done)} mutants were noticed")


if __name__ == "__main__":
    sys.exit(main())
