"""Bugs around the core: producers, connections, Celery, processes."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch

APP: Final = "worker/process/app.py"
BOOTSTEPS: Final = "worker/process/bootsteps.py"
PIPELINE: Final = "worker/process/pipeline.py"

SURROUNDINGS: Final = (
    Mutant(
        "stamps_strictly_increasing",
        "every change takes a millisecond of its own, so that a burst runs ahead of the clock",
        (Patch("producers/send/stamp.py", "elif pair in self._pairs or len(", "elif self._pairs or len("),),
        unit=("tests/unit/producers/send/test_stamp.py",),
        simulated=False,
    ),
    Mutant(
        "recorder_keeps_encoder",
        "in the tests of an app, a producer uses the number of partitions that it agreed with a real Redis",
        (Patch("producers/testing.py", 'self._replace(ProducerProtocol, "_encoder", _Encoder())', "_Encoder()"),),
        unit=("tests/unit/producers/test_testing.py",),
        simulated=False,
    ),
    Mutant(
        "stops_only_with_celery",
        "a worker that is told to stop waits for Celery, which waits for a broker that hangs",
        (Patch("worker/process/signals.py", "        time.sleep(seconds)\n", "        return\n"),),
        integration=("tests/integration/worker/test_rolling_restart.py",),
        simulated=False,
    ),
    Mutant(
        "default_redis_retries",
        "the lease path retries ten times, as redis-py does by default",
        (Patch("worker/store/client.py", '"retry": Retry(NoBackoff(), 0)', '"retry": Retry(NoBackoff(), 10)'),),
        unit=("tests/unit/store/test_client.py",),
        integration=("tests/integration/flush/test_state.py",),
        simulated=False,
    ),
    Mutant(
        "silent_connections_stay",
        "silent connections to `serve` stay open, however many there are",
        (Patch("worker/serve/connections.py", "            longest.transport.abort()\n", ""),),
        integration=("tests/integration/serve/test_connections.py",),
        simulated=False,
    ),
    Mutant(
        "any_scheme_is_ours",
        "a page of a file whose origin has the host name of `serve` acts for whoever opened it",
        (Patch("worker/serve/access.py", 'scheme not in {"http", "https"} or not netloc', "not netloc"),),
        integration=("tests/integration/serve/test_access.py",),
        simulated=False,
    ),
    Mutant(
        "any_url_option",
        "an option in a Redis URL that the project does not know goes to redis-py, which lets it change the protocol",
        (
            Patch(
                "producers/contract/redis_url.py",
                "            raise SettingsError(_unknown(name, option, parts.query))\n",
                "            continue\n",
            ),
        ),
        unit=("tests/unit/producers/contract/test_redis_url.py",),
        integration=("tests/integration/redis/test_url_options.py",),
        simulated=False,
    ),
    Mutant(
        "kombu_reads_options",
        "the broker's URL goes to kombu with its options, most of which end the worker at its start",
        (Patch("worker/config/settings.py", 'query=urlencode(options, safe="/")', "query=parts.query"),),
        unit=("tests/unit/config/test_settings.py",),
        simulated=False,
    ),
    Mutant(
        "hints_nobody_takes",
        "the ticker waits for ever for workers to take hints that the broker gives to nobody",
        (Patch("worker/process/ticker.py", "UNTAKEN_SECONDS: Final = 5.0", "UNTAKEN_SECONDS: Final = 5e9"),),
        integration=("tests/integration/worker/test_waiting_is_useless.py",),
        simulated=False,
    ),
    Mutant(
        "refusals_awaited",
        "what Redis refuses for good is called away, and awaited",
        (
            Patch(
                "worker/store/refusal.py",
                "    if isinstance(error, redis.AuthenticationError):\n",
                "    return None\n    if isinstance(error, redis.AuthenticationError):\n",
            ),
        ),
        integration=("tests/integration/worker/test_waiting_is_useless.py",),
        simulated=False,
    ),
    Mutant(
        "ticker_off",
        "no process has a ticker: hints that are lost stay lost",
        (
            Patch(
                APP,
                "for step in (SignalStep, TickerStep, ConsumerWatchdog):",
                "for step in (SignalStep, ConsumerWatchdog):",
            ),
            Patch(
                "worker/process/ticker.py",
                "            survey = self._scanner.scan()\n        if not survey.waiting:",
                "            survey = self._scanner.scan()\n        if survey.now_ms >= 0:",
            ),
        ),
        integration=("tests/integration/worker/test_ticker.py", "tests/integration/worker/test_process.py"),
    ),
    Mutant(
        "changes_in_task_arguments",
        "the hint carries the changes, and the log is emptied for it",
        (
            Patch(
                BOOTSTEPS,
                "            for _ in range(hints):\n"
                "                task.apply_async(queue=self.name, connection=self._connected(), retry=False)\n",
                "            settings = runtime.settings_of(self._app)\n"
                "            client = connect(settings.redis_url)\n"
                "            for p in range(self._app.contact_sync_partitions):\n"
                "                key = settings.keys.events(p)\n"
                "                found = [[each.decode() for each in flat] for _, flat in client.xrange(key)]\n"
                "                client.xtrim(key, maxlen=0, approximate=False)\n"
                "                task.apply_async(\n"
                "                    args=[p, found], queue=self.name, connection=self._connected(), retry=False\n"
                "                )\n",
            ),
            Patch(
                APP,
                "            with sigterm_waits():\n",
                "            for _flat in _args[1] if _args else ():\n"
                "                runtime.of_this_process(settings).client.execute_command(\n"
                '                    "XADD", settings.keys.events(_args[0]), "*", *_flat\n'
                "                )\n"
                "            with sigterm_waits():\n",
            ),
        ),
        integration=(
            "tests/integration/worker/test_process.py::test_what_waits_is_delivered_although_the_broker_was_flushed",
        ),
        simulated=False,
    ),
    Mutant(
        "clients_before_the_fork",
        "the pool's children share the clients that their parent made",
        (
            Patch("worker/process/runtime.py", "    pid = os.getpid()\n", "    pid = 0\n"),
            Patch(
                APP,
                "        app.contact_sync_partitions = runtime.wait_for_redis(runtime.settings_of(app))",
                "        runtime.of_this_process(runtime.settings_of(app))\n"
                "        app.contact_sync_partitions = runtime.wait_for_redis(runtime.settings_of(app))",
            ),
        ),
        unit=("tests/integration/worker/test_after_fork.py",),
        simulated=False,
    ),
    Mutant(
        "one_request_a_process",
        "a process has one request under way, however slow the endpoint is",
        (Patch(PIPELINE, "if not self._begun or self._runs >= RUNS_MAX:", "if self._runs:"),),
        unit=("tests/unit/process/test_pipeline.py",),
        simulated=False,
    ),
    Mutant(
        "task_ends_before_its_requests",
        "the task ends while requests are under way, so a worker that stops may end in the middle of one",
        (
            Patch(
                PIPELINE,
                "            while self._at_work():\n",
                "            while self._at_work() and len(self._begun) < 2:\n",
            ),
        ),
        integration=("tests/integration/worker/test_pipeline.py",),
        simulated=False,
    ),
    Mutant(
        "hangup_kills_children",
        "a closed terminal ends the pool's children in mid-request",
        (Patch(APP, "    signals.worker_process_init.connect(leave_hangup_to_parent)\n", ""),),
        integration=("tests/integration/worker/test_process.py",),
        simulated=False,
    ),
    Mutant(
        "signal_wakes_nobody",
        "a worker notices a signal only when its wait for the broker ends, a second later",
        (Patch("worker/process/signals.py", "        hub.add_reader(self._woken, self._clear)\n", "        pass\n"),),
        unit=("tests/unit/process/test_signals.py",),
        simulated=False,
    ),
    Mutant(
        "children_sleep_at_their_end",
        "a child of the pool sleeps for a second before it ends, and its worker waits for it",
        (Patch(APP, "    signals.worker_process_shutdown.connect(end_without_pause)\n", ""),),
        unit=("tests/unit/process/test_signals.py",),
        simulated=False,
    ),
    Mutant(
        "children_wait_to_be_read",
        "a child of the pool waits half a minute for a parent that stops to read its last result",
        (Patch(APP, "    signals.worker_process_init.connect(leave_results_unread)\n", ""),),
        unit=("tests/unit/process/test_signals.py",),
        simulated=False,
    ),
    Mutant(
        "settings_of_a_django_app",
        "a worker loads the Django settings that its environment names for another app",
        (Patch(APP, ", fixups=[])", ")"),),
        integration=("tests/integration/worker/test_process.py",),
        simulated=False,
    ),
    Mutant(
        "wrong_partition_taken",
        "an entry in a partition that is not its owner's is worked on there",
        (
            Patch("worker/core/slice.py", "and crc32(owner) % partitions == partition", "and crc32(owner) >= 0"),
            Patch(
                "worker/core/entry.py",
                "            if fits and partition_of(owner, partitions) == partition:",
                "            if fits:",
            ),
        ),
        unit=("tests/unit/core/test_entry.py", "tests/unit/core/test_slice.py"),
    ),
    Mutant(
        "forget_keeps_older_ledger",
        "`forget` leaves what the older ledger remembers of an owner",
        (
            Patch("worker/admin/erasure.py", "            (stored.ledger, k.ledger_old(p)),\n", ""),
            Patch("worker/store/lua/forget.lua", " + redis.call('HDEL', KEYS[6], ARGV[i])", ""),
        ),
        integration=("tests/integration/commands/test_forget.py",),
        simulated=False,
    ),
    Mutant(
        "spool_overtaken",
        "a change goes past older ones that another process spooled during the call",
        (
            Patch(
                "producers/spool/sender.py",
                "self._send_all_but(behind, encoder",
                "self._send_all_but(set(), encoder",
            ),
        ),
        integration=("tests/integration/producers/test_spool.py",),
        simulated=False,
    ),
    Mutant(
        "metrics_of_other_counters",
        "two metrics are read from each other's counters",
        (
            Patch("worker/serve/metrics.py", 'same pair and op.", "coalesced")', 'same pair and op.", "repairs")'),
            Patch("worker/serve/metrics.py", 'have undone them.", "repairs")', 'have undone them.", "coalesced")'),
        ),
        integration=("tests/integration/serve/test_numbers.py",),
        simulated=False,
    ),
    Mutant(
        "retry_after_by_own_clock",
        "a Retry-After that is a date counts by the worker's own clock, which may be an hour behind",
        (
            Patch(
                "worker/delivery/request.py",
                "decide(answer, batch.records, this.at_ms(self._monotonic()) / 1000)",
                "decide(answer, batch.records, __import__('time').time())",
            ),
        ),
        integration=("tests/integration/worker/test_odd_fleets.py",),
        simulated=False,
    ),
    Mutant(
        "clocks_never_warned_of",
        "`check` says that any two clocks agree",
        (Patch("worker/admin/check_redis.py", "_SKEW_SECONDS: Final = 5.0", "_SKEW_SECONDS: Final = 5e9"),),
        integration=("tests/integration/commands/test_check.py",),
        simulated=False,
    ),
    Mutant(
        "nearly_everything_deleted",
        "a reconciliation that would delete 99 % of the contacts is not stopped",
        (Patch("worker/reconcile/plan.py", "share: float = 10.0", "share: float = 99.0"),),
        unit=("tests/unit/project/test_figures.py",),
        simulated=False,
    ),
    Mutant(
        "one_bad_row_blocks_a_spool",
        "a row of the spool whose text is not UTF-8 makes every other row unreadable",
        (Patch("producers/spool/file.py", "    connection.text_factory = any_text\n", ""),),
        unit=("tests/unit/producers/spool/test_drain.py", "tests/fuzz/test_fuzz.py"),
        simulated=False,
    ),
    Mutant(
        "url_that_no_client_takes",
        "a Redis URL with several hosts is taken although no client can be made of it",
        (Patch("producers/nodes/url.py", "_ = urlsplit(url).port", "pass"),),
        unit=("tests/unit/producers/nodes/test_url.py",),
        simulated=False,
    ),
    Mutant(
        "odd_reply_escapes",
        "a reply that no Redis sends ends a producer with an error that nobody expects",
        (
            Patch(
                "producers/contract/query.py",
                "UNREADABLE: Final = (ValueError, LookupError, TypeError)",
                "UNREADABLE: Final = ()",
            ),
        ),
        unit=("tests/unit/producers/send/test_transport.py",),
        simulated=False,
    ),
    Mutant(
        "hung_request_holds_up_its_process",
        "a process begins no further request while one that hangs outlasts its task's budget",
        (Patch("worker/process/pipeline.py", "                self._go_on_beside_straggler()\n", ""),),
        unit=("tests/unit/process/test_pipeline.py",),
        simulated=False,
    ),
    Mutant(
        "hint_of_a_closed_connection_is_acknowledged",
        "a worker ends as it acknowledges a hint that it took over a connection which is closed",
        (Patch("worker/process/app.py", "    if channel.closed:\n", "    if not channel:\n"),),
        integration=("tests/integration/worker/test_beside_another_app.py",),
        simulated=False,
    ),
    Mutant(
        "refused_acknowledgement_takes_a_place",
        "a worker takes no further hint once Redis has refused to acknowledge as many as it takes at once",
        (Patch("worker/process/app.py", "        QoS.ack(channel.qos, delivery_tag)\n", ""),),
        integration=("tests/integration/worker/test_beside_another_app.py",),
        simulated=False,
    ),
)
