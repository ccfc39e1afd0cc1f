"""Planted bugs in how several servers are used: sentinels' masters, and the nodes of a cluster."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch

_TRIP: Final = "producers/nodes/trip.py"
_SOAK: Final = "tests/soak/test_soak.py::test_what_a_failover_of_a_cluster_loses_is_reported_and_nothing_else_is_lost"
_UNIT: Final = ("tests/unit/producers/nodes/test_trip.py",)

NODES: Final[tuple[Mutant, ...]] = (
    Mutant(
        "blind_retry",
        "a command that a node may have carried out is sent again",
        (
            Patch(
                _TRIP,
                "        return isinstance(reply, TryAgainError)\n",
                "        return isinstance(reply, TryAgainError | NodeAwayError)\n",
            ),
        ),
        unit=_UNIT,
        simulated=False,
    ),
    Mutant(
        "map_asked_in_mid_trip",
        "the slots are asked for in the middle of a trip, whose replies are then mixed up",
        (
            Patch(
                _TRIP,
                "            if i or waits:\n",
                "            self._map_asked = float('-inf')\n"
                "            yield from self.refresh()\n"
                "            if i or waits:\n",
            ),
        ),
        unit=_UNIT,
        simulated=False,
    ),
    Mutant(
        "no_breaker",
        "a node that hangs is waited for in every trip, and with it all others",
        (Patch(_TRIP, "        if isinstance(broken, redis.TimeoutError):\n", "        if broken is None:\n"),),
        unit=_UNIT,
        simulated=False,
    ),
    Mutant(
        "relay_blocked_by_node",
        "a relay tries the oldest rows of a lane alone, which may all be of a node that is away",
        (Patch("producers/relay/forward.py", "        run.hold(error)\n", ""),),
        integration=("tests/outbox/test_outbox_cluster.py",),
        simulated=False,
    ),
    Mutant(
        "spool_blocked_by_node",
        "with changes of one node in the spool, those of all nodes go behind them",
        (Patch("producers/spool/sender.py", "(waiting and not self._cluster)", "waiting"),),
        integration=("tests/integration/redis/test_cluster.py",),
        simulated=False,
    ),
    Mutant(
        "spool_begun_anew",
        "each call looks through the spool from its beginning, and never gets past the changes of a node that is away",
        (
            Patch(
                "producers/spool/sender.py",
                "            if not drain.over:\n                self._drain = drain",
                "            if not drain.over:\n                self._drain = None",
            ),
        ),
        integration=("tests/integration/redis/test_cluster.py",),
        simulated=False,
    ),
    Mutant(
        "try_again_fatal",
        "a settle gives up if its slot is on its way to another node",
        (
            Patch(
                "worker/store/partitions.py",
                "        ) and self._monotonic() < until:\n",
                "        ) and self._monotonic() < 0:\n",
            ),
        ),
        integration=("tests/integration/redis/test_cluster_workers.py",),
        simulated=False,
    ),
    Mutant(
        "sticky_readonly",
        "connections to a server that is no primary any more stay, and each change is refused for ever",
        (
            Patch(
                "producers/nodes/exchange.py",
                "        pool.disconnect(inuse_connections=False)\n    return Answer(replies)\n\n\nasync",
                "        pass\n    return Answer(replies)\n\n\nasync",
            ),
        ),
        integration=("tests/integration/redis/test_demoted.py",),
        simulated=False,
    ),
    Mutant(
        "master_asked_once",
        "a connection stays with a master that was deposed while it answers",
        (
            Patch(
                "producers/nodes/sentinel.py",
                "        if self.is_connected and self.is_left_behind():\n",
                "        if self.is_connected and False:\n",
            ),
        ),
        integration=("tests/integration/redis/test_sentinel.py",),
        simulated=False,
    ),
    Mutant(
        "wait_on_another_connection",
        "replicas are waited for on a connection that wrote nothing, which is no wait at all",
        (
            Patch(
                "producers/send/transport.py",
                "        parts = chain(encoder.parts(chunk), (wait_command(self._wanted),))\n"
                "        answer = finish(start(client, parts), len(chunk) + 1)\n",
                "        answer = finish(start(client, encoder.parts(chunk)), len(chunk))\n"
                "        pool = client.connection_pool\n"
                "        kind, options = pool.connection_class, pool.connection_kwargs\n"
                "        other = redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, **options))\n"
                "        answer.replies.append(other.wait(self._wanted, 500))\n",
            ),
        ),
        integration=("tests/integration/redis/test_sentinel.py",),
        simulated=False,
    ),
    Mutant(
        "due_by_the_gates_clock",
        "whether late marks are read is told by the gate's clock, which another node has",
        (
            Patch(
                "worker/delivery/claims.py",
                "            return this if clock is None else this.by_clock(*clock)\n",
                "            return this\n",
            ),
        ),
        integration=("tests/integration/redis/test_clocks.py",),
        simulated=False,
    ),
    Mutant(
        "arguments_unbounded",
        "a settle of many pairs has more arguments than hosted services take",
        (
            Patch(
                "worker/store/scripts.py",
                "    many = 3 + len(keys) + len(args) > ARGUMENTS_MAX\n",
                "    many = len(args) < 0\n",
            ),
        ),
        integration=("tests/integration/redis/test_arguments.py",),
        simulated=False,
    ),
    Mutant(
        "command_waits_on_another_connection",
        "a command waits for replicas on a connection that wrote nothing, which is no wait at all",
        (
            Patch(
                "worker/store/client.py",
                "            answer = Answer(self.round_trip([*commands, _wait(wanted)]))\n",
                "            other = self.connection_pool.get_connection()\n"
                "            answer = Answer(self.round_trip(commands))\n"
                "            other.send_command('WAIT', wanted, 500)\n"
                "            answer.replies.append(other.read_response())\n"
                "            self.connection_pool.release(other)\n",
            ),
        ),
        integration=("tests/integration/redis/test_wait_replicas.py",),
        simulated=False,
    ),
    Mutant(
        "connections_are_kept",
        "a run of the flush loop keeps its connection to Redis when it ends, until a process may open no more",
        (Patch("worker/store/client.py", "            pool.release(connection)\n", ""),),
        integration=("tests/integration/worker/test_pipeline.py",),
        simulated=False,
    ),
    Mutant(
        "inbox_waits_for_nobody",
        "an entry leaves the inbox before a replica has its change, so that a failover of the change's node loses it",
        (
            Patch(
                "worker/store/inbox.py",
                "        self._wait = wait if isinstance(namespace.client, ClusterClient) else 0\n",
                "        self._wait = 0\n",
            ),
        ),
        integration=("tests/integration/redis/test_wait_replicas.py",),
        simulated=False,
    ),
    Mutant(
        "upgrade_waits_for_nobody",
        "an upgrade counts before a replica has it, so that a failover lets older workers in again",
        (
            Patch(
                "worker/cli/upgrade.py",
                "        found = upgrade(namespace, settings.wait_replicas)\n",
                "        found = upgrade(namespace)\n",
            ),
        ),
        integration=("tests/integration/redis/test_wait_replicas.py",),
        simulated=False,
    ),
    Mutant(
        "loss_noticed_on_one_node",
        "a cluster's node that comes back with less is not noticed, unless it has the configuration",
        (
            Patch(
                "worker/store/loss_detector.py",
                "        return [self._keys.config, *(self._keys.partition(p) for p in sorted(self._counting))]\n",
                "        return [self._keys.config, *(self._keys.partition(p) for p in sorted(first.values())[:0])]\n",
            ),
        ),
        integration=("tests/integration/redis/test_cluster_commands.py",),
    ),
    Mutant(
        "loss_made_up_for",
        "what a deposed master accepted is not noticed once others have checked its successor as often",
        (Patch("worker/store/lua/beat.lua", "if beat < seen or own < seen_own then", "if beat < seen then"),),
        integration=("tests/integration/redis/test_lost_changes.py",),
        simulated=False,
    ),
    Mutant(
        "loss_told_in_one_answer",
        "a loss whose answer never came is noted in Redis, and no worker says so",
        (
            Patch(
                "worker/store/loss_detector.py",
                "            seen.unanswered = seen.beat > 0  #",
                "            seen.unanswered = False  #",
            ),
        ),
        unit=("tests/simulation/test_simulation.py",),
        integration=("tests/integration/redis/test_lost_changes.py",),
        simulated=False,
    ),
    Mutant(
        "pause_said_in_one_place",
        "a process that was idle misses a pause, or an erasure, once the gate's node is away",
        (
            Patch(
                "worker/store/gate.py",
                "        if not isinstance(copied, Exception):\n            paused",
                "        if False:\n            paused",
            ),
        ),
        integration=("tests/integration/redis/test_cluster_commands.py",),
        simulated=False,
    ),
    Mutant(
        "one_clock_for_all_marks",
        "what is due in a partition is told by the clock of whichever node is asked",
        (
            Patch(
                "worker/store/partitions.py",
                "time_ms(next(replies)), bool(next(replies))\n",
                "next(replies) and self.now_ms(), bool(next(replies))\n",
            ),
        ),
        unit=("tests/simulation/test_nodes.py",),
        simulated=False,
    ),
    Mutant(
        "seen_forgotten_while_away",
        "a worker forgets what it saw of a node while it is away: what its failover loses is never noticed",
        (
            Patch(
                "worker/store/loss_detector.py",
                "            if isinstance(reply, Exception):\n",
                "            if isinstance(reply, Exception):\n                self._seen.pop(key, None)\n",
            ),
        ),
        integration=(_SOAK,),
    ),
    Mutant(
        "seen_forgotten_by_successors",
        "a worker counts anew when another node takes over: what the failover loses is never noticed",
        (
            Patch(
                "worker/store/loss_detector.py",
                "        return [self._keys.config, *(self._keys.partition(p) for p in sorted(self._counting))]\n",
                "        if self.__dict__.setdefault('_nodes', set(first)) != set(first):\n"
                "            self._seen.clear()\n"
                "        self._nodes = set(first)\n"
                "        return [self._keys.config, *(self._keys.partition(p) for p in sorted(self._counting))]\n",
            ),
        ),
        integration=(_SOAK,),
    ),
    Mutant(
        "no_pace_without_the_gate",
        "while the gate's node is away no limit and no backoff holds",
        (
            Patch(
                "worker/store/gate.py",
                "                return self._ask_locally(last, token, life_seconds)\n",
                "                return Place(last, token)\n",
            ),
        ),
        integration=("tests/integration/redis/test_cluster_commands.py",),
        simulated=False,
    ),
    Mutant(
        "away_taken_for_empty",
        "what a server holds that does not answer counts as delivered",
        (Patch("worker/admin/status.py", "        return known and not (", "        return not ("),),
        integration=("tests/integration/redis/test_cluster_commands.py",),
        simulated=False,
    ),
    Mutant(
        "count_left_with_a_moved_slot",
        "a worker stops counting in a slot that moves: what its former node lost just before is never noticed",
        (
            Patch(
                "worker/store/loss_detector.py",
                "        self._counting.update(first.values())\n",
                "        self._counting = set(first.values())\n",
            ),
        ),
        integration=("tests/integration/redis/test_cluster_commands.py",),
    ),
)
