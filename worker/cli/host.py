"""An address to listen on as an option on a command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.cli.session import EXIT_USAGE, Failure

if TYPE_CHECKING:
    import click


def named(_ctx: click.Context, param: click.Parameter, given: str) -> str:
    """The address.

    Raises:
        Failure: it is empty, which would be every address of this machine.
    """
    if not given.strip():
        raise Failure(f"{param.opts[0]} is empty: name an address, such as 127.0.0.1, or 0.0.0.0 for all", EXIT_USAGE)
    return given
