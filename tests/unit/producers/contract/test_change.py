"""The rules of a change. Each error names the field and the rule."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from producers.contract.change import ContactChange, id_fault, partition_of, source_fits, traceparent_fits
from producers.contract.errors import InvalidChange

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CHARACTERS = st.characters(codec=None) | st.sampled_from("\x00\x1f\x20\x7e\x7f\x80\x9f\xa0é€𝄞\ud800\udfff")
TEXTS = st.text(CHARACTERS, max_size=6) | st.builds(
    lambda text, times: text * times, st.text(CHARACTERS, min_size=1, max_size=2), st.integers(30, 260)
)


def refusal(**fields: object) -> str:
    with pytest.raises(InvalidChange) as caught:
        ContactChange(**{"owner": "1", "contact": "2", "op": "upsert", **fields})  # type: ignore[arg-type]
    return str(caught.value)


@given(TEXTS)
@example("x" * 256)
@example("x" * 257)
@example("é" * 128)
@example("é" * 128 + "x")
@example("𝄞" * 64)
@example("𝄞" * 64 + "x")
@example("line\n")
def test_the_model_takes_exactly_the_ids_that_the_worker_takes_from_the_log(text: str) -> None:
    fault = id_fault(text.encode("utf-8", "surrogatepass"))
    try:
        ContactChange(owner=text, contact="2", op="upsert")
        taken = True
    except InvalidChange:
        taken = False
    assert taken == (fault is None)


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"", "empty"),
        (b"x" * 257, "too_long"),
        (b"\xff", "not_utf8"),
        (b"\xed\xa0\x80", "not_utf8"),
        (b"a\x1fb", "control_character"),
        (b"\x7f", "control_character"),
        ("\x80".encode(), "control_character"),
        ("\x9f".encode(), "control_character"),
        ("\xa0".encode(), None),
        (b" ", None),
        (b"x" * 256, None),
    ],
)
def test_an_id_of_the_log_is_refused_with_the_reason(raw: bytes, fault: str | None) -> None:
    assert id_fault(raw) == fault


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"owner": 1}, "owner must be a string of 1 to 256 bytes of UTF-8 without control characters, not int"),
        ({"owner": None}, "owner must be a string of 1 to 256 bytes of UTF-8 without control characters, not NoneType"),
        (
            {"contact": ""},
            "contact must be a string of 1 to 256 bytes of UTF-8 without control characters: it is empty",
        ),
        ({"op": "remove"}, "op must be 'upsert' or 'delete'"),
        ({"at": 1_795_460_847}, "at must be a whole number of Unix milliseconds, 1000000000000 or more"),
        ({"at": True}, "at must be a whole number of Unix milliseconds, 1000000000000 or more, not bool"),
        ({"at": "1795460847757"}, "at must be a whole number of Unix milliseconds, 1000000000000 or more, not str"),
        ({"at": 1795460847757.0}, "at must be a whole number of Unix milliseconds, 1000000000000 or more, not float"),
        ({"source": "é" * 33}, "source must be a string of at most 64 bytes of UTF-8"),
        ({"traceparent": "00-0-0-01"}, "traceparent must be a W3C traceparent"),
        ({"isDeleted": True}, "'isDeleted' is not a field of a change"),
    ],
)
def test_a_refusal_is_one_line_with_the_field_and_the_rule(fields: dict[str, object], line: str) -> None:
    said = refusal(**fields)
    assert said.startswith(line)
    assert "\n" not in said


def test_a_refusal_names_every_field_that_does_not_fit() -> None:
    with pytest.raises(InvalidChange, match=r"^owner is required: .*; op must be"):
        ContactChange(contact="2", op="x")  # type: ignore[call-arg, arg-type]


def test_a_refusal_never_repeats_an_id() -> None:
    assert "secret-user" not in refusal(owner="secret-user\n")
    with pytest.raises(ValidationError) as caught:
        ContactChange.model_validate({"owner": "secret-user\n", "contact": "2", "op": "upsert"})
    assert "secret-user" not in str(caught.value)


@pytest.mark.parametrize("field", ["owner", "contact"])
def test_half_a_surrogate_pair_is_no_text(field: str) -> None:
    assert refusal(**{field: "\ud800"}).endswith("it contains half a surrogate pair")


def test_a_change_cannot_be_changed() -> None:
    change = ContactChange(owner="1", contact="2", op="upsert")
    with pytest.raises(ValidationError, match="frozen"):
        change.owner = "3"


@pytest.mark.parametrize(
    ("traceparent", "fits"),
    [
        (TRACEPARENT, True),
        (TRACEPARENT + "\n", False),
        (TRACEPARENT + "-more", False),
        ("01" + TRACEPARENT[2:] + "-more", True),
        ("ff" + TRACEPARENT[2:], False),
        (TRACEPARENT.upper(), False),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", False),
        (f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01", False),
    ],
)
def test_a_traceparent_is_one_by_the_rules_of_the_w3c(traceparent: str, fits: bool) -> None:  # noqa: FBT001 - a case
    assert traceparent_fits(traceparent) is fits


def test_a_source_has_room_for_64_bytes() -> None:
    assert ContactChange(owner="1", contact="2", op="upsert", source="é" * 32).source == "é" * 32
    assert source_fits(b"x" * 64)
    assert not source_fits(b"x" * 65)


def test_the_partition_is_the_crc_32_of_the_owner_as_zlib_computes_it() -> None:
    assert partition_of("123456789", 2**32) == 0xCBF43926  # the check value of the CRC catalogue
    assert partition_of("ünï", 64) == partition_of("ünï".encode(), 64) == zlib.crc32("ünï".encode()) % 64
