"""The benchmark's own parts: what it gives, what it counts, what it draws."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import httpx
import pytest

from tests.bench.changes import DAILY_PAIRS, HOT_PAIRS, changes, known_pairs
from tests.bench.compiled import copy, steps
from tests.bench.endpoint import ANSWER
from tests.bench.figures import DOCUMENTS, figures, written
from tests.bench.plot import bars, lines
from tests.bench.processes import endpoint
from tests.bench.report import COMPILED_GOAL, HEAD
from tests.bench.report import compiled as compiled_text
from tests.bench.run import RESULTS, main
from tests.bench.systems import append_all, packed_log
from worker.core.outcome import Answer, Confirmed, decide
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from pathlib import Path


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


def test_a_copy_of_the_tree_is_measured_by_its_own_code(tmp_path: Path) -> None:
    with EmbeddedRedis(tcp=True) as server:
        append_all(server.url, packed_log(changes(100, "distinct")))
        found = steps(copy(tmp_path), server.url)
    assert found["code"] == str(tmp_path / "worker" / "core" / "slice.py")
    assert found["seconds"] > 0
    assert not found["compiled"]


def test_without_a_compiler_a_part_says_so_in_one_line_and_the_results_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    results.write_text("{}")
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr("sys.argv", ["bench", "--parts", "compiled", "--out", str(results)])
    main()
    [line] = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"compiled was not measured: there is no .*\bC compiler\b.*", line)
    assert results.read_text() == "{}"


@pytest.mark.parametrize(("gain", "verdict"), [(COMPILED_GOAL - 0.01, "is not"), (COMPILED_GOAL, "should be")])
def test_a_compiled_core_is_judged_by_the_drain_row_that_gains_most(gain: float, verdict: str) -> None:
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    first, *others = found["compiled"]["found"]["by_traffic"].values()
    first["drain_ratio"] = gain
    for each in others:
        each["drain_ratio"] = 1.0
    assert f"The core {verdict} compiled." in compiled_text(found)


def test_the_share_of_the_join_is_that_of_a_change_in_the_drain() -> None:
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    for name, each in found["compiled"]["found"]["by_traffic"].items():
        each["pure_us"] = 2.0
        found["drain"]["found"][f"0 ms, {name}"][HEAD] |= {"worker_us": 6.0, "redis_us": 3.0, "endpoint_us": 1.0}
    assert "are 20 to 20 % of a change" in compiled_text(found)


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
