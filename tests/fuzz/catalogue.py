"""The targets, by name. Each is loaded by itself, so that what guides it is its own code."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.fuzz.target import Target

_PLACES: Final = {
    "entries": ("entries", "TARGET"),
    "logs": ("logs", "TARGET"),
    "inboxes": ("inboxes", "TARGET"),
    "maps": ("maps", "TARGET"),
    "answers": ("answers", "TARGET"),
    "wires": ("wires", "TARGET"),
    "params": ("params", "TARGET"),
    "urls": ("urls", "TARGET"),
    "environments": ("environments", "TARGET"),
    "replies": ("replies", "TARGET"),
    "spool_files": ("spools", "FILES"),
    "spool_rows": ("spools", "ROWS"),
    "source_rows": ("sources", "ROWS"),
    "dotenvs": ("sources", "DOTENV"),
}
NAMES: Final = tuple(_PLACES)
"""The names of all targets."""


def load(name: str) -> Target:
    """A target by its name."""
    module, attribute = _PLACES[name]
    found: Any = getattr(import_module(f"tests.fuzz.{module}"), attribute)
    target: Target = found
    return target
