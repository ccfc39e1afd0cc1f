"""The schemas in docs/reference/schemas agree with the model, and accept the same changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from producers.contract.change import AT_MIN_MS, ID_MAX_BYTES, SOURCE_MAX_BYTES, ContactChange
from producers.contract.errors import InvalidChange
from producers.contract.keys import Keys
from producers.contract.schema import asyncapi, change_schema, documents, entry_schema

DOCS = Path(__file__).parents[4] / "docs" / "reference" / "schemas"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_what_is_in_the_repository_is_what_is_generated() -> None:
    found = {name: (DOCS / name).read_text(encoding="utf-8") for name in documents()}
    assert found == documents(), "python -m producers.contract.schema docs/reference/schemas"


def test_they_are_schemas() -> None:
    Draft202012Validator.check_schema(change_schema())
    Draft7Validator.check_schema(entry_schema())


ids = st.sampled_from(["1", "x" * ID_MAX_BYTES, "é" * 128, "界", 'a"b<c>', "", "x" * 257, "a\nb", "a\x7f", 1, None])
# The model counts bytes and a schema counts characters, so the schema accepts more; its comment says so.
changes = st.fixed_dictionaries(
    {"owner": ids, "contact": ids, "op": st.sampled_from(["upsert", "delete", "update", "", None])},
    optional={
        "at": st.sampled_from([AT_MIN_MS, AT_MIN_MS - 1, 0, -1, 1_795_460_847_757, "1795460847757", 1.5, None]),
        "source": st.sampled_from(["crm", "", "x" * SOURCE_MAX_BYTES, "x" * (SOURCE_MAX_BYTES + 1), 5, None]),
        "traceparent": st.sampled_from([TRACEPARENT, TRACEPARENT.upper(), "00-" + "0" * 32, "", None]),
        "lane": st.sampled_from(["live", "bulk", "x", "", 1, None]),
        "colour": st.just("red"),
    },
)


@pytest.mark.slow
@given(changes)
def test_a_change_fits_the_schema_exactly_if_it_fits_the_model(change: dict[str, Any]) -> None:
    try:
        ContactChange(**change)
        fits = True
    except InvalidChange:
        fits = False
    assert Draft202012Validator(change_schema()).is_valid(change) == fits


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"owner": "1", "contact": "2", "op": "upsert"}, True),
        ({"owner": "1", "contact": "2", "op": "upsert", "at": str(AT_MIN_MS), "colour": "red"}, True),
        ({"owner": "1", "contact": "2", "op": "upsert", "at": str(AT_MIN_MS - 1)}, False),
        ({"owner": "1", "contact": "2", "op": "upsert", "at": AT_MIN_MS}, False),
        ({"owner": "1", "contact": "2", "op": "upsert", "source": "x" * 100, "traceparent": "none"}, True),
        ({"owner": "", "contact": "2", "op": "upsert"}, False),
        ({"owner": "1", "op": "upsert"}, False),
        ({"owner": "1", "contact": "2", "op": "update"}, False),
    ],
)
def test_an_entry_is_text_and_may_say_more(fields: dict[str, Any], *, fits: bool) -> None:
    assert Draft7Validator(entry_schema()).is_valid(fields) == fits


def test_each_address_is_that_of_a_partition() -> None:
    addresses = {name: channel["address"] for name, channel in asyncapi()["channels"].items()}
    found = {name: each.replace("{namespace}", "ns").replace("{tag}", "{7}") for name, each in addresses.items()}
    assert found == {"events": Keys("ns").events(7), "bulk": Keys("ns").bulk(7)}
