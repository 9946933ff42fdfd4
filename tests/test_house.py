"""The house (CONTRIBUTING.md): imports point one way, and Paddle is loaded when it runs."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = sorted(path.stem for path in ROOT.glob("*.py"))
# Folder -> the folders that it may import beside itself.
BELOW = {
    "portraitnet": set(),
    "losses": {"portraitnet"},
    "models": {"portraitnet"},
    "transforms": {"portraitnet"},
    "metrics": {"portraitnet"},
    "kernels": {"portraitnet", "losses", "models"},
    "data": {"portraitnet", "transforms", "metrics"},
    "training": {
        "portraitnet", "losses", "models", "transforms", "metrics", "kernels", "data",
    },
}  # fmt: skip
BELOW |= {command: {*BELOW, *COMMANDS} for command in COMMANDS}
BELOW["apps"] = {*BELOW}
BELOW["benchmarks"] = {*BELOW}
# What the library needs to be imported, and what it needs only for some files and backends.
LIBRARY_NEEDS = {"numpy", "cv2", "tqdm"}
LIBRARY_MAY_USE = {"onnxruntime", "openvino", "paddle", "ai_edge_litert", "PIL", "pillow_heif"}
# portraitnet/server/
SERVER_NEEDS = {"fastapi", "fastapi_offline", "starlette", "prometheus_client", "uvicorn"}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def folder_of(module):
    return module.split(".")[0]


MODULES = {
    module_name(path): path
    for path in [*ROOT.glob("*.py"), *(p for f in BELOW for p in (ROOT / f).rglob("*.py"))]
    if "node_modules" not in path.parts
}


@cache
def imports(module):
    """(what a module imports at once, what its functions import), names of modules."""
    tree, at_once, later = ast.parse(MODULES[module].read_text()), set(), set()

    def visit(node, names):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, f"{module}: write the whole name of the module"
                below = (f"{child.module}.{alias.name}" for alias in child.names)
                names.update(each if each in MODULES else child.module for each in below)
            elif isinstance(child, (ast.FunctionDef, ast.Lambda)):
                visit(child, later)
            elif not is_for_types(child):
                visit(child, names)

    visit(tree, at_once)
    return frozenset(at_once), frozenset(later)


def is_for_types(node):
    """Whether a block is read by type checkers only."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@cache
def loaded_with(module):
    """Every module that is loaded when one is imported, without the standard library's."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in MODULES:
            todo += imports(name)[0]
            todo += [name.rpartition(".")[0]] if "." in name else []  # its package
    return {name for name in seen if folder_of(name) not in sys.stdlib_module_names}


@pytest.mark.parametrize("folder", BELOW)
def test_imports_point_down(folder):
    for module in (name for name in MODULES if folder_of(name) == folder):
        ours = {folder_of(name) for name in frozenset.union(*imports(module)) if name in MODULES}
        assert ours <= {folder, *BELOW[folder]}, f"{module} imports upwards"


def test_only_commands_apps_and_benchmarks_import_commands():
    for module in MODULES:
        used = {folder_of(name) for name in frozenset.union(*imports(module))} & {*COMMANDS}
        if folder_of(module) not in (*COMMANDS, "apps", "benchmarks"):
            assert not used, f"{module} imports {used}"


def test_no_module_needs_itself():
    for module in MODULES:
        for name in imports(module)[0]:
            assert name not in MODULES or module not in needed_by(name), f"{module} <-> {name}"


@cache
def needed_by(module):
    """As `loaded_with`, by imports alone: a module does not need the package that it lies in."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += [each for each in imports(name)[0] if each in MODULES]
    return seen - {module}


def test_the_library_needs_numpy_opencv_and_tqdm():
    for module in (name for name in MODULES if folder_of(name) == "portraitnet"):
        at_once, later = imports(module)
        foreign = [
            {folder_of(name) for name in names} - {"portraitnet"} - sys.stdlib_module_names
            for names in (at_once, later)
        ]
        server = SERVER_NEEDS if module.startswith("portraitnet.server.") else set()
        assert foreign[0] <= LIBRARY_NEEDS | server, (module, foreign)
        assert foreign[1] <= LIBRARY_MAY_USE | server, (module, foreign)


def test_nothing_of_the_server_is_loaded_before_it_serves():
    for module in (name for name in MODULES if folder_of(name) == "portraitnet"):
        if module not in ("portraitnet.server.app",):
            assert not SERVER_NEEDS & loaded_with(module), module


@pytest.mark.parametrize("name", [*COMMANDS, "portraitnet", "data", "metrics", "transforms"])
def test_help_and_wrong_flags_are_answered_without_paddle(name):
    if name == "hubconf":  # read by Paddle only
        return
    for module in (each for each in MODULES if folder_of(each) == name):
        assert not {"paddle", "av", "openvino", "onnxruntime"} & loaded_with(module), module


def test_functions_import_a_module_of_ours_only_for_what_it_loads():
    """Where importing it at once would load Paddle, or what is installed for one app only."""
    slow = {"paddle", "av", "visualdl", *SERVER_NEEDS}
    for module in MODULES:
        for name in imports(module)[1]:
            if name in MODULES:
                gained = loaded_with(name) - loaded_with(module)
                assert gained & slow, f"{module} may import {name} at the top"


def test_every_folder_of_code_is_named_here():
    hidden = {"tests", "examples", "docs", "weights", "recipes", "build", "runs"}
    folders = {path.parent.name for path in ROOT.glob("[a-z]*/*.py")} - hidden
    assert folders <= {*BELOW}
