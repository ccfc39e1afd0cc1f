"""Puts a number before its noun, as people say it (pure)."""

from __future__ import annotations

from typing import Final

_VOWELS: Final = "aeiou"


def many(number: int, noun: str) -> str:
    """The number and the noun, in the plural unless the number is 1: ``1 entry``, ``2,000 entries``."""
    return f"{number:,} {noun if number == 1 else _plural(noun)}"


def are(number: int) -> str:
    """The verb for this number: ``is`` for 1, otherwise ``are``."""
    return "is" if number == 1 else "are"


def were(number: int) -> str:
    """The verb for this number, in the past: ``was`` for 1, otherwise ``were``."""
    return "was" if number == 1 else "were"


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in _VOWELS:
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith("s") else "s")
