"""A plan comes out the same however many pairs there are in a part, and holds no more than a part in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from worker.reconcile import plan as plan_module
from worker.reconcile.plan import Plan
from worker.reconcile.rows import Row
from worker.reconcile.spill import BUCKETS, Spill

if TYPE_CHECKING:
    from collections.abc import Iterator

AS_OF = 1_795_460_000_000


def rows(count: int) -> Iterator[Row]:
    for n in range(count):
        yield Row(n + 1, b"%d\x1f%d" % (n % 97, n), "delete" if n % 5 == 0 else "upsert")


def computed() -> tuple[dict[str, int], list[tuple[str, str, str]]]:
    with Plan(lambda _: None) as plan:
        plan.read(rows(5_000), None)
        plan.add_known(((b"%d\x1f%d" % (n % 97, n), b"u0,5") for n in range(2_500, 6_000)), [b"1\x1f1"], None)
        plan.add_dead(b"%d\x1f%d" % (n % 97, n) for n in range(100))
        plan.compute(AS_OF)
        return dict(plan.counts), sorted(plan.changes())


@pytest.mark.parametrize("part", [pytest.param(1, marks=pytest.mark.slow), 7, 50])
def test_what_is_sent_does_not_depend_on_the_size_of_the_parts(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    whole = computed()
    assert whole[0]["dead"] == 80
    monkeypatch.setattr(plan_module, "PART", part)
    assert computed() == whole


def test_a_split_keeps_every_pair_once_in_order_and_a_pair_in_one_part() -> None:
    with Spill() as spill:
        for n in range(20_000):
            spill.add(b"%d" % n, b"1\x1f%d" % (n % 5_000))
        seen: dict[bytes, int] = {}
        total = 0
        for number in range(BUCKETS):
            with spill.split(number, 3) as parts:
                for index, part in enumerate(parts):
                    words = [(word, pair) for word, pair in part]
                    total += len(words)
                    assert [int(word) for word, _ in words] == sorted(int(word) for word, _ in words)
                    for _, pair in words:
                        assert seen.setdefault(pair, index) == index
        assert total == spill.count == 20_000


def test_what_waits_is_read_before_the_ledger_into_which_it_goes() -> None:
    """The other way round, a change that is confirmed meanwhile is in neither."""
    read: list[str] = []

    def noted(name: str, items: list[Any]) -> Iterator[Any]:
        for each in items:
            read.append(name)
            yield each

    with Plan(lambda _: None) as plan:
        plan.add_known(noted("ledger", [(b"1\x1f2", b"u1,")]), noted("waits", [b"1\x1f2"]), None)
    assert read == ["waits", "ledger"]
