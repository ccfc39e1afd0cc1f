"""Numbers on a command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import pytest

from worker.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator


def numbers(command: click.Command, path: str = "") -> Iterator[tuple[str, click.ParamType[Any]]]:
    """Every option of a command, or of those below it, that takes a number with a fraction."""
    for parameter in command.params:
        if isinstance(parameter.type, click.types.FloatParamType):
            yield f"{path} {parameter.opts[0]}", parameter.type
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from numbers(found, f"{path} {name}".strip())


OPTIONS = dict(numbers(main))


def test_some_options_take_numbers() -> None:
    assert "drain --timeout" in OPTIONS


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "many"])
def test_every_option_refuses_what_is_no_finite_number(option: str, value: str) -> None:
    with pytest.raises(click.BadParameter):
        OPTIONS[option].convert(value, None, None)
