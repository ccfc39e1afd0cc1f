from __future__ import annotations

from tests.soak.lineage import Deeds, Moved, Reign, lineage_of
from tests.soak.log_file import Beat, Entry, Settle

T = 1_795_460_000_000
KEY = "s:{1}:partition"


def entry(ms: int) -> Entry:
    return Entry(1, f"{T + ms}-0", {b"owner": b"1"})


def settle(ms: int, seq: int, position: int = 0) -> Settle:
    return Settle(1, T + ms, (f"{T + position}-0" if position else "", ""), (("1", "2", "upsert"),), (), seq)


def test_what_the_next_to_lead_has_is_kept_and_what_it_lacks_is_lost() -> None:
    old = Deeds([entry(0), settle(10, 1), Beat(KEY, 5, T + 40), entry(50), settle(60, 2), Beat(KEY, 6, T + 70)])
    new = Deeds([entry(0), settle(10, 1), Beat(KEY, 5, T + 40), entry(9_000)])
    found = lineage_of([old, new], {1: [Reign(0, 0), Reign(T + 8_000, 1)]}, counted={KEY: 1})
    assert [each.ms - T for each in found.done] == [0, 10, 40, 9_000]
    [tail] = found.tails
    assert (tail.nodes, [each.ms - T for each in tail.entries], [each.seq for each in tail.settles]) == (
        (0, 1),
        [50],
        [2],
    )
    assert dict(tail.beats) == {KEY: 1}
    assert (tail.since_ms - T, tail.until_ms - T) == (50, 70)


def test_what_a_deposed_leader_takes_is_lost_and_what_the_new_one_takes_before_it_is_seen_is_not() -> None:
    old, new = Deeds([entry(0), entry(9_500)]), Deeds([entry(0), entry(7_000), entry(20_000)])
    found = lineage_of([old, new], {1: [Reign(0, 0), Reign(T + 8_000, 1)]})
    assert [each.ms - T for each in found.done] == [0, 7_000, 20_000]
    assert [each.ms - T for tail in found.tails for each in tail.entries] == [9_500]


def test_what_two_leaders_take_in_the_same_millisecond_has_one_id_and_is_two_entries() -> None:
    lost, kept = Entry(1, f"{T + 9_000}-0", {b"owner": b"2"}), Entry(1, f"{T + 9_000}-0", {b"owner": b"3"})
    for old, new in ((lost, kept), (kept, lost)):
        halves = [Deeds([entry(0), old]), Deeds([entry(0), new, entry(20_000)])]
        found = lineage_of(halves, {1: [Reign(0, 0), Reign(T + 8_000, 1)]})
        assert found.done == [entry(0), new, entry(20_000)]
        assert [each for tail in found.tails for each in tail.entries] == [old]


def test_what_a_server_takes_between_two_times_that_it_leads_is_lost() -> None:
    old, new = Deeds([entry(0), entry(8_500), entry(11_000)], starts=[0, T + 9_500]), Deeds([entry(0), entry(9_000)])
    found = lineage_of([old, new], {1: [Reign(0, 0), Reign(T + 8_000, 1), Reign(T + 10_000, 0)]})
    assert [each.ms - T for tail in found.tails for each in tail.entries] == [8_500]


def test_what_a_server_takes_before_it_is_seen_that_it_leads_again_is_kept() -> None:
    old, new = Deeds([entry(0), entry(19_500)], starts=[0, T + 12_000]), Deeds([entry(0), entry(9_000)])
    found = lineage_of([old, new], {1: [Reign(0, 0), Reign(T + 8_000, 1), Reign(T + 20_000, 0)]})
    assert [each.ms - T for tail in found.tails for each in tail.entries] == []


def test_what_was_done_before_a_follower_took_over_the_data_is_no_loss() -> None:
    old, new = Deeds([entry(0), entry(5_000), entry(6_000)]), Deeds([entry(0), entry(6_000)], starts=[0, T + 5_500])
    assert lineage_of([old, new], {1: [Reign(0, 0), Reign(T + 8_000, 1)]}).tails[0].entries == []


def test_what_moves_to_another_leader_is_not_lost() -> None:
    old, new = Deeds([entry(0), entry(5_000)]), Deeds([entry(6_000), entry(20_000)])
    moves = [Moved(1, 1, T + 4_500, T + 15_000)]
    found = lineage_of([old, new], {1: [Reign(0, 0), Reign(T + 15_100, 1)]}, moves)
    assert len(found.done) == 4
    assert found.tails == []


def test_a_settle_says_how_far_the_log_is_settled_wherever_that_was_settled() -> None:
    old, new = Deeds([settle(10, 1, position=5)]), Deeds([settle(6_000, 2)])
    found = lineage_of([old, new], {1: [Reign(0, 0), Reign(T + 5_100, 1)]}, [Moved(1, 1, T + 4_500, T + 5_000)])
    assert [each.position for each in found.done if isinstance(each, Settle)] == [(f"{T + 5}-0", "")] * 2
