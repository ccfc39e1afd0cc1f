"""Messages of change data capture: what real ones say, what does not fit, and that order and number cannot matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fleet import T
from tests.support.recorded_messages import ENDS, MAPS, TOOLS, mapping, recorded
from worker.core.entry import UNMAPPED
from worker.core.inbox_map import read_map
from worker.core.pair import join, state_of
from worker.core.row_change import Misfit, RowChanges, is_mapped, read_row_changes
from worker.store.inbox import changes_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker.core.inbox_map import InboxMap
    from worker.core.row_change import RowChange

NOW = T + 86_400_000
DEBEZIUM = mapping("debezium-server")
MAXWELL = mapping("maxwell")


def says(flat: list[bytes], by: InboxMap) -> tuple[RowChange, ...]:
    found = read_row_changes(flat, NOW, by)
    assert isinstance(found, RowChanges), found
    return found.changes


def told(changes: Iterable[RowChange]) -> list[tuple[str, str, str, int]]:
    return [(each.op, each.owner, each.contact, each.at - T) for each in changes]


def value(message: object) -> list[bytes]:
    return [b"key", b"{}", b"value", message if isinstance(message, bytes) else orjson.dumps(message)]


def row(**more: Any) -> dict[str, Any]:
    return {"id": 1, "user_id": "ann", "friend_id": "bob", **more}


def message(op: object = "c", **more: Any) -> dict[str, Any]:
    before, after = (row(), None) if op == "d" else (None, row())
    return {"op": op, "before": before, "after": after, "source": {"ts_ms": T}, "ts_ms": T + 9, **more}


def end_of(changes: Iterable[RowChange]) -> set[tuple[str, str]]:
    """The contacts that there are in the end, by the rules that the worker joins with."""
    states: dict[tuple[str, str], Any] = {}
    for each in changes:
        state = state_of(each.op, each.at, NOW)
        known = states.get((each.owner, each.contact))
        states[each.owner, each.contact] = state if known is None else join(known, state)
    return {
        pair
        for pair, state in states.items()
        if state.upsert is not None and (state.delete is None or state.upsert.at > state.delete.at)
    }


# Recorded messages


def test_an_update_of_the_pair_deletes_the_old_one() -> None:
    entries = recorded("debezium-server")
    assert [told(says(each, DEBEZIUM)) for each in entries] == [
        [("upsert", "ann", "bob", 0)],
        [("upsert", "ann", "eve", 0)],
        [("upsert", "ann", "joe", 8527)],
        [("upsert", "ann", "bob", 8655)],
        [("delete", "ann", "joe", 8738), ("upsert", "ann", "zoe", 8738)],
        [("delete", "ann", "zoe", 8848), ("upsert", "kim", "zoe", 8848)],
        [("delete", "ann", "eve", 8988)],
        [],  # the tombstone
    ]


def test_columns_that_stand_in_old_are_those_that_changed() -> None:
    changed = [told(says(each, MAXWELL)) for each in recorded("maxwell")[3:7]]
    assert changed == [
        [("upsert", "ann", "bob", 8000)],
        [("delete", "ann", "joe", 9000), ("upsert", "ann", "zoe", 9000)],
        [("delete", "ann", "zoe", 10000), ("upsert", "kim", "zoe", 10000)],
        [("delete", "ann", "eve", 11000)],
    ]


def test_a_tombstone_says_nothing_whatever_its_key() -> None:
    by = mapping("debezium-server-compact")
    tombstones = [each for each in recorded("debezium-server-compact") if each[1] == b"default"]
    assert len(tombstones) == 2
    assert {says(each, by) for each in tombstones} == {()}
    back = message("c", source={"ts_ms": T + 2})
    order = [message("c"), message("d", source={"ts_ms": T + 1}), None, back, None]
    said = (value(b"default" if each is None else each) for each in order)
    assert end_of(change for each in said for change in says(each, DEBEZIUM)) == {("ann", "bob")}


def test_without_the_old_row_an_update_or_a_delete_is_refused() -> None:
    found = [read_row_changes(each, NOW, DEBEZIUM) for each in recorded("debezium-replica-identity")]
    snapshot, update, delete, tombstone = found
    assert isinstance(snapshot, RowChanges)
    assert isinstance(update, Misfit)
    assert (update.field, update.rule) == ("key_change", "'before' is missing, and op 'u' needs it")
    assert isinstance(delete, Misfit)  # never a delete of owner 0, contact 0
    assert (delete.field, delete.rule) == (
        "row.owner",
        "'user_id' is 0, which stands for a value that the source does not have",
    )
    assert tombstone == RowChanges((), "a tombstone: it repeats a delete")


@pytest.mark.parametrize("tool", TOOLS)
@given(data=st.data())
def test_shuffled_doubled_and_replayed_messages_end_as_the_database(tool: str, data: st.DataObject) -> None:
    by, entries = mapping(tool), recorded(tool)
    order = data.draw(st.permutations(entries * 2))
    replayed = [*order, *entries[: data.draw(st.integers(0, len(entries)))]]
    assert end_of(change for each in replayed for change in says(each, by)) == ENDS[tool]


# Of a table and its log, not of recordings

PAIRS = st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"))
STEPS = st.lists(st.tuples(st.sampled_from(["insert", "move", "delete", "snapshot"]), PAIRS, PAIRS), max_size=14)


def _log_of(
    steps: list[tuple[str, tuple[str, str], tuple[str, str]]],
) -> tuple[list[list[bytes]], set[tuple[str, str]]]:
    """What Debezium writes of a table of pairs while these happen, each in a transaction; and the table in the end."""
    table: set[tuple[str, str]] = set()
    log: list[list[bytes]] = []
    at = T
    for kind, pair, other in steps:
        at += 1000

        def write(op: str, before: tuple[str, str] | None, after: tuple[str, str] | None, at: int = at) -> None:
            rows = [None if each is None else {"user_id": each[0], "friend_id": each[1]} for each in (before, after)]
            log.append(value({"op": op, "before": rows[0], "after": rows[1], "source": {"ts_ms": at}}))

        if kind == "insert" and pair not in table:
            table.add(pair)
            write("c", None, pair)
        elif kind == "move" and pair in table and other not in table:
            table ^= {pair, other}
            write("u", pair, other)
        elif kind == "delete" and pair in table:
            table.remove(pair)
            write("d", pair, None)
            log.append(value(b"default"))
        elif kind == "snapshot":
            for each in sorted(table):
                write("r", None, each)
    return log, table


@given(STEPS, st.data())
def test_any_table_ends_as_it_is_whatever_becomes_of_the_order(
    steps: list[tuple[str, tuple[str, str], tuple[str, str]]], data: st.DataObject
) -> None:
    log, table = _log_of(steps)
    order = data.draw(
        st.permutations(log + data.draw(st.lists(st.sampled_from(log), max_size=9) if log else st.just([])))
    )
    assert end_of(change for each in order for change in says(each, DEBEZIUM)) == table


def test_a_replayed_snapshot_does_not_outlive_a_delete() -> None:
    read, deleted = message("r"), message("d", source={"ts_ms": T + 1})
    assert end_of(change for each in (read, deleted, read) for change in says(value(each), DEBEZIUM)) == set()


def test_a_snapshot_that_is_stamped_late_counts_as_read_earlier() -> None:
    bootstrap = recorded("maxwell")[8]
    assert told(says(bootstrap, MAXWELL)) == [("upsert", "ann", "bob", 60_000 - 3_600_000)]


# Units


@pytest.mark.parametrize(("unit", "said"), [("s", T // 1000), ("ms", T), ("us", T * 1000 + 999), ("ns", T * 10**6 + 5)])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_time_in_each_unit(unit: str, said: int, *, as_text: bool) -> None:
    by = _with('unit = "ms"', f'unit = "{unit}"')
    stamp: int | str = str(said) if as_text else said
    assert says(value(message(source={"ts_ms": stamp})), by)[0].at == T


@pytest.mark.parametrize(
    ("unit", "said", "rule"),
    [
        ("ms", T // 1000, "before 2001 in 'ms': is at.unit right?"),
        ("s", T, "more than 5 minutes ahead of the entry in 's'"),
        ("us", T, "before 2001 in 'us'"),
        ("ms", T * 1000, "more than 5 minutes ahead"),
        ("ns", T * 1000, "before 2001 in 'ns'"),
    ],
)
def test_a_clock_in_another_unit_is_named(unit: str, said: int, rule: str) -> None:
    found = read_row_changes(value(message(source={"ts_ms": said})), NOW, _with('unit = "ms"', f'unit = "{unit}"'))
    assert isinstance(found, Misfit)
    assert found.field == "at"
    assert rule in found.rule
    assert (found.owner, found.contact, found.op) == ("ann", "bob", "upsert")


def _with(old: str, new: str) -> InboxMap:
    text = (MAPS / "debezium-server.toml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    return read_map(text.replace(old, new))


# Messages of another shape


@pytest.mark.parametrize(
    ("said", "field", "rule"),
    [
        (value(b"{"), "message", "is not JSON"),
        (value(b"\xff"), "message", "is not JSON"),
        (value([1]), "message", "is not a JSON object"),
        (value(b"[" * 5000), "message", "is not JSON"),
        ([b"value", b"{}", b"value", b"{}"], "message", "has the field 'value' 2 times"),
        ([b"colour", b"blue"], "message", "has the field 'value' 0 times and not once"),
        (value({}), "op", "'op' is missing"),
        (value(message("t")), "op", "'op' is 't', which is in none of"),
        (value(message(op={"x": 1})), "op", "'op' is missing"),
        (value(message(after=None)), "row.upsert", "'after' has no row"),
        (value(message("d", before=None)), "row.delete", "'before' has no row"),
        (value(message(after={"user_id": "ann"})), "row.contact", "'friend_id' is missing"),
        (value(message(after=row(user_id=None))), "row.owner", "'user_id' is missing"),
        (value(message(after=row(user_id=""))), "row.owner", "'user_id' is empty"),
        (value(message(after=row(user_id="a\n"))), "row.owner", "'user_id' has a control character"),
        (value(message(after=row(user_id="x" * 257))), "row.owner", "'user_id' has more than 256 bytes"),
        (value(message(after=row(user_id="ann "))), "row.owner", "'user_id' has blanks around it"),
        (value(message(after=row(user_id=1.5))), "row.owner", "'user_id' is float, not text or whole number"),
        (value(message(after=row(user_id=True))), "row.owner", "'user_id' is bool, not text or whole number"),
        (value(message(source=None)), "at", "'source.ts_ms' is missing"),
        (value(message(source={"ts_ms": 1.5})), "at", "'source.ts_ms' is not a whole number"),
        (value(message(source={"ts_ms": True})), "at", "'source.ts_ms' is not a whole number"),
        (value(message(source={"ts_ms": "-5"})), "at", "'source.ts_ms' is not a whole number"),
        (value(message(source={"ts_ms": "9" * 5000})), "at", "'source.ts_ms' is not a whole number"),
        (value(message("u")), "key_change", "'before' is missing, and op 'u' needs it"),
        (value(message("u", before={"id": 1})), "key_change", "'before.user_id' is missing"),
        (value(message("u", before=row(friend_id=0))), "key_change", "'before.friend_id' is 0, which stands for"),
    ],
)
def test_a_message_of_another_shape_is_refused_whole(said: list[bytes], field: str, rule: str) -> None:
    found = read_row_changes(said, NOW, DEBEZIUM)
    assert isinstance(found, Misfit)
    assert found.field == field
    assert rule in found.rule


@given(st.lists(st.binary(max_size=40), max_size=6).filter(lambda parts: len(parts) % 2 == 0), st.sampled_from(TOOLS))
def test_whatever_lies_there_never_raises(flat: list[bytes], tool: str) -> None:
    read_row_changes(flat, NOW, mapping(tool))


SCRAPS = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**63) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["op", "before", "after", "source", "ts_ms", "user_id", "friend_id"]), inner)
    ),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {"op": st.sampled_from([*"cudrt", 5, None]), "after": SCRAPS, "before": SCRAPS, "source": SCRAPS}
    )
)
def test_whatever_stands_in_a_message_never_raises(said: dict[str, Any]) -> None:
    read_row_changes(value(said), NOW, DEBEZIUM)


def test_what_our_own_producers_write_passes_the_mapping_by() -> None:
    own = [b"owner", b"1", b"contact", b"2", b"op", b"upsert"]
    for tool in TOOLS:
        assert not is_mapped([b"data", b"{}"], mapping(tool))
        assert is_mapped(own, mapping(tool)) is (tool == "kafka-connect")  # there any field may be a column
        assert all(is_mapped(each, mapping(tool)) for each in recorded(tool))


def test_a_name_may_hold_dots_itself() -> None:
    by = _with('owner = "user_id"', 'owner = "user.id"')
    flat = says(value(message(after={"user.id": "ann", "friend_id": "bob"})), by)
    nested = says(value(message(after={"user": {"id": "ann"}, "friend_id": "bob"})), by)
    assert flat == nested


def test_an_op_may_be_true_or_false() -> None:
    by = _with('upsert = ["c", "u", "r"]\ndelete = ["d"]', 'upsert = ["false", "u", "r"]\ndelete = ["true"]')
    assert says(value(message(op=False)), by)[0].op == "upsert"
    assert says(value({**message("d"), "op": True}), by)[0].op == "delete"


@pytest.mark.parametrize(("said", "told_at"), [(T, T * 1000), (10**17, None), (2**64 - 1, None)])
def test_a_time_that_no_json_holds_is_not_told_so_that_a_dead_letter_can_be_written(
    said: int, told_at: int | None
) -> None:
    entry = value(message(source={"ts_ms": said}))
    [fields] = changes_of(b"%d-0" % NOW, entry, _with('unit = "ms"', 'unit = "s"'))
    found = orjson.loads(fields[1])
    assert (fields[0], found["field"], found["at"]) == (UNMAPPED, "at", told_at)
