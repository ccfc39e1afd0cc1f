"""``contact-sync conform``: each rule that a producer breaks is named, and the reader's verdict is the command's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.docs.blocks import ROOT
from tests.support.commands import run, told
from tests.support.fleet import PARTITIONS, T
from tests.support.recorded_messages import MAPS, TOOLS, recorded
from worker.admin.conform import ADVICE, RULES, faults
from worker.core.entry import Malformed, read_entry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fleet import Fleet

GOOD = {"owner": "1", "contact": "9", "op": "upsert", "at": str(T)}


def test_what_our_own_producer_writes_conforms(fleet: Fleet) -> None:
    fleet.producer().send([{"owner": str(n), "contact": "é", "op": "delete", "source": "crm"} for n in range(50)])
    ran = run(fleet, "conform")
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.count("ok ") == len(RULES) + len(ADVICE)
    assert told(fleet, "conform")["conform"] == 50


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ("owner", {**GOOD, "owner": "a\n"}),
        ("contact", {**GOOD, "contact": "x" * 257}),
        ("op", {**GOOD, "op": "update"}),
        ("at", {**GOOD, "at": str(T // 1000)}),
        ("at", {**GOOD, "at": str(2 * T)}),
        ("at", {**GOOD, "at": "now"}),
        ("partition", {**GOOD, "owner": "2"}),
        ("stamped", {name: value for name, value in GOOD.items() if name != "at"}),
        ("source", {**GOOD, "source": "x" * 65}),
        ("traceparent", {**GOOD, "traceparent": "00"}),
        ("known", {**GOOD, "colour": "blue"}),
    ],
)
def test_a_rule_that_is_broken_is_named_and_only_advice_passes(rule: str, fields: dict[str, str], fleet: Fleet) -> None:
    p = fleet.partition("1")
    entry = fleet.append_raw(p, fields)
    ran = run(fleet, "conform", "--partition", str(p))
    assert ran.exit_code == (1 if rule in RULES else 0)
    assert entry in ran.stdout
    by_rule = told(fleet, "conform")["rules"]
    assert rule in {name for name, each in by_rule.items() if each["wrong"]}
    flat = [part.encode() for pair in fields.items() for part in pair]
    malformed = isinstance(read_entry(entry.encode(), flat, p, PARTITIONS), Malformed)
    assert malformed == bool(RULES.keys() & faults(entry.encode(), flat, p, PARTITIONS).keys())


def test_a_field_that_stands_twice_is_named(fleet: Fleet) -> None:
    p = fleet.partition("1")
    flat = [part for pair in GOOD.items() for part in pair]
    fleet.client.execute_command("XADD", fleet.keys.events(p), "*", *flat, "op", "upsert")
    assert told(fleet, "conform")["rules"]["once"]["wrong"][0]["fault"] == "op"


def test_an_empty_log_and_a_partition_that_is_none_are_said(fleet: Fleet) -> None:
    assert run(fleet, "conform").exit_code == 1
    assert "the log has no entries" in run(fleet, "conform").stderr
    assert run(fleet, "conform", "--partition", str(PARTITIONS)).exit_code == 2
    too_many = run(fleet, "conform", "--last", "99999999999999999999")
    assert (too_many.exit_code, "--last" in too_many.stderr) == (2, True), too_many.output


def test_the_bulk_lane_is_checked_too_and_needs_at(fleet: Fleet) -> None:
    log = fleet.keys.bulk(fleet.partition("1"))
    fleet.client.xadd(log, dict(GOOD))
    assert told(fleet, "conform")["conform"] == 1
    fleet.client.xadd(log, {name: value for name, value in GOOD.items() if name != "at"})
    found = told(fleet, "conform")
    assert (found["entries"], found["conform"]) == (2, 1)


# A mapping of the inbox


def messages(tool: str) -> list[str]:
    """A recording, a message a line as `conform --map` takes them."""
    flats = [[part.decode() for part in flat] for flat in recorded(tool)]
    if tool == "kafka-connect":
        return [json.dumps(dict(zip(flat[::2], flat[1::2], strict=True))) for flat in flats]
    return [flat[-1] for flat in flats]


def map_of(tool: str) -> str:
    return str(MAPS / f"{tool}.toml")


@pytest.mark.parametrize("tool", TOOLS)
def test_recorded_messages_fit_the_mapping_of_their_tool(tool: str, fleet: Fleet) -> None:
    ran = run(fleet, "conform", "--map", map_of(tool), given="\n".join(messages(tool)))
    assert ran.exit_code == 0, ran.output
    assert len(ran.stdout.splitlines()) == len(messages(tool))


def test_each_message_is_told_line_by_line(fleet: Fleet, tmp_path: Path) -> None:
    said = [*messages("debezium-server")[4:6], "", "default", *messages("debezium-replica-identity")[1:3], "{"]
    path = tmp_path / "messages.jsonl"
    path.write_text("\n".join(said))
    ran = run(fleet, "conform", "--map", map_of("debezium-server"), str(path), redis_url="redis://localhost:1/0")
    assert ran.exit_code == 1
    first, second, *rest = ran.stdout.splitlines()
    assert first.startswith("ok      line 1: delete owner ann, contact joe at 2026-11-2")
    assert ", then upsert owner ann, contact zoe at 2026-11-2" in first
    assert second.startswith("ok      line 2: delete owner ann, contact zoe")
    assert rest == [
        "none    line 4: a tombstone: it repeats a delete",
        "wrong   line 5: key_change: 'before' is missing, and op 'u' needs it",
        "wrong   line 6: row.owner: 'user_id' is 0, which stands for a value that the source does not have",
        "wrong   line 7: message: is not JSON",
    ]
    assert ran.stderr == "contact-sync: 3 of 6 messages do not fit the mapping\n"
    found = told(fleet, "conform", "--map", map_of("debezium-server"), str(path))
    assert (found["messages"], found["fit"]) == (6, 3)
    assert [each["line"] for each in found["lines"]] == [1, 2, 4, 5, 6, 7]
    assert found["lines"][0]["changes"][0]["op"] == "delete"
    assert found["lines"][3]["field"] == "key_change"


def test_the_page_shows_what_it_prints_of_recorded_messages(fleet: Fleet) -> None:
    found = messages("debezium-server")
    in_seconds = found[0].replace('"ts_ms":1795460000000', '"ts_ms":1795460000')
    given = "\n".join([found[0], found[4], found[7], in_seconds])
    ran = run(fleet, "conform", "--map", map_of("debezium-server"), given=given)
    page = (ROOT / "docs" / "how-to" / "change-data-capture.md").read_text(encoding="utf-8")
    assert f"```text\n{ran.stdout}```" in page


def test_an_id_that_is_too_long_for_the_platform_is_told(fleet: Fleet) -> None:
    given = messages("debezium-server")[0]
    ran = run(fleet, "conform", "--map", map_of("debezium-server"), given=given, id_max_characters=2)
    assert ran.exit_code == 1
    assert "line 1: owner: must have at most 2 characters" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "given", "status", "said"),
    [
        (("--map", "MAP"), "", 1, "there are no messages"),
        (("--map", "MAP"), "5", 1, "1 of 1 message does not fit"),
        (("--map", "BAD"), "5", 2, "--map, BAD: at.unit must be"),
        (("--map", "no/such.toml"), "5", 2, "--map, no/such.toml: it cannot be read: No such file or directory"),
        (("--map", "MAP", "--last", "5"), "5", 2, "--partition and --last are for the log"),
        (("--map", "MAP", "--partition", "5"), "5", 2, "--partition and --last are for the log"),
        (("--map", "MAP", "no/such.jsonl"), "5", 2, "no/such.jsonl"),
        (("-",), "5", 2, "MESSAGES need --map"),
    ],
)
def test_what_cannot_be_tried_is_one_line(  # noqa: PLR0913, PLR0917 - one case, and where it is tried
    arguments: tuple[str, ...], given: str, status: int, said: str, fleet: Fleet, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text((MAPS / "kafka.toml").read_text().replace('"ms"', '"min"'))
    paths = {"MAP": map_of("kafka"), "BAD": str(bad)}
    ran = run(fleet, "conform", *(paths.get(each, each) for each in arguments), given=given)
    assert ran.exit_code == status
    assert said.replace("BAD", str(bad)) in ran.stderr
    assert "Traceback" not in ran.output
