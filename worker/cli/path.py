"""A path as an option on a command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import os


class PathName(click.Path):
    """Accepts what can name a file: an empty text would be the current directory."""

    def __init__(self, *, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path.

        Raises:
            click.BadParameter: no file can have this name.
        """
        if not str(value) or "\0" in str(value):
            self.fail("must be a path: it is empty, or has a NUL", param, ctx)
        return super().convert(value, param, ctx)
