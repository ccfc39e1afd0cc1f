"""The benchmark's own parts: what it gives, what it counts, what it draws."""

from __future__ import annotations

import json
import re
from collections import Counter
from xml.etree import ElementTree as ET

import httpx
import pytest

from tests.bench.changes import DAILY_PAIRS, HOT_PAIRS, changes, known_pairs
from tests.bench.endpoint import ANSWER
from tests.bench.figures import DOCUMENTS, figures, written
from tests.bench.plot import bars, lines
from tests.bench.processes import endpoint
from tests.bench.run import RESULTS
from worker.core.outcome import Answer, Confirmed, decide


def test_distinct_changes_are_of_a_pair_of_their_own_but_for_one_in_twenty() -> None:
    given = changes(10_000, "distinct")
    pairs = {(each.owner, each.contact) for each in given}
    assert 0.94 <= len(pairs) / len(given) <= 0.96


def test_hot_changes_are_of_few_pairs() -> None:
    assert len({(each.owner, each.contact) for each in changes(20_000, "hot")}) == HOT_PAIRS


def test_a_day_is_of_known_pairs_some_far_busier_than_others_and_half_have_no_time() -> None:
    given, known = changes(20_000, "daily", stamped=0.5), known_pairs()
    pairs = Counter((each.owner, each.contact) for each in given)
    assert pairs.keys() <= {(each.owner, each.contact) for each in known}
    assert len({(each.owner, each.contact) for each in known}) == DAILY_PAIRS
    assert pairs.most_common(1)[0][1] > 50 * len(given) / len(pairs) / 4
    assert 0.48 < sum(each.at is None for each in given) / len(given) < 0.52
    stamped = [each.at for each in given if each.at is not None]
    assert min(stamped) > max(each.at or 0 for each in known)


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


def test_every_figure_of_the_documentation_is_the_one_that_was_measured() -> None:
    for path, text in figures().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} differs from results.json: make figures"


def test_a_figure_that_somebody_changed_by_hand_is_noticed() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    for each in DOCUMENTS:
        text = each.read_text(encoding="utf-8")
        begins = text.find("<!-- bench:begin")
        if begins < 0:
            continue
        digit = re.compile(r"\d").search(text, begins)
        assert digit, f"{each.name} has no figures"
        forged = text[: digit.start()] + str((int(digit[0]) + 1) % 10) + text[digit.end() :]
        assert written(forged, found) == text
