"""The benchmark's own parts: what it gives, what it counts, what it draws."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import httpx
import pytest

from tests.bench.changes import HOT_PAIRS, changes
from tests.bench.endpoint import ANSWER
from tests.bench.plot import bars, lines
from tests.bench.processes import endpoint
from worker.core.outcome import Answer, Confirmed, decide


def test_distinct_changes_are_of_a_pair_of_their_own_but_for_one_in_twenty() -> None:
    given = changes(10_000, "distinct")
    pairs = {(each.owner, each.contact) for each in given}
    assert 0.94 <= len(pairs) / len(given) <= 0.96


def test_hot_changes_are_of_few_pairs() -> None:
    assert len({(each.owner, each.contact) for each in changes(20_000, "hot")}) == HOT_PAIRS


def test_the_same_seed_gives_the_same_pairs_to_every_system() -> None:
    one, other = changes(500, "distinct", 3), changes(500, "distinct", 3)
    assert [each[:3] for each in one] == [each[:3] for each in other]


def test_the_endpoint_counts_requests_and_records_and_its_answer_confirms() -> None:
    body = b'{"contacts":[{"ownerXCUserID":"1","contactXCUserID":"2"},{"ownerXCUserID":"1","contactXCUserID":"3"}]}'
    with endpoint() as at, httpx.Client(trust_env=False) as client:
        at.begin(5)
        for _ in range(3):
            answer = client.post(f"{at.url}/v1/server/contact/sync", content=body)
        counted = at.counts()
    assert (counted["requests"], counted["records"], counted["most_in_flight"]) == (3, 6, 1)
    assert counted["last"] - counted["first"] >= 0.015
    assert answer.content == ANSWER
    assert decide(Answer(answer.status_code, None, answer.content), 2, 0.0) == Confirmed(0, 0)


@pytest.mark.parametrize(
    "text",
    [
        bars("<Drain>", "a second", {"ours": 3.0, "theirs & others": 1.0}),
        lines("By size", "n", "rate", {"ours": [(10, 1)]}),
    ],
)
def test_plots_are_well_formed(text: str) -> None:
    assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314 - our own
