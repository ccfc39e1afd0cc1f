"""A duration as an option on a command line: ``90s``, ``15m``, ``6h``, ``30d``."""

from __future__ import annotations

import re
from typing import Final

import click

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType[float]):
    """Accepts a whole number with a unit, and converts it to seconds."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The duration in seconds.

        Raises:
            click.BadParameter: it is not a duration.
        """
        if isinstance(value, (int, float)):
            return value  # click may convert a value twice
        found = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", value, re.ASCII)
        if found is None:
            self.fail("must be a whole number followed by s, m, h or d, such as 6h", param, ctx)
        return float(int(found[1]) * _UNITS[found[2]])
