"""Bugs in how a partition moves: leases, settling, what is kept in Redis and when."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch

SETTLE: Final = "worker/store/lua/settle.lua"
CLAIM: Final = "worker/store/lua/claim.lua"
RELEASE: Final = "worker/store/lua/release.lua"
REDRIVE: Final = "worker/store/lua/redrive.lua"
MODEL: Final = "tests/simulation/scripts_model.py"
"""The simulation's word for the scripts: a bug in one of them is planted in both."""

FLUSH: Final = "worker/delivery/flush.py"
PARTITION: Final = "worker/store/partitions.py"
SETTLER: Final = "worker/delivery/settle.py"
ROUND: Final = "worker/core/round.py"
REQUEST: Final = "worker/delivery/request.py"

STEPS: Final = (
    Mutant(
        "commit_without_token",
        "a settle compares no token: whoever lost the lease moves the partition all the same",
        (
            Patch(SETTLE, "if redis.call('GET', lease) ~= token or seq ~= expected then", "if seq ~= expected then"),
            Patch(
                MODEL,
                "if redis.get(lease) != token or seq != expected:",
                "if seq != expected:",
            ),
        ),
        integration=("tests/integration/store/test_claim_and_settle.py",),
    ),
    Mutant(
        "settled_twice",
        "a settle that is asked for again, because its reply was lost, is done again",
        (
            Patch(SETTLE, "if known[1] == token and seq == expected + 1 then", "if false then"),
            Patch(SETTLE, "~= token or seq ~= expected then", "~= token then"),
            Patch(MODEL, "if token_was == token and seq == expected + 1:", "if token_was is None:"),
            Patch(MODEL, "if redis.get(lease) != token or seq != expected:", "if redis.get(lease) != token:"),
        ),
        integration=("tests/integration/store/test_claim_and_settle.py",),
    ),
    Mutant(
        "trim_before_answer",
        "what was read is settled before the request goes out",
        (
            Patch(
                FLUSH,
                "        sent = self._requests.send(this, batch)\n",
                "        from worker.core.settlement import Settlement\n"
                "        early = [Settlement(position=each.log.position) for each in slices]\n"
                "        self._partitions.settle(this.leases, early, [True] * len(early))\n"
                "        sent = self._requests.send(this, batch)\n",
            ),
        ),
        integration=("tests/integration/flush/test_outcomes.py", "tests/integration/flush/test_outage.py"),
    ),
    Mutant(
        "position_from_length",
        "what is settled ends where the log ends now, not where it was read to",
        (
            Patch(
                PARTITION,
                "        until = self._monotonic() + self._lease_seconds\n        calls = [\n",
                "        for lease, each in zip(leases, settlements, strict=True):\n"
                "            if each.position:\n"
                "                key = self._keys.events(lease.partition)\n"
                '                after = ("XRANGE", key, b"(" + lease.position, "+", "COUNT", self._client.xlen(key))\n'
                "                found = round_trip(self._client, [after])[0]\n"
                "                each.position = found[-1][0] if found else each.position\n"
                "        until = self._monotonic() + self._lease_seconds\n        calls = [\n",
            ),
        ),
        integration=("tests/integration/worker/test_process.py",),
    ),
    Mutant(
        "release_without_compare",
        "a lease is released by deleting its key, whoever holds it by now",
        (
            Patch(RELEASE, "if redis.call('GET', KEYS[1]) ~= ARGV[1] then", "if false then"),
            Patch(MODEL, "if redis.get(keys[0]) != bytes_of(argv[0]):", "if redis.get(keys[0]) == b'':"),
        ),
        integration=("tests/integration/flush/test_late.py", "tests/integration/store/test_claim_and_settle.py"),
    ),
    Mutant(
        "letters_in_two_steps",
        "a dead letter is written first, and the partition settled after it",
        (
            Patch(
                SETTLER,
                "        results = self._partitions.settle(leases, settlements, renew, along)\n",
                "        letters = [Settlement(letters=each.letters) for each in settlements]\n"
                "        if any(each.letters for each in letters):\n"
                "            self._partitions.settle(leases, letters, [True] * len(letters))\n"
                "            for each in settlements:\n"
                "                each.letters = []\n"
                "        results = self._partitions.settle(leases, settlements, renew, along)\n",
            ),
        ),
        integration=("tests/integration/flush/test_state.py", "tests/integration/flush/test_poison.py"),
    ),
    Mutant(
        "full_letters_block_a_probe",
        "a log that full dead letters block counts as unread, so that nothing of its round is sent",
        (
            Patch(ROUND, "            and not part.log.blocked\n", ""),
            Patch(SETTLER, "    if unread and not part.log.blocked:\n", "    if unread:\n"),
            Patch(
                "worker/core/backlog.py",
                "        return [max(each, self.full_until_ms) for each in due]\n",
                "        return list(due)\n",
            ),
        ),
        integration=("tests/integration/flush/test_malformed.py",),
        simulated=False,
    ),
    Mutant(
        "letters_beyond_the_cap",
        "more entries that break a rule are settled at once than the dead letters have room for",
        (Patch("worker/core/slice.py", "if len(malformed) >= letters:", "if len(malformed) >= 10 * DEAD_CAP:"),),
        integration=("tests/integration/flush/test_malformed.py",),
        simulated=False,
    ),
    Mutant(
        "failed_body_replayed",
        "a request that failed is sent again as it was, whatever is known of its pairs since",
        (
            Patch(
                REQUEST,
                "        body = batch.body()  # before",
                '        kept = self.__dict__.setdefault("_kept", {})\n'
                "        of = frozenset((*batch.upserts, *batch.deletes))\n"
                "        body = kept.pop(of, None) or batch.body()  # before",
            ),
            Patch(
                REQUEST,
                "        outcome = decide(answer, batch.records, this.at_ms(self._monotonic()) / 1000)\n",
                "        outcome = decide(answer, batch.records, this.at_ms(self._monotonic()) / 1000)\n"
                "        if isinstance(outcome, Retry):\n"
                "            kept[of] = body\n",
            ),
        ),
        integration=("tests/integration/flush/test_rules.py",),
    ),
    Mutant(
        "ledger_by_wall_clock",
        "the ledger rotates when its time has passed, though changes it outdates still wait unread",
        (
            Patch(
                SETTLE,
                "math.min(position_ms, oldest, oldest_bulk, unread) > reach_ms then",
                "now_ms > reach_ms then",
            ),
            Patch(
                MODEL,
                "min(position_ms, oldest, *unread) > reach_ms:",
                "now_ms > reach_ms:",
            ),
        ),
        integration=("tests/integration/store/test_settle_keeps.py",),
    ),
    Mutant(
        "late_ignored",
        "a request without an answer leaves no mark",
        (
            Patch(
                SETTLER,
                "if isinstance(sent.outcome, Retry) and sent.outcome.ambiguous:",
                "if isinstance(sent.outcome, Retry) and sent.outcome.after_seconds == -1:",
            ),
        ),
        integration=("tests/integration/flush/test_late.py",),
    ),
    Mutant(
        "mark_cleared_too_soon",
        "any confirmation clears a pair's late mark, also of a request that the late one may follow",
        (
            Patch(
                "worker/core/settlement.py",
                "elif mark is not None and mark[1].until_ms <= result.begun_ms:",
                "elif mark is not None:",
            ),
        ),
        unit=("tests/unit/core/test_settlement.py",),
    ),
    Mutant(
        "lost_holder_forgotten",
        "a lease that expired leaves no suspicion of what its holder may have sent",
        (
            Patch(CLAIM, "if holder then\n", "if false then\n"),
            Patch(MODEL, "    if holder is not None:\n        late_until", "    if holder == b'':\n        late_until"),
        ),
        integration=("tests/integration/store/test_claim_and_settle.py",),
    ),
    Mutant(
        "fenced_worker_says_nothing",
        "a worker that lost its lease does not mark what it sent",
        (Patch(SETTLER, 'if result == "fenced" and sent.posted:', 'if result == "gone" and sent.posted:'),),
        integration=("tests/integration/flush/test_late.py",),
    ),
    Mutant(
        "lease_outlived_by_request",
        "a worker that paused sends although its lease ends before the request's deadline",
        (
            Patch(
                REQUEST,
                "if not all(lease.outlives(deadline) for lease in this.leases):",
                "if not this.leases:",
            ),
        ),
        integration=("tests/integration/delivery/test_request_lease.py",),
    ),
    Mutant(
        "lease_kept_by_a_thread",
        "a helper thread renews a lease, so that a worker that hangs keeps it for ever",
        (
            Patch(
                PARTITION,
                "            token, now_ms, seq, *rest, lost = reply\n",
                "            token, now_ms, seq, *rest, lost = reply\n"
                "            import threading\n"
                "            import time\n"
                "\n"
                "            def renew(key: str, token: bytes) -> None:\n"
                "                while self._client.get(key) == token:\n"
                "                    self._client.pexpire(key, args[0])\n"
                "                    time.sleep(self._lease_seconds / 3)\n"
                "\n"
                "            of = (self._keys.lease(partition), token)\n"
                "            threading.Thread(target=renew, args=of, daemon=True).start()\n",
            ),
        ),
        integration=("tests/integration/delivery/test_lease_lost.py",),
        simulated=False,
    ),
    Mutant(
        "redrive_without_memory",
        "a redrive asks the ledger, and not what is remembered beside the pair's dead letters",
        (
            Patch(
                REDRIVE,
                "if outdates(kept and string.match(kept, '^%d+;(.*)$')) or outdates(new)",
                "if outdates(new)",
            ),
            Patch(MODEL, 'None if kept is None else kept.partition(b";")[2],', "None,"),
        ),
        integration=("tests/integration/commands/test_dead_letters.py",),
    ),
    Mutant(
        "redrive_of_a_delete_over_an_unstamped_upsert",
        "a delete is redriven although an upsert was confirmed of which nobody knows whether it is newer",
        (
            Patch(REDRIVE, "if reach > 0 and op == 'delete' and (", "if false and ("),
            Patch(MODEL, 'if reach > 0 and op == b"delete" and any(', "if reach > 1e15 and any("),
        ),
        integration=("tests/integration/commands/test_dead_letters.py",),
        simulated=False,
    ),
    Mutant(
        "retry_over_an_unread_log",
        "a probe goes out although changes of its pairs lie in the log unread",
        (Patch(ROUND, "return 0 if self.gate.closed or unread else", "return 0 if self.gate.closed else"),),
        integration=("tests/integration/flush/test_outage.py", "tests/integration/flush/test_rules.py"),
    ),
    Mutant(
        "every_worker_probes",
        "while the endpoint is away all workers may send",
        (
            Patch("worker/store/lua/gate_enter.lua", "if wait_ms > 0 and", "if wait_ms > 1e15 and"),
            Patch(MODEL, "if wait_ms > 0 and moved", "if wait_ms > 1e15 and moved"),
        ),
        integration=("tests/integration/store/test_gate.py",),
        simulated=False,
    ),
    Mutant(
        "partitions_by_chance",
        "what is claimed for a request is drawn, so that bulk goes while live upserts wait in other partitions",
        (
            Patch(
                "worker/core/backlog.py",
                "            if self._mixed:\n",
                "            if False:\n",
            ),
        ),
        unit=("tests/unit/core/test_backlog.py",),
        integration=("tests/integration/flush/test_lanes.py",),
        simulated=False,
    ),
    Mutant(
        "trimmed_log_unnoticed",
        "what somebody trims from a log before it is read is not missed",
        (
            Patch("worker/store/lua/trimmed.lua", "  if gone <= before then\n", "  if gone < 1e15 then\n"),
            Patch(MODEL, "    if gone <= before:\n", "    if gone < 1e15:\n"),
        ),
        integration=("tests/integration/redis/test_lost_changes.py",),
        simulated=False,
    ),
    Mutant(
        "alarm_of_a_log_told_in_one_answer",
        "that a log was trimmed is said in one answer, which may never come",
        (Patch("worker/store/lua/trimmed.lua", "local untold = tonumber(known[4] or '0')\n", "local untold = 0\n"),),
        integration=("tests/integration/redis/test_lost_changes.py",),
        simulated=False,
    ),
    Mutant(
        "inbox_appends_while_there_is_room",
        "an inbox that filled Redis never drains: its entries need room in the logs before they give theirs back",
        (
            Patch(
                "worker/store/lua/append.lua",
                "redis.call('XTRIM', events, 'MINID', '0-0')\n",
                "redis.call('XLEN', events)\n",
            ),
        ),
        integration=("tests/integration/store/test_inbox.py",),
        simulated=False,
    ),
    Mutant(
        "no_record_on_a_full_server",
        "workers that find Redis full and nothing recorded cannot start, so that nobody ever empties it",
        (
            Patch(
                "worker/store/lua/record.lua",
                "redis.call('HDEL', KEYS[1], 'none')\n",
                "",
            ),
        ),
        integration=("tests/integration/redis/test_full.py",),
        simulated=False,
    ),
    Mutant(
        "marks_forgotten_by_rotation",
        "a ledger that rotates forgets what was confirmed of pairs that are to be repaired",
        (
            Patch(
                "worker/store/lua/rotation.lua",
                "('EXISTS', keeper, ledger_old) == 2",
                "('EXISTS', keeper, ledger_old) > 2",
            ),
            Patch(
                MODEL, "        if confirmed is not None:\n", "        if confirmed is not None and redis is None:\n"
            ),
        ),
        integration=("tests/integration/store/test_settle_keeps.py",),
    ),
    Mutant(
        "redrive_trusts_an_empty_ledger",
        "a redrive takes the ledger to remember everything, however much of it was forgotten",
        (
            Patch("worker/store/lua/redrive.lua", "if reach > 0 and reach <=", "if reach > 1e15 and reach <="),
            Patch(MODEL, "if reach > 0 and reach <=", "if reach > 1e15 and reach <="),
        ),
        integration=("tests/integration/commands/test_dead_letters.py",),
        simulated=False,
    ),
    Mutant(
        "rest_of_a_log_read_without_lease",
        "who lost the lease says what the rest of the log means without what the next holder has settled",
        (Patch(PARTITION, "        if next(replies) != lease.token:\n", "        if next(replies) == lease:\n"),),
        integration=("tests/integration/store/test_claim_and_settle.py",),
    ),
)
