"""CONTRIBUTING.md and SECURITY.md name files, targets and functions that are there; pre-commit runs what CI runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

PATHS = sorted(set(re.findall(r"`(\.?[\w./-]*[/.][\w./-]*)`", GUIDE + SECURITY)))
WALK = re.findall(r"^\| `([\w./]+)` \| `([\w:]+)` \|", GUIDE, re.MULTILINE)
TARGETS = sorted(
    set(re.findall(r"make ([a-z]+)", "\n".join(re.findall(r"`[^`]+`|^    .*", GUIDE + SECURITY, re.MULTILINE))))
)
STEPS = ("Claim", "Read", "Coalesce", "Fill", "Send", "Settle")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_is_named_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("path", "name"), WALK)
def test_each_step_of_the_walk_is_where_it_is_said_to_be(path: str, name: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(
        rf"^\s*(?:async )?(?:def|class) {name}\b" if path.endswith(".py") else re.escape(name), text, re.MULTILINE
    )


def test_the_walk_goes_from_the_producer_to_the_ledger_in_the_order_of_the_loop() -> None:
    assert WALK[0] == ("producers/producer.py", "upsert")
    assert WALK[-1] == ("worker/store/lua/settle.lua", "ledger:new")
    assert re.findall(r"\*\*(Claim|Read|Coalesce|Fill|Send|Settle)\*\*", GUIDE) == list(STEPS)


def test_every_room_is_told() -> None:
    rooms = {f"worker/{path.name}/" for path in (ROOT / "worker").iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set(PATHS)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_is_named_is_there(target: str) -> None:
    assert target in targets()


def test_hooks_run_targets_that_ci_runs() -> None:
    entries = re.findall(r"^ *entry: make ([a-z]+)$", HOOKS, re.MULTILINE)
    assert len(entries) == HOOKS.count("- id:")
    assert HOOKS.count("language: system") == len(entries)
    assert set(entries) <= targets()
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    run_there = set(" ".join(re.findall(r"^(?:timeout \d+ )?make ([a-z ]+)$", ci, re.MULTILINE)).split())
    assert set(entries) - {"unit"} <= run_there  # whose tests are part of `make test`
    assert "test" in run_there
