"""Dead letters and pairs as the page shows and moves them, and the trail of what was done, which holds no ids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from tests.support.commands import dead_letter, run
from tests.support.fleet import T
from tests.support.serving import OPERATOR, TOKENS, serving, sign_in
from worker.serve.audit import KEPT, Audit
from worker.serve.letters import SHOWN_MAX

if TYPE_CHECKING:
    from tests.support.fleet import Fleet

WILD = ['"><img src=x onerror=alert(1)>', "<script>alert(1)</script>", "名前", "' OR 1=1 --", "{{7*7}}", "a&b=c#d"]


def ids(found: dict[str, Any]) -> set[str]:
    return {each["id"] for each in found["letters"]}


def test_letters_are_found_by_each_filter(fleet: Fleet) -> None:
    letters = {owner: dead_letter(fleet, owner=owner) for owner in ("1", "2", "3")}
    fleet.append_raw(0, {"op": "nonsense"})
    fleet.deliver()
    with serving(fleet) as client:
        assert len(ids(client.get("/api/dead-letters").json())) == 4
        assert ids(client.get("/api/dead-letters", params={"owner": "2"}).json()) == {letters["2"]}
        assert ids(client.get("/api/dead-letters", params={"contact": "9"}).json()) == {*letters.values()}
        assert ids(client.get("/api/dead-letters?reason=refused&owner=3").json()) == {letters["3"]}
        assert ids(client.get("/api/dead-letters?reason=missing_owner&owner=").json()) - {*letters.values()}
        assert ids(client.get("/api/dead-letters?reason=bad_op").json()) == set()


def test_many_letters_come_page_by_page(fleet: Fleet) -> None:
    for _ in range(SHOWN_MAX + 5):
        fleet.append_raw(0, {"op": "nonsense"})
    fleet.deliver()
    with serving(fleet) as client:
        first = client.get("/api/dead-letters").json()
        rest = client.get(f"/api/dead-letters?skip={SHOWN_MAX}").json()
    assert (len(ids(first)), first["more"], len(ids(rest)), rest["more"]) == (SHOWN_MAX, True, 5, False)
    assert not ids(first) & ids(rest)


@pytest.mark.parametrize("owner", WILD)
def test_an_id_of_any_kind_comes_back_as_it_is(owner: str, fleet: Fleet) -> None:
    letter = dead_letter(fleet, owner=owner)
    with serving(fleet) as client:
        found = client.get("/api/dead-letters", params={"owner": owner})
        told = client.get("/api/explain", params={"owner": owner, "contact": "9"}).json()
    assert found.headers["content-type"] == "application/json"
    assert [each["owner"] for each in found.json()["letters"]] == [owner]
    assert any(letter in line for line in told["lines"])


def test_parked_pairs_are_listed_with_why_and_when_they_are_tried_next(fleet: Fleet) -> None:
    fleet.stand_in.settings(poisoned=["9"], poison_code="40301")
    fleet.append("1", "9", "upsert", T)
    fleet.deliver()
    with serving(fleet) as client:
        found = client.get("/api/parked").json()
        assert client.get("/api/parked?skip=1").json() == {"pairs": [], "more": False}
        assert client.get("/api/parked?owner=1").status_code == 400
    assert found["more"] is False
    [pair] = found["pairs"]
    assert {"owner": "1", "contact": "9", "op": "upsert", "code": "40301", "tries": 1}.items() <= pair.items()
    assert pair["since"] < pair["next"]


def test_letters_are_redriven_by_id(fleet: Fleet) -> None:
    letter, other = dead_letter(fleet, owner="1"), dead_letter(fleet, owner="2")
    with serving(fleet) as client:
        done = client.post("/api/dead-letters/redrive", json={"ids": [letter, letter, "0-999"]}).json()
    assert done == {"redriven": 1, "refused": [{"id": "0-999", "why": "gone"}], "more": False, "noted": True}
    assert [each["id"] for each in fleet.dead_letters()] == [other]
    fleet.deliver()
    assert ("1", "9") in fleet.stand_in.contacts()


def test_what_newer_knowledge_outdates_is_not_redriven_and_said(fleet: Fleet) -> None:
    letter = dead_letter(fleet, at=T)
    fleet.append("1", "9", "delete", T + 5)
    fleet.deliver()
    with serving(fleet) as client:
        done = client.post("/api/dead-letters/redrive", json={"all": True}).json()
        assert client.get("/api/dead-letters").json()["letters"][0]["outdated"] is True
    assert (done["redriven"], done["refused"]) == (0, [{"id": letter, "why": "outdated"}])


def test_letters_are_purged_by_filter_and_only_those(fleet: Fleet) -> None:
    kept = dead_letter(fleet, owner="1")
    dead_letter(fleet, owner="2")
    with serving(fleet) as client:
        done = client.post("/api/dead-letters/purge", json={"all": True, "owner": "2", "reason": "refused"}).json()
    assert done == {"purged": 1, "refused": [], "more": False, "noted": True}
    assert [each["id"] for each in fleet.dead_letters()] == [kept]


def test_what_was_done_is_in_the_trail_with_ids_of_letters_alone(fleet: Fleet) -> None:
    letter = dead_letter(fleet, owner="owner-of-letter")
    with serving(fleet, TOKENS) as client:
        sign_in(client, OPERATOR)
        client.post("/api/dead-letters/redrive", json={"all": True, "owner": "owner-of-letter"})
        client.get("/api/explain?owner=owner-of-letter&contact=9")
        entries = client.get("/api/audit").json()["entries"]
    assert [(each["action"], each["role"], each["source"], each["ids"]) for each in entries] == [
        ("redrive", "operator", "127.0.0.1", [letter]),
        ("sign_in", "operator", "127.0.0.1", []),
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", each["at"]) for each in entries)
    trail: Any = fleet.client.xrange(fleet.keys.audit)
    assert "owner-of-letter" not in str(trail)
    assert OPERATOR not in str(trail)


def test_a_full_trail_loses_its_oldest_and_says_so(fleet: Fleet) -> None:
    pipe = fleet.client.pipeline(transaction=False)
    for n in range(KEPT + 1_000):
        pipe.xadd(fleet.keys.audit, {"action": "purge"}, id=f"1-{n + 1}")
    pipe.execute()
    with capture_logs() as logged:
        Audit(fleet.client, fleet.keys).note("redrive", "operator", "127.0.0.1", ["1-1"])
        Audit(fleet.client, fleet.keys).note("purge", "operator", "127.0.0.1", ["1-1"])
    assert [(each["event"], each["removed"]) for each in logged] == [("audit_trimmed", 1_001)]
    assert fleet.client.xlen(fleet.keys.audit) == KEPT + 1
    assert [each["action"] for each in Audit(fleet.client, fleet.keys).last(2)] == ["purge", "redrive"]


def test_after_forget_nothing_that_serve_wrote_names_the_owner(fleet: Fleet) -> None:
    letter = dead_letter(fleet, owner="forgotten-owner")
    with serving(fleet) as client:
        client.post("/api/dead-letters/purge", json={"ids": [letter]})
    assert run(fleet, "forget", "forgotten-owner", "--yes").exit_code == 0
    assert fleet.client.exists(fleet.keys.audit)
    assert "forgotten-owner" not in str(
        [fleet.client.dump(key) for key in fleet.client.keys(f"{fleet.keys.namespace}*")]
    )


def test_a_pair_is_explained_as_the_command_explains_it(fleet: Fleet) -> None:
    dead_letter(fleet)
    with serving(fleet) as client:
        told = client.get("/api/explain?owner=1&contact=9").json()
    said = run(fleet, "explain", "1", "9").stdout.splitlines()
    assert told["lines"] == said[1:]
    assert told["partition"] == fleet.partition("1")
