"""``python -m tests.mutants.mutation``: changes the code in one place at a time, and lists what no test sees.

The planted bugs are chosen by people. These are generated: each operator and number of ``worker/core``, and each
operator and write of the Lua scripts. A sample is drawn by a seed, so that a run can be repeated. What is most likely
to see a change is run first: the tests that name its module, or those that run its script.
"""

from __future__ import annotations

import ast
import json
import random
import re
import signal
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from tests.mutants.checks import CheckFailed, run_simulation, run_tests, run_timed
from tests.mutants.tree import PROJECT, Tree
from tests.proof.published import add_run, made

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
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

_UNIT: Final = "tests/unit/core"
_NAMING: Final = ("tests/unit", "tests/simulation", "tests/integration")
"""Where the tests that name a module of the core are looked for."""
_RUNNING: Final = (
    "tests/integration/store",
    "tests/integration/flush",
    "tests/integration/redis/test_lost_changes.py",
    "tests/simulation/test_flow_in_lua.py",
    *(
        f"tests/integration/commands/test_{name}.py"
        for name in ("check", "commands", "dead_letters", "forget", "parked", "pause", "repartition")
    ),
)
"""The tests that run the scripts."""
_IN_LUA_TOO: Final = {"concurrency", "flow", "rate"}
"""Modules of the core whose arithmetic is in a script, too; a test compares the two, and names one of them alone."""
_COMPARES: Final = "tests/simulation/test_flow_in_lua.py"
_RECORDER: Final = """
from os import environ as _environ

_FILES = {each.name: each.read_text(encoding="utf-8") for each in files("worker.store").joinpath("lua").iterdir()}
_really = _evalsha


def _evalsha(call):
    with open(%r, "a", encoding="utf-8") as out:
        for name, text in _FILES.items():
            if text in call.script.text:
                out.write(name + " " + _environ.get("PYTEST_CURRENT_TEST", "") + "\\n")
    return _really(call)
"""
"""Added to a copy of ``worker/store/scripts.py``, it writes which scripts a test runs."""
_TOOK: Final = re.compile(r"^([0-9.]+)s call +(\S+::.*)$", re.MULTILINE)
_WORLDS: Final = 300
_SECONDS: Final = 600.0


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
        for node, was in [*_places(tree)]:
            before = dict(vars(node))
            _mutate(node)
            yield Change(_name(path), node.lineno, f"{was} -> {ast.unparse(node)}", ast.unparse(tree) + "\n")
            vars(node).update(before)


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


class Known(NamedTuple):
    """What is known of the tests, without any change.

    Attributes:
        reached: which of them run each script, the quick ones first.
        green: those that were seen to be green, without their parameters; it grows.
    """

    reached: dict[str, list[str]]
    green: set[str]


def prepared(tree: Tree, what: str) -> Known:
    """Makes the copy ready, and runs most of the tests in it.

    Raises:
        CheckFailed: one is red without any change.
    """
    if what == "core":  # as its changes are written: without comments, and with other lines
        for path in sorted(CORE.glob("*.py")):
            (tree.root / _name(path)).write_text(ast.unparse(ast.parse(path.read_text(encoding="utf-8"))) + "\n")
        return Known({}, _functions(_times(tree, "-m", "not slow", _UNIT)))
    reached, took = reached_by(tree, _RUNNING)
    return Known(reached, _functions(took))


def reached_by(tree: Tree, tests: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Which of the tests run each script, the quick ones first; and what each test takes (seconds).

    Raises:
        CheckFailed: one is red.
    """
    record = tree.root / "reached"
    file = tree.root / "worker" / "store" / "scripts.py"
    before = file.read_text(encoding="utf-8")
    file.write_text(before + _RECORDER % str(record), encoding="utf-8")
    took = _times(tree, *tests)
    file.write_text(before, encoding="utf-8")
    found: dict[str, set[str]] = {}
    for line in record.read_text(encoding="utf-8").splitlines():
        script, _, test = line.partition(" ")
        found.setdefault(script, set()).add(test.rpartition(" (")[0])
    texts = {test: (tree.root / test.partition("::")[0]).read_text(encoding="utf-8") for test in took}
    for name in found:  # some tests run the text of a script by themselves
        found[name] |= {test for test, text in texts.items() if f'"{name}"' in text}
    return {name: sorted(some & took.keys(), key=lambda test: (took[test], test)) for name, some in found.items()}, took


def _functions(tests: Iterable[str]) -> set[str]:
    """Tests without their parameters."""
    return {test.partition("[")[0] for test in tests}


def _times(tree: Tree, *tests: str) -> dict[str, float]:
    """What each test takes (seconds)."""
    red, out = run_timed(tree, tests, 3 * _SECONDS)
    if red:
        raise CheckFailed(f"without any change this is red already: {red}")
    return {test: float(seconds) for seconds, test in _TOOK.findall(out)}


def _naming(tree: Tree, stem: str) -> list[str]:
    """The test files that name a module of the core, its own first, those with a real Redis last."""
    names = re.compile(rf"worker\.core\.{stem}\b|from worker\.core import .*\b{stem}\b")
    every = (path for at in _NAMING for path in sorted((tree.root / at).rglob("test_*.py")))
    found = [path for path in every if path.parent.name != "project"]  # those read files, not code
    near = [path.relative_to(tree.root).as_posix() for path in found if names.search(path.read_text(encoding="utf-8"))]
    return sorted(near, key=lambda path: (path != f"{_UNIT}/test_{stem}.py", path.startswith(_NAMING[-1])))


def _seen_in_core(tree: Tree, stem: str) -> str:
    near = _naming(tree, stem)
    quick = [path for path in near if not path.startswith(_NAMING[-1])]
    slow = near[len(quick) :]
    if stem in _IN_LUA_TOO and _COMPARES not in quick:
        quick.append(_COMPARES)
    return (
        (run_tests(tree, ("-m", "not slow", *quick), _SECONDS).by if quick else "")
        or run_simulation(tree, _WORLDS // 10, _SECONDS).by
        or run_tests(tree, ("-m", "not slow", _UNIT), _SECONDS).by
        or run_tests(tree, ("-m", "slow", _UNIT), _SECONDS).by
        or (run_tests(tree, slow, _SECONDS).by if slow else "")
        or run_simulation(tree, _WORLDS, _SECONDS).by
    )


def seen_by(tree: Tree, change: Change, known: Known) -> str:
    """The check that sees a change in the copy, empty if none does; the copy is as before afterwards.

    Args:
        tree: the copy.
        change: the change.
        known: as :func:`prepared` returned it.

    Raises:
        CheckFailed: the checks could not be run, or are red without the change too.
    """
    file = tree.root / change.path
    before = file.read_text(encoding="utf-8")
    file.write_text(change.text, encoding="utf-8")
    try:
        # A script that only processes of their own run is found beside no test's name.
        lua = run_tests(tree, known.reached.get(file.name) or _RUNNING, _SECONDS).by if file.suffix == ".lua" else None
        by = _seen_in_core(tree, file.stem) if lua is None else lua
    except CheckFailed as error:
        if file.suffix == ".py" and any(each in str(error) for each in ("status 2", "status 4", "simulation ended")):
            return "the code no longer loads"
        raise
    finally:
        file.write_text(before, encoding="utf-8")
    if by.startswith("tests/") and by not in known.green:
        if red := run_tests(tree, (by,), _SECONDS).by:
            raise CheckFailed(f"red without the change too: {red}")
        known.green.add(by)
    return by


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
@click.option("--publish", is_flag=True, help="Add what was found to tests/proof/results, for `make proof`.")
def main(*, what: str, number: int, seed: int, seconds: float, publish: bool) -> None:
    """Changes the code in one place at a time, and lists what no test sees. Exit status 1 if anything survived."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the copy goes, and what runs in it
    began, survived, tried, killed, unclear = time.monotonic(), [], 0, 0, 0
    every = sample(what, 0, seed)
    with Tree() as tree:
        known = prepared(tree, what)
        for change in every[: number or None]:
            if time.monotonic() - began > seconds:
                break
            tried += 1
            place, says = f"{change.path}:{change.line}", f"{change.says[:100]!r}"
            try:
                by = seen_by(tree, change, known)
            except CheckFailed as error:
                unclear += 1
                click.echo(f"unclear  {place}  {says}  {str(error)[:80]!r}", err=True)
                continue
            if by:
                killed += 1
            else:
                survived.append(change._replace(text="")._asdict())
            click.echo(f"{'seen' if by else 'SURVIVED'}  {place}  {says}  {by}", err=True)
    told = {"of": what, "places": len(every), "tried": tried, "seen": killed, "unclear": unclear, "survived": survived}
    click.echo(json.dumps(told))
    if publish:  # whoever finds that a survivor changes nothing moves it from `survived` to `same`
        numbers = {"tried": tried, "seen": killed, "same": 0, "survived": len(survived)}
        add_run("mutation", {"made": made(), "of": what, "seed": seed, **numbers, "places": len(every)})
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
