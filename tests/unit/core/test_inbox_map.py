"""The mapping of the inbox: a file that does not fit is one line that names field and rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.core.inbox_map import InboxMapError, read_map

EXAMPLES = sorted((Path(__file__).parents[3] / "examples" / "change-data-capture").glob("*.toml"))
GOOD = """
[message]
in = "field"
field = "value"
[row]
upsert = "after"
delete = "before"
owner = "user_id"
contact = "friend_id"
[op]
from = "op"
upsert = ["c", "u", "r"]
delete = ["d"]
[at]
from = "source.ts_ms"
unit = "ms"
[key_change]
old = "before"
needed = ["u"]
[snapshot]
op = ["r"]
earlier_seconds = 60
"""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_is_valid(path: Path) -> None:
    assert len(EXAMPLES) >= 5
    read_map(path.read_text())


def test_what_it_says() -> None:
    found = read_map(GOOD)
    assert found.ops == {"c": "upsert", "u": "upsert", "r": "upsert", "d": "delete"}
    assert (found.rows, found.unit, found.old) == ({"upsert": "after", "delete": "before"}, "ms", "before")
    assert (set(found.snapshot), found.earlier_ms) == ({"r"}, 60_000)
    assert found.digest != read_map(GOOD.replace('"ms"', '"us"')).digest


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('unit = "ms"', 'unit = "min"', "at.unit must be 's' or 'ms' or 'us' or 'ns'"),
        ('unit = "ms"', "unit = 1", "at.unit must be"),
        ('unit = "ms"', "", "at.unit is required: it must be"),
        ('unit = "ms"', 'unit = "ms"\nunits = "ms"', "'at.units' is not a field of the mapping: [at] has from, unit"),
        ("[snapshot]", "[snapshots]", "'snapshots' is not a table of the mapping"),
        ('[at]\nfrom = "source.ts_ms"\nunit = "ms"', "", "the table [at] is required"),
        ("[message]\n", "", "is not a table of the mapping"),
        ('field = "value"', "", "message.field is required if message.in is 'field'"),
        ('in = "field"', 'in = "single"', "message.field is required if message.in is 'field', and only then"),
        ('in = "field"', 'in = "stream"', "message.in must be 'field' or 'single' or 'fields'"),
        ('delete = ["d"]', "delete = []", "op.delete must be a list of one or more texts"),
        ('delete = ["d"]', 'delete = "d"', "op.delete must be a list"),
        ('delete = ["d"]', 'delete = ["d", "u"]', "must not share a word: 'u'"),
        ('owner = "user_id"', 'owner = ""', "row.owner must be a path"),
        ('owner = "user_id"', "owner = 5", "row.owner must be a path"),
        ('old = "before"', "", "key_change.old must say where the row stands as it was, or key_change.by_source"),
        ('old = "before"', 'old = "before"\nby_source = true', "one of both"),
        ('old = "before"', "by_source = true", "key_change.needed is only for key_change.old"),
        ('needed = ["u"]', 'needed = ["d"]', "key_change.needed must have words of op.upsert alone, not 'd'"),
        ('op = ["r"]', 'op = ["read"]', "snapshot.op must have words of op.upsert alone, not 'read'"),
        ("earlier_seconds = 60", "earlier_seconds = -1", "snapshot.earlier_seconds must be a whole number from 0"),
        ("earlier_seconds = 60", "earlier_seconds = true", "snapshot.earlier_seconds must be a whole number"),
        ("[at]", "[at", "it is not TOML: "),
        ("[at]", "[[at]]", "at must be a table: [at]"),
    ],
)
def test_what_does_not_fit_is_one_line_with_field_and_rule(old: str, new: str, said: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(InboxMapError) as caught:
        read_map(GOOD.replace(old, new))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
