"""Generates machine-readable descriptions of the log: JSON Schema of a change, and AsyncAPI 3 of the streams.

Both are generated from ``ContactChange`` and ``Keys``, so that they always agree with the code::

    python -m producers.contract.schema docs/reference/schemas
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from producers.contract.change import AT_AHEAD_MS, AT_MIN_MS, ContactChange, partition_of
from producers.contract.keys import Keys
from producers.contract.partitions import DEFAULT_PARTITIONS, LOG_FORMAT, MAX_PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

CHANGE_FILE: Final = "change.schema.json"
ASYNCAPI_FILE: Final = "asyncapi.json"
VECTORS_FILE: Final = "vectors.json"

_AT_DIGITS: Final = len(str(AT_MIN_MS))
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

# The limits are in bytes, but JSON Schema can only count characters: so the comment states the limit in words.
_BYTES: Final = "The limit is in bytes of UTF-8; this length is in characters, of which there are never more."


def change_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a change as ``contact-sync emit`` and ``ContactProducer.send`` take it."""
    properties = {name: _field(name, schema) for name, schema in _generated()["properties"].items()}
    return {
        "$schema": _DIALECT,
        "title": "A contact change",
        "description": "One line of the input of contact-sync emit.",
        **_object(properties),
        "additionalProperties": False,
    }


def entry_schema() -> dict[str, Any]:
    """Returns the JSON Schema of an entry of the log: all values are text, and unknown fields are ignored."""
    properties = {name: _stripped(schema) for name, schema in change_schema()["properties"].items()}
    del properties["lane"]  # the stream says it
    properties["at"] = {
        "description": f"{_described()['at']} Decimal digits only, 10^12 or more, and at most "
        f"{AT_AHEAD_MS // 60_000} minutes ahead of the entry's own time.",
        "type": "string",
        "pattern": f"^(0*[1-9][0-9]{{{_AT_DIGITS - 1},}})$",
        "maxLength": 20,
    }
    for name in ("source", "traceparent"):  # an invalid one is ignored
        properties[name] = {"description": f"{properties[name]['description']} Ignored if invalid.", **_TEXT}
    return {**_object(properties), "additionalProperties": True}


def asyncapi() -> dict[str, Any]:
    """Returns the AsyncAPI 3 document of the event log."""
    # AsyncAPI would read the hash tag's braces as a parameter, so they are part of the parameter's value.
    live, bulk = (key.replace("{0}", "{tag}") for key in (Keys("{namespace}").events(0), Keys("{namespace}").bulk(0)))
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "contact-sync event log",
            "version": str(LOG_FORMAT),
            "description": "Two Redis Streams per partition: `events` for changes that somebody waits for, and `bulk` "
            "for imports and other mass changes. One entry, appended by XADD with an automatic id, is one "
            "change of one owner-contact pair. The version is the version of the log's format.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "redis": {
                "host": "localhost:6379",
                "protocol": "redis",
                "description": "Redis 6.2 or newer, at CONTACT_SYNC_REDIS_URL.",
            }
        },
        "channels": {
            "events": _channel(live, "Changes that somebody waits for."),
            "bulk": _channel(bulk, "Imports and other mass changes, sent after live ones. Here `at` is required."),
        },
        "operations": {
            "receiveChange": {
                "action": "receive",
                "summary": "The workers read the entries that producers append.",
                "description": "XADD {namespace}:{tag}:events * owner 1 contact 9 op delete at 1795460847757",
                "channel": {"$ref": "#/channels/events"},
            },
            "receiveBulkChange": {
                "action": "receive",
                "summary": "The workers read these entries after live ones.",
                "description": "XADD {namespace}:{tag}:bulk * owner 1 contact 9 op upsert at 1795460847757",
                "channel": {"$ref": "#/channels/bulk"},
            },
        },
        "components": {
            "messages": {
                "change": {
                    "name": "change",
                    "title": "A contact change",
                    "summary": "The fields of one entry; every value is a string.",
                    "payload": {"schemaFormat": f"application/schema+json;version={_DRAFT}", "schema": entry_schema()},
                }
            }
        },
    }


def vectors() -> dict[str, Any]:
    """Returns examples for producers of any language: partitions of owners, entries of changes, invalid changes."""
    return {
        "partitions": [
            {"owner": owner, "partitions": count, "partition": partition_of(owner, count)}
            for owner in _OWNERS
            for count in (1, 7, DEFAULT_PARTITIONS, MAX_PARTITIONS)
        ],
        "entries": [{"change": change, "entry": [str(word) for word in _entry(change)]} for change in _CHANGES],
        "streams": [
            {
                "owner": "1",
                "lane": lane,
                "partitions": DEFAULT_PARTITIONS,
                "stream": stream(partition_of("1", DEFAULT_PARTITIONS)),
            }
            for lane, stream in (("live", _KEYS.events), ("bulk", _KEYS.bulk))
        ],
        "refused": [{"change": change, "field": field} for change, field in _REFUSED],
    }


def _entry(change: dict[str, Any]) -> Iterable[Any]:
    """Yields fields and values in turn, as XADD takes them."""
    for field in ContactChange.model_fields:
        if change.get(field) is not None:
            yield from (field, change[field])


_OWNERS: Final = ("1", "9", "user-123", "8d0f1c1e-5f6a-4a2e-9a0b-3c2d1e0f9a8b", "é", "界面", "🙂", 'a"b\\c', "x" * 256)
_KEYS: Final = Keys("contact-sync")
_AT: Final = 1_795_460_847_757
_CHANGES: Final[tuple[dict[str, Any], ...]] = (
    {"owner": "1", "contact": "9", "op": "upsert", "at": _AT},
    {"owner": "界面", "contact": 'é "quoted" \\ 🙂', "op": "delete", "at": _AT + 1},
    {
        "owner": "1",
        "contact": "10",
        "op": "delete",
        "at": _AT,
        "source": "crm",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    },
)
_REFUSED: Final[tuple[tuple[dict[str, Any], str], ...]] = (
    ({"owner": "", "contact": "9", "op": "upsert", "at": _AT}, "owner"),
    ({"owner": "x" * 257, "contact": "9", "op": "upsert", "at": _AT}, "owner"),
    ({"owner": "é" * 129, "contact": "9", "op": "upsert", "at": _AT}, "owner"),
    ({"owner": "1", "contact": "a\r\nb", "op": "upsert", "at": _AT}, "contact"),
    ({"owner": "1", "contact": "a\u0085", "op": "upsert", "at": _AT}, "contact"),
    ({"owner": "1", "contact": "9", "op": "update", "at": _AT}, "op"),
    ({"owner": "1", "contact": "9", "op": "upsert", "at": 1_795_460_847}, "at"),
)
_DRAFT: Final = "draft-07"
_TEXT: Final = {"type": "string"}


def documents() -> dict[str, str]:
    """Returns the content of every generated file in docs/reference/schemas, by name."""
    made = {CHANGE_FILE: change_schema(), ASYNCAPI_FILE: asyncapi(), VECTORS_FILE: vectors()}
    return {name: json.dumps(document, indent=2, ensure_ascii=True) + "\n" for name, document in made.items()}


def write(directory: Path) -> None:
    """Writes every generated file into a directory, which is created if it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (directory / name).write_text(text, encoding="utf-8")


def _channel(address: str, purpose: str) -> dict[str, Any]:
    return {
        "address": address,
        "description": f"{purpose} The partition is CRC-32 (IEEE, as in zlib) of the owner's UTF-8 bytes, as an "
        f"unsigned number, modulo the number of partitions, which is the field `partitions` of the hash "
        f"{Keys('{namespace}').config} ({DEFAULT_PARTITIONS} unless configured, "
        f"at most {MAX_PARTITIONS}). vectors.json has examples.",
        "parameters": {
            "namespace": {"description": "CONTACT_SYNC_NAMESPACE.", "default": "contact-sync"},
            "tag": {
                "description": "The partition's number in braces, a Redis Cluster hash tag.",
                "examples": ["{0}", "{7}"],
            },
        },
        "messages": {"change": {"$ref": "#/components/messages/change"}},
        "servers": [{"$ref": "#/servers/redis"}],
    }


def _generated() -> dict[str, Any]:
    return ContactChange.model_json_schema()


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": _generated()["required"], "properties": properties}


def _described() -> dict[str, str]:
    """Returns the meaning of each field, from the model's docstring."""
    attributes = _generated()["description"].partition("Attributes:\n")[2]
    rows = re.findall(r"^ {4}(\w+): (.+)$", attributes, re.MULTILINE)
    return {name: (text[0].upper() + text[1:]).replace("``", "`") for name, text in rows}


def _field(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    described = _described()[name]
    constraints = {key: value for key, value in schema.items() if key != "title"}
    whole = {"description": described, **constraints}
    if "maxLength" in _stripped(whole):
        whole["$comment"] = _BYTES
    return whole


def _stripped(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of a value that is not null."""
    kept = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
    first: dict[str, Any] = next(iter(schema.get("anyOf", ({},))))
    return kept | first


if __name__ == "__main__":
    write(Path(sys.argv[1]))
