"""Messages of change data capture as they lie in the inbox, and the mapping that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import orjson

from worker.core.inbox_map import InboxMap, read_map

_ROOT: Final = Path(__file__).parents[2]
MAPS: Final = _ROOT / "examples" / "change-data-capture"
RECORDED: Final = Path(__file__).parent / "recorded"

TOOLS: Final = ("debezium-server", "debezium-server-compact", "kafka", "kafka-connect", "maxwell")
"""Each has a mapping among the examples, and recorded messages."""

ENDS: Final = {
    **{tool: {("ann", "bob"), ("kim", "zoe")} for tool in ("debezium-server", "kafka", "maxwell")},
    **{tool: {("1", "2"), ("1", "5")} for tool in ("debezium-server-compact", "kafka-connect")},
}
"""The contacts in the database after the last recorded message."""


def mapping(tool: str) -> InboxMap:
    """The mapping of a tool."""
    return read_map((MAPS / f"{tool}.toml").read_text(encoding="utf-8"))


def recorded(name: str) -> list[list[bytes]]:
    """The entries of a recording: fields and values of each."""
    lines = (RECORDED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [[part.encode() for part in orjson.loads(line)] for line in lines]
