"""The pages that are written from the code are what it would write now."""

from __future__ import annotations

import json
import re

import click
import pytest

import producers
from tests.docs.generate import DOCS, pages
from tests.docs.outage import drawn
from worker.cli.main import COMMANDS, main

PAGES = pages()


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_page_is_what_the_code_says(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == PAGES[page], "python -m tests.docs.generate"


def test_the_picture_of_an_outage_shows_its_run() -> None:
    run = json.loads((DOCS / "images" / "outage.json").read_text(encoding="utf-8"))
    assert (DOCS / "images" / "outage.svg").read_text(encoding="utf-8") == drawn(run), "python -m tests.docs.outage"


def test_the_python_reference_has_every_public_name() -> None:
    text = PAGES["reference/python.md"]
    assert [name for name in producers.__all__ if f".{name}\n" not in text and f"`{name}`" not in text] == []


def options_of(command: click.Command) -> set[str]:
    """Every option of a command and of those below it, but for those that are hidden."""
    below = command.commands.values() if isinstance(command, click.Group) else []
    own = {name for each in command.params if isinstance(each, click.Option) and not each.hidden for name in each.opts}
    return own.union(*map(options_of, below))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_of_a_command_has_every_option(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    section = re.split(rf"^## contact-sync {name}$", PAGES["reference/commands.md"], flags=re.MULTILINE)[1]
    section = re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0]
    assert {each for each in options_of(command) if not re.search(rf"{each}(?![\w-])", section)} == set()
