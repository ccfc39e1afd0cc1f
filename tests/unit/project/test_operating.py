"""The documentation names everything that an operator may meet: what the code can say is read from the code."""

from __future__ import annotations

import ast
import re
import shlex
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click
import pytest

from tests.docs.blocks import BLOCKS
from tests.support.snapshot import snapshot
from worker.admin.health import Reason
from worker.admin.status import TOTALS, Lost
from worker.cli.main import COMMANDS, main
from worker.core.gate import PAUSED, State
from worker.core.outcome import _HOLD_REASONS  # every hold that an answer can mean
from worker.core.reasons import REASONS
from worker.store.dead_letters import Redriven
from worker.store.nodes import Node
from worker.store.presence import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PROGRAMS = [path for path in sorted((ROOT / "worker").rglob("*.py")) if "demo" not in path.parts]

LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
LOGGERS = {"log", "_log", "_LOG", "LOG", "logger"}


def trees() -> Iterator[ast.Module]:
    for path in PROGRAMS:
        yield ast.parse(path.read_text(encoding="utf-8"))


def first_argument(call: ast.Call) -> ast.expr | None:
    return call.args[0] if call.args else None


def texts(node: ast.expr | None) -> list[str]:
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def calls_of(tree: ast.AST, name: str) -> list[ast.Call]:
    """Calls of a function, or of a method, by its name."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in found if name in {getattr(call.func, "id", None), getattr(call.func, "attr", None)}]


def is_logging(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in LEVELS:
        return False
    of = call.func.value
    return getattr(of, "id", getattr(of, "attr", None)) in LOGGERS


def events() -> set[str]:
    """Every event that is logged; of one whose name is put together every name that its parts make."""
    found: set[str] = set()
    for tree in trees():
        said = [text for call in calls_of(tree, "_log_reach") for text in texts(first_argument(call))]
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and is_logging(node)):
            event = first_argument(call)
            if isinstance(event, ast.JoinedStr):
                assert said, ast.unparse(call)
                parts = [texts(part) or said for part in event.values if not isinstance(part, ast.FormattedValue)]
                found.update(f"{what}{''.join(tail)}" for what, tail in product(said, product(*parts)))
            else:
                assert texts(event) or isinstance(event, ast.Name), ast.unparse(call)
                found.update(texts(event))
    return found


def reasons_of_holds() -> set[str]:
    found = {PAUSED, *_HOLD_REASONS.values()}
    for tree in trees():
        found.update(text for call in calls_of(tree, "Hold") for text in texts(first_argument(call)))
    lua = (ROOT / "worker" / "store" / "lua" / "gate_report.lua").read_text(encoding="utf-8")
    return found | set(re.findall(r"close\('held', '(\w+)'", lua))


def exit_statuses() -> set[str]:
    found = {"0"}
    for tree in trees():
        for node in ast.walk(tree):
            target = node.target if isinstance(node, ast.AnnAssign) else None
            if isinstance(target, ast.Name) and re.match(r"_?EXI?T?_", target.id) and isinstance(node, ast.AnnAssign):
                assert isinstance(node.value, ast.Constant), target.id
                found.add(str(node.value.value))
    return found


def alerts() -> set[str]:
    rules = [*(ROOT / "deploy").rglob("*.yml"), *(ROOT / "deploy").rglob("*.yaml")]
    return {name for path in rules for name in re.findall(r"^\s*- alert: (\S+)", path.read_text("utf-8"), re.MULTILINE)}


def told(page: str) -> set[str]:
    """What stands in backquotes in the first column of a page's tables."""
    rows = re.findall(r"^\| (.*?) \|", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([\w.-]+)`", row)}


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("reference/log-events.md", events()),
        ("reference/dead-letter-reasons.md", set(REASONS)),
        ("how-to/dead-letters.md", set(get_args(Redriven)) - {"redriven"}),
        ("how-to/endpoint.md", reasons_of_holds() | set(get_args(State))),
        ("reference/exit-statuses.md", exit_statuses()),
        ("how-to/alerts.md", alerts() | set(get_args(Reason))),
        ("reference/totals.md", set(TOTALS)),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_it_tells_of_everything_that_the_code_can_say(page: str, names: set[str]) -> None:
    assert sorted(names - told(page)) == []


def fields_of(found: object) -> set[str]:
    """Every name in an answer in JSON, whatever is below it."""
    if isinstance(found, dict):
        return set(found).union(*map(fields_of, found.values()))
    return set().union(*map(fields_of, found)) if isinstance(found, list) else set()


def test_the_contract_tells_every_field_of_the_status() -> None:
    text = (DOCS / "reference" / "contract.md").read_text(encoding="utf-8")
    table = text.partition("### The fields of `status --json`")[2].partition("\n#")[0]
    worker = Worker("one", 1, 2, 3, "prefork")
    status = snapshot(workers=[worker], lost=Lost(1, 2, 3, came_back=True), nodes=[Node("a:1", 1)]).status
    names = fields_of({name: found for name, found in status.as_json().items() if name != "totals"})
    assert {"oldest_seconds", "trimmed_entries", "address", "log_format"} <= names
    assert sorted(names - set(re.findall(r"`(\w+)`", table))) == []


def test_it_tells_of_no_reason_and_no_total_that_there_is_not() -> None:
    assert told("reference/dead-letter-reasons.md") == set(REASONS)
    assert told("reference/totals.md") == set(TOTALS)


def levels() -> set[tuple[str, str]]:
    """Event and level of every call that logs an event by its whole name."""
    calls = [node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Call) and is_logging(node)]
    return {
        (event, call.func.attr.replace("exception", "error"))
        for call in calls
        if isinstance(call.func, ast.Attribute)
        for event in texts(first_argument(call))
    }


def test_it_tells_the_level_of_each_log_event() -> None:
    page = (DOCS / "reference" / "log-events.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE))
    assert len(levels()) > 20
    assert sorted(levels() - shown) == []


def test_it_tells_of_no_log_event_that_the_code_does_not_write() -> None:
    assert sorted(told("reference/log-events.md") - events()) == []


@pytest.mark.parametrize(
    ("names", "some"),
    [
        (events(), {"batch_confirmed", "redis_away", "broker_back", "redis_lost_changes", "consumer_stalled"}),
        (exit_statuses(), {"0", "1", "2", "70", "75", "130"}),
    ],
    ids=["log events", "exit statuses"],
)
def test_what_is_read_from_the_code_is_all_there_is_and_not_nothing(names: set[str], some: set[str]) -> None:
    assert some <= names


def test_every_command_that_a_page_names_is_one() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in [*DOCS.rglob("*.md"), ROOT / "README.md"])
    fences = re.findall(r"^```sh\n.*?^```", pages, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"^contact-sync ([a-z][a-z-]+)", "".join(fences), re.MULTILINE))
    named |= set(re.findall(r"`contact-sync ([a-z][a-z-]+)[^`]*`", pages))
    assert named <= COMMANDS.keys()
    assert {"pause", "resume", "repartition", "forget", "drain", "health"} <= named


def shell_words(line: str) -> list[str]:
    """The words of a line of a shell, operators too, without comments."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    return list(words)


def typed() -> list[tuple[str, list[str]]]:
    """Every call of a command in a block, run or not, and in the examples of the reference: where, and its words."""
    found = []
    for block in BLOCKS:
        text = block.text.replace("\\\n", " ") if block.language in {"sh", "text"} else ""
        for line in text.splitlines():
            words = shell_words(line) if "contact-sync " in line and not line.startswith("helm ") else []
            for at in (at for at, word in enumerate(words) if word == "contact-sync"):
                end = next((i for i in range(at, len(words)) if re.fullmatch(r"[|&<>;()]+", words[i])), len(words))
                if end > at + 1:
                    found.append((f"{block}: {line}", words[at + 1 : end]))
    return found


@pytest.mark.parametrize(("where", "words"), typed(), ids=[where for where, _ in typed()])
def test_a_call_that_a_page_shows_has_only_options_and_words_that_the_command_takes(
    where: str, words: list[str]
) -> None:
    command: click.Command = main
    context = click.Context(main, info_name="contact-sync")
    while isinstance(command, click.Group):
        below = command.get_command(context, words[0]) if words else None
        if below is None and (below := command.get_command(context, "run")) is not None:
            words = ["run", *words]
        assert below is not None, where
        command, context = below, click.Context(below, info_name=words[0], parent=context)
        words = words[1:]
    _, left, _ = command.make_parser(context).parse_args(list(words))
    assert left == [] or command.name == "worker", where
