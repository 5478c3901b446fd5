"""House rules that no linter knows, over every Python file of the project."""

from __future__ import annotations

import ast
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES_MAX = 350
FUNCTION_LINES_MAX = 60
FOLDERS = ("src", "scripts", "tests", "benchmarks")


def python_files() -> list[Path]:
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return [ROOT / "run.py", *found]


def all_functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def called_names(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr, node
            elif isinstance(node.func, ast.Name):
                yield node.func.id, node


def test_files_are_found() -> None:
    assert {"run.py", "sink", "test_tidy.py"} <= {
        name for path in python_files() for name in path.relative_to(ROOT).parts
    }


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_file_keeps_the_house_rules(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert faults(text, is_test="tests" in path.relative_to(ROOT).parts) == []


def faults(text: str, *, is_test: bool) -> list[str]:
    """What is wrong with one file, each with its line."""
    tree = ast.parse(text)
    lines = text.count("\n")
    found = [f"{lines} lines, the limit is {FILE_LINES_MAX}"] * (lines > FILE_LINES_MAX)
    if ast.get_docstring(tree) is None:
        found.append("no module docstring")
    for function in all_functions(tree):
        size = (function.end_lineno or function.lineno) - function.lineno + 1
        if size > FUNCTION_LINES_MAX:
            found.append(f"line {function.lineno}: {function.name} has {size} lines")
    if is_test:
        found += [
            f"line {call.lineno}: a test waits for a moment, not for a time"
            for name, call in called_names(tree)
            if name == "sleep" and not (call.args and ast.unparse(call.args[0]) == "0")
        ]
    return found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x = 1\n", "no module docstring"),
        ('"""Doc."""\n' + "\n" * FILE_LINES_MAX, "351 lines, the limit is 350"),
        ('"""Doc."""\nimport time\ntime.sleep(1)\n', "a test waits for a moment"),
        ('"""Doc."""\nasync def f():\n' + "    pass\n" * FUNCTION_LINES_MAX, "f has 61 lines"),
    ],
)
def test_broken_house_rule_is_seen(text: str, fault: str) -> None:
    (found,) = faults(text, is_test=True)
    assert fault in found


def test_smallest_and_largest_file_that_keep_the_rules_pass() -> None:
    assert faults('"""Doc."""\n' + "\n" * (FILE_LINES_MAX - 1), is_test=True) == []


def test_folders_are_fences() -> None:
    linter = Path(sysconfig.get_path("scripts"), "lint-imports")
    ran = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"Contracts: \d+ kept, 0 broken", ran.stdout)


def test_nothing_in_the_sources_vanishes_under_python_o() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Name) and node.id == "__debug__")
    ]
    assert found == []
