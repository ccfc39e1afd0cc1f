"""A finite number as an option on a command line."""

from __future__ import annotations

import math

import click


class Number(click.FloatRange):
    """Accepts a finite number in a range. NaN is neither too small nor too large for click, which lets it through."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number.

        Raises:
            click.BadParameter: it is not a number, or not in the range.
        """
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number
