"""``python -m tests.mutants.mutation``: changes the code in one place at a time, and lists what no test sees.

The planted bugs are chosen by people. These are generated: each operator and number of ``worker/core``, and each
operator and write of the Lua scripts. A sample is drawn by a seed, so that a run can be repeated.
"""

from __future__ import annotations

import ast
import copy
import json
import random
import re
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from tests.mutants.checks import CheckFailed, run_simulation, run_tests
from tests.mutants.tree import PROJECT, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CORE: Final = PROJECT / "worker" / "core"
SCRIPTS: Final = PROJECT / "worker" / "store" / "lua"

_COMPARE: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_BINARY: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
}
_LUA: Final = (
    (re.compile(r" == "), " ~= "),
    (re.compile(r" ~= "), " == "),
    (re.compile(r" < "), " <= "),
    (re.compile(r" <= "), " < "),
    (re.compile(r" > "), " >= "),
    (re.compile(r" >= "), " > "),
    (re.compile(r" and "), " or "),
    (re.compile(r" or "), " and "),
    (re.compile(r" \+ "), " - "),
    (re.compile(r" - "), " + "),
    (re.compile(r"\bnot "), ""),
    (re.compile(r"^\s*redis\.call\(.*\)$"), ""),
)

_UNIT: Final = ("tests/unit/core",)
_STORE: Final = ("tests/integration/store", "tests/integration/flush", "tests/integration/commands/test_forget.py")
_WORLDS: Final = 300
_SECONDS: Final = 300.0


class Change(NamedTuple):
    """One small change of one file.

    Attributes:
        path: of the file, from the project's root.
        line: on which it is.
        says: what was there and what is there now.
        text: the file's new text.
    """

    path: str
    line: int
    says: str
    text: str


def changes_of_core() -> Iterator[Change]:
    """Every change of the modules of the core."""
    for path in sorted(CORE.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for number, (node, was) in enumerate(_places(tree)):
            changed = copy.deepcopy(tree)
            twin = _places_list(changed)[number][0]
            _mutate(twin)
            says = f"{was} -> {ast.unparse(twin)}"
            yield Change(_name(path), node.lineno, says, ast.unparse(changed) + "\n")


def changes_of_scripts() -> Iterator[Change]:
    """Every change of the Lua scripts."""
    for path in sorted(SCRIPTS.glob("*.lua")):
        lines = path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines):
            code, dashes, comment = line.partition("--")
            for pattern, new in _LUA:
                for found in pattern.finditer(code):
                    changed = code[: found.start()] + new + code[found.end() :]
                    text = "\n".join([*lines[:number], changed + dashes + comment, *lines[number + 1 :]])
                    yield Change(_name(path), number + 1, f"{code.strip()} -> {changed.strip() or 'nothing'}", text)


def _name(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def _places_list(tree: ast.Module) -> list[tuple[ast.expr, str]]:
    return list(_places(tree))


def _places(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Each expression that can be changed, in order; annotations mean nothing at run time, and are left out."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.expr) and _can_change(child):
                yield child, ast.unparse(child)
            if isinstance(child, ast.AST):
                yield from _places(child)


def _can_change(node: ast.expr) -> bool:
    match node:
        case ast.Compare(ops=[only]):
            return type(only) in _COMPARE
        case ast.BinOp(op=op):
            return type(op) in _BINARY
        case ast.Constant(value=value):
            return isinstance(value, (bool, int))
        case ast.BoolOp() | ast.IfExp() | ast.UnaryOp(op=ast.Not()):
            return True
        case _:
            return False


def _mutate(node: ast.expr) -> None:
    match node:
        case ast.Compare(ops=[only]):
            node.ops = [_COMPARE[type(only)]()]
        case ast.BinOp(op=op):
            node.op = _BINARY[type(op)]()
        case ast.Constant(value=bool(value)):
            node.value = not value
        case ast.Constant(value=int(value)):
            node.value = value + 1
        case ast.BoolOp(op=op):
            node.op = ast.Or() if isinstance(op, ast.And) else ast.And()
        case ast.IfExp():
            node.body, node.orelse = node.orelse, node.body
        case ast.UnaryOp(operand=operand):
            node.operand = ast.UnaryOp(ast.Not(), operand)


def seen_by(tree: Tree, change: Change) -> str:
    """The check that sees a change in the copy, empty if none does; the copy is as before afterwards.

    Raises:
        CheckFailed: the checks could not be run.
    """
    file = tree.root / change.path
    before = file.read_text(encoding="utf-8")
    file.write_text(change.text, encoding="utf-8")
    try:
        if change.path.endswith(".lua"):
            return run_tests(tree, _STORE, _SECONDS).by
        try:
            own = f"tests/unit/core/test_{file.stem}.py"  # the module's own tests first: they are quick, and see most
            if (tree.root / own).exists() and (by := run_tests(tree, (own,), _SECONDS).by):
                return by
            return run_tests(tree, _UNIT, _SECONDS).by or run_simulation(tree, _WORLDS, _SECONDS).by
        except CheckFailed as error:
            if "status 2" in str(error) or "status 4" in str(error) or "simulation ended" in str(error):
                return "the code no longer loads"
            raise
    finally:
        file.write_text(before, encoding="utf-8")


def sample(what: str, number: int, seed: int) -> list[Change]:
    """Draws changes; the same seed draws the same ones from the same code.

    Args:
        what: ``core`` or ``scripts``.
        number: how many; 0 for all.
        seed: decides which.
    """
    every = [*(changes_of_core() if what == "core" else changes_of_scripts())]
    random.Random(seed).shuffle(every)
    return every[:number] if number else every


@click.command()
@click.option("--of", "what", type=click.Choice(["core", "scripts"]), default="core", show_default=True)
@click.option("--sample", "number", type=click.IntRange(min=0), default=0, help="How many changes; 0 for all.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--seconds", type=float, default=1e9, help="Begin no further change after this time.")
def main(*, what: str, number: int, seed: int, seconds: float) -> None:
    """Changes the code in one place at a time, and lists what no test sees. Exit status 1 if anything survived."""
    began, survived, tried, killed = time.monotonic(), [], 0, 0
    every = sample(what, 0, seed)
    with Tree() as tree:
        for change in every[: number or None]:
            if time.monotonic() - began > seconds:
                break
            tried += 1
            try:
                by = seen_by(tree, change)
            except CheckFailed as error:
                by = f"it hangs: {str(error)[:80]}"
            if by:
                killed += 1
            else:
                survived.append(change._replace(text="")._asdict())
            place = f"{change.path}:{change.line}"
            click.echo(f"{'seen' if by else 'SURVIVED'}  {place}  {change.says[:100]!r}  {by}", err=True)
    click.echo(json.dumps({"of": what, "places": len(every), "tried": tried, "seen": killed, "survived": survived}))
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
