"""Files that map the inbox, and what they make of a message."""

from __future__ import annotations

from typing import Final

from tests.fuzz.target import T, Target, one_line
from tests.support.recorded_messages import MAPS, TOOLS, recorded
from worker.core.inbox_map import InboxMapError, read_map
from worker.core.row_change import Misfit, is_mapped, read_row_changes

_MESSAGES: Final = [flat for tool in TOOLS for flat in recorded(tool)[:2]]


def run(data: bytes) -> str:
    """The bytes of the file."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"
    try:
        by = read_map(text)
    except InboxMapError as error:
        one_line(error)
        return "refused"
    for flat in _MESSAGES:
        if is_mapped(flat, by):
            said = read_row_changes(flat, T, by)
            assert isinstance(said, Misfit) or len(said.changes) <= 2
    return "mapping"


TARGET: Final = Target(
    "maps",
    "a file that maps the inbox",
    run,
    frozenset({"not UTF-8", "refused", "mapping"}),
    [(MAPS / f"{tool}.toml").read_bytes() for tool in TOOLS] + [b"\xff"],
    [
        b"[message]\n",
        b"[row]\n",
        b"[op]\n",
        b"[at]\n",
        b"[key_change]\n",
        b"[snapshot]\n",
        b'in = "',
        b"from = ",
        b"unit",
        b"upsert = ",
        b"delete = ",
        b"ignore = ",
        b"by_source = true",
        b"old = ",
        b"needed = ",
        b"earlier_seconds = ",
        b'"""',
        b"\\u0000",
        b"= 1\n",
        b"[[op]]",
        b"inf",
        b"a.b.c",
    ],
    2048,
)
