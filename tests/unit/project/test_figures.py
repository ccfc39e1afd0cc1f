"""The figures that the documentation names are the constants that the code runs with."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from producers.contract.change import AT_AHEAD_MS, AT_MIN_MS, ID_MAX_BYTES, SOURCE_MAX_BYTES
from producers.contract.partitions import DEFAULT_PARTITIONS
from producers.django.forwarding import SOON_SECONDS
from producers.emit import LINE_MAX_BYTES
from producers.nodes.replicas import _REMEMBERED_SECONDS  # for how long a replica counts as one of all
from producers.nodes.trip import WAIT_SECONDS
from producers.relay.forward import BATCH as RELAY_BATCH
from producers.relay.lane import LANES
from producers.send.chunk import CHUNK_SIZE
from producers.send.pressure import BULK_WAITING_MAX, MEMORY_EASY, MEMORY_FULL, PRESSURE_GOES_ON, PRESSURE_WAITS
from producers.spool.store import SPOOL_BYTES
from tests.bench.changes import DAILY_PAIRS
from tests.model.scenes import PLANTED
from worker.admin import traces
from worker.admin.health import WATCH_SECONDS, default_bound_seconds
from worker.admin.status import HEADS as STATUS_HEADS
from worker.cli.erase import erase
from worker.cli.reconcile import _REASSERT_WAIT_SECONDS  # the default of --wait with --reassert
from worker.cli.reconcile import run as reconcile_run
from worker.cli.serve import serve_command
from worker.config.settings import _BROKER_HEALTH_CHECK_SECONDS, WorkerSettings
from worker.core import concurrency, gate, rate
from worker.core.backlog import LONG_BATCHES
from worker.core.backoff import PARK_SECONDS
from worker.core.dead_letter import DEAD_CAP
from worker.core.gate import LIMIT_DOUBLES_SECONDS, SINGLE_REJECTIONS_MAX
from worker.core.lane import CLASSES, HEAVY_PAIRS, HEAVY_SHARE, SAMPLED_PAIRS, bulk_share
from worker.core.scaling import DOWN_MS, UP_MS
from worker.core.timing import FLUSH_BUDGET_SECONDS, TICKER_LEASE_SECONDS
from worker.delivery.request import DOUBT_REJECTIONS_MAX, DOUBT_SECONDS, HOLD_SECONDS
from worker.delivery.tracing import LINKS_MAX
from worker.demo.run import CHANGES as DEMO_CHANGES
from worker.process.bootsteps import EX_TEMPFAIL
from worker.process.pipeline import AT_WORK, REST_SECONDS, RUNS_MAX, STALLED_RUNS, STALLED_SECONDS
from worker.process.runtime import _GARBAGE  # new objects until the collector looks for cycles
from worker.process.ticker import UNTAKEN_SECONDS
from worker.process.watchdog import EXIT_STALLED
from worker.process.watchdog import STALLED_SECONDS as CONSUMER_STALLED_SECONDS
from worker.reconcile import Limits
from worker.reconcile.csv_rows import ROW_MAX
from worker.reconcile.history import KEPT as RUNS_KEPT
from worker.reconcile.lock import LEASE_SECONDS as RECONCILE_LEASE_SECONDS
from worker.reconcile.spill import BUCKETS, PART
from worker.serve.access import SESSION_SECONDS
from worker.serve.audit import _MOST as AUDIT_MOST  # entries at which the oldest are removed
from worker.serve.audit import IDS_MAX as AUDIT_IDS_MAX
from worker.serve.audit import KEPT as AUDIT_KEPT
from worker.serve.snapshots import _RATE_SECONDS, HISTORY_SECONDS  # the forecast of memory
from worker.standin.history import HISTORY_RECORDS
from worker.standin.rules import BODY_LIMIT_BYTES
from worker.store import delete_scan
from worker.store.client import ARGUMENTS_MAX, LEASE_PATH_SECONDS
from worker.store.loss_detector import EVERY_SECONDS as LOOKED_FOR_LOSS_SECONDS
from worker.store.presence import GONE_MS
from worker.store.refusal import OLDEST_REDIS
from worker.testing.kit import WaitUntilSynced

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[3]
DEFAULTS = {name: field.default for name, field in WorkerSettings.model_fields.items()}
LONGEST_WAIT_SECONDS = default_bound_seconds(WorkerSettings.model_construct())
LEAD = (rate.LEAD_LEAST_MS, rate.LEAD_MS)
PARKED = (60, 600, 3_600, 21_600, 86_400)
RULES = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
ALERTS = {
    rule.partition("\n")[0]: found[1]
    for rule in RULES.split("- alert: ")[1:]
    if (found := re.search(r"^ +for: (\w+)$", rule, re.MULTILINE))
}
GRACE = re.search(r"WORKER_STOP_GRACE:-(\w+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
ERASE = {option.name: option.default for option in erase.params}
SERVE = {option.name: option.default for option in serve_command.params}
SYNCED_SECONDS = inspect.signature(WaitUntilSynced.__call__).parameters["seconds"].default
PARKED_IN_WORDS = "1 minute, 10 minutes, 1 hour, 6 hours, then every 24 hours"


class Figure(NamedTuple):
    """A figure in a document.

    Attributes:
        document: its path from the project's root.
        words: what the document says around it; its place is marked by ``{}``.
        shown: the figure as it is written there.
        constant: what the code runs with.
        value: the figure in the unit of the constant.
    """

    document: str
    words: str
    shown: str
    constant: object
    value: object


FIGURES = [
    Figure("docs/how-to/endpoint.md", "nothing goes out but a probe every {} s", "15", HOLD_SECONDS, 15.0),
    Figure("docs/how-to/endpoint.md", "a probe goes out every {} second", "half", DOUBT_SECONDS, 0.5),
    Figure("docs/how-to/endpoint.md", "{} records in a row were refused alone", "20", SINGLE_REJECTIONS_MAX, 20),
    Figure("docs/how-to/dead-letters.md", "**Cap**: {} letters a partition", "10,000", DEAD_CAP, 10_000),
    Figure("docs/explanation/design.md", "`dead` | {} letters a partition", "10,000", DEAD_CAP, 10_000),
    Figure("docs/how-to/page.md", "**A sign-in** lasts {} hours", "12", SESSION_SECONDS, 12 * 3600),
    Figure("docs/how-to/page.md", "The newest {} are kept", "10,000", AUDIT_KEPT, 10_000),
    Figure("docs/how-to/traces.md", "the entries that were read for it, {} at", "128", LINKS_MAX, 128),
    Figure("docs/reference/dead-letter-reasons.md", "more than {} minutes ahead", "5", AT_AHEAD_MS, 300_000),
    Figure("docs/reference/contract.md", "at most {} minutes ahead", "5", AT_AHEAD_MS, 300_000),
    Figure("docs/reference/contract.md", "decimal digits only, from {} on", "10^12", AT_MIN_MS, 10**12),
    Figure("docs/reference/settings.md", "takes the recorded one, or {} at first use", "64", DEFAULT_PARTITIONS, 64),
    Figure("docs/how-to/spool.md", "(SQLite, {} MiB unless", "64", SPOOL_BYTES, 64 * 2**20),
    Figure("docs/how-to/upgrade.md", "it costs its lease ({} s)", "15", DEFAULTS["lease_seconds"], 15.0),
    Figure("README.md", "must be {} or newer", "6.2", OLDEST_REDIS, (6, 2)),
    Figure("docs/how-to/reconcile.md", "more deletes than `--max-deletes` ({})", "100,000", Limits().most, 100_000),
    Figure("docs/how-to/reconcile.md", "`--max-delete-share` percent ({})", "10", Limits().share, 10.0),
    Figure("docs/how-to/reconcile.md", "Up to {} deletes", "100", Limits().floor, 100),
    Figure("docs/how-to/reconcile.md", "shows the last {} runs", "hundred", RUNS_KEPT, 100),
    Figure("docs/how-to/reconcile.md", "a line of more than {} KiB", "64", LINE_MAX_BYTES, 64 * 1024),
    Figure("docs/how-to/reconcile.md", "a row of more than {} MiB", "16", ROW_MAX, 16 * 2**20),
    Figure("docs/how-to/reconcile.md", "kept in {} files without names", "64", BUCKETS, 64),
    Figure("docs/how-to/reconcile.md", "file of more than {} pairs is split", "100,000", PART, 100_000),
    Figure("docs/how-to/reconcile.md", "takes over {} seconds after", "ten", RECONCILE_LEASE_SECONDS, 10.0),
    Figure("docs/how-to/deploy.md", "more than the {} s of a flush", "5", FLUSH_BUDGET_SECONDS, 5.0),
    Figure("docs/how-to/deploy.md", "and the {} s of a request", "10", DEFAULTS["request_timeout_seconds"], 10.0),
    Figure(
        "docs/how-to/deploy.md",
        "({} s with the default settings)",
        "30",
        default_bound_seconds(WorkerSettings.model_construct()),
        30.0,
    ),
    Figure("docs/how-to/deploy.md", "nothing has moved for {} s", "3", WATCH_SECONDS, 3.0),
    Figure("docs/how-to/deploy.md", "wanted after {} seconds of need", "15", UP_MS, 15_000),
    Figure("docs/how-to/deploy.md", "fewer after {} minutes", "5", DOWN_MS, 300_000),
    Figure("docs/how-to/deploy.md", "itself and ends with status {},", "70", EXIT_STALLED, 70),
    Figure("docs/how-to/endpoint.md", "intervals of up to {} s", "60", DEFAULTS["backoff_max_seconds"], 60.0),
    Figure("docs/how-to/endpoint.md", "asks, up to {} (", "an hour", DEFAULTS["retry_after_max_seconds"], 3600.0),
    Figure("docs/how-to/endpoint.md", "every 15 s after {} refusals", "100", DOUBT_REJECTIONS_MAX, 100),
    Figure("docs/how-to/endpoint.md", "alone, after {}, and", PARKED_IN_WORDS, PARK_SECONDS, PARKED),
    Figure("docs/reference/contract.md", "tried again after {};", PARKED_IN_WORDS, PARK_SECONDS, PARKED),
    Figure("docs/how-to/messages.md", "doubles again every {} s", "10", LIMIT_DOUBLES_SECONDS, 10),
    Figure("docs/reference/log-events.md", "comes every {} s", "10", LIMIT_DOUBLES_SECONDS, 10),
    Figure("docs/how-to/outbox.md", "The {} rows of `contact_sync_outbox_lane`", "16", LANES, 16),
    Figure("docs/how-to/outbox.md", "spread over {} groups", "16", LANES, 16),
    Figure("docs/how-to/outbox.md", "it sends up to {} changes", "500", RELAY_BATCH, 500),
    Figure("docs/how-to/outbox.md", "if Redis answers within {}.", "half a second", SOON_SECONDS, 0.5),
    Figure("docs/how-to/outbox.md", "`producer.pressure()` is {} or more", "0.9", PRESSURE_WAITS, 0.9),
    Figure("docs/how-to/outbox.md", "and go on below {}.", "0.8", PRESSURE_GOES_ON, 0.8),
    Figure("docs/how-to/page.md", "ids of up to {} letters", "100", AUDIT_IDS_MAX, 100),
    Figure("docs/how-to/redis.md", "If fewer have it within {},", "half a second", WAIT_SECONDS, 0.5),
    Figure("docs/how-to/redis.md", "for each {} changes.", "thousand", CHUNK_SIZE, 1000),
    Figure("docs/how-to/redis.md", "has more than {} words", "3,999", ARGUMENTS_MAX, 3_999),
    Figure("docs/how-to/repartition.md", "and wait {} s.", "4", TICKER_LEASE_SECONDS, 4.0),
    Figure("docs/how-to/server-key.md", "go on within {} s;", "15", HOLD_SECONDS, 15.0),
    Figure("docs/how-to/sizing.md", "takes, up to {}, each", "128", RUNS_MAX, 128),
    Figure("docs/reference/stand-in.md", "longer than {} MiB", "8", BODY_LIMIT_BYTES, 8 * 2**20),
    Figure("docs/reference/stand-in.md", "about the last {} records", "100,000", HISTORY_RECORDS, 100_000),
    Figure("docs/explanation/design.md", "how long it waits ({} s here)", "2", LEASE_PATH_SECONDS, 2.0),
    Figure("docs/explanation/design.md", "If no run moves for {} s", "0.2", STALLED_SECONDS, 0.2),
    Figure("docs/explanation/design.md", "none is added for {} ms", "50", REST_SECONDS, 0.05),
    Figure("docs/explanation/design.md", "takes hints from it for {} seconds", "five", UNTAKEN_SECONDS, 5.0),
    Figure("docs/explanation/design.md", "consumed nothing for {} seconds", "30", CONSUMER_STALLED_SECONDS, 30.0),
    Figure("docs/explanation/design.md", "at least {} of the pairs that a settle keeps", "50", HEAVY_PAIRS, 50),
    Figure("docs/explanation/design.md", "a quarter of the first {} pairs", "64", SAMPLED_PAIRS, 64),
    Figure("docs/explanation/flow-control.md", "two intervals ({} ms)", "20 to 100", LEAD, (20.0, 100.0)),
    Figure("docs/explanation/flow-control.md", "the rate is {} % of it", "96", rate.MOST_SHARE, 0.96),
    Figure("docs/explanation/flow-control.md", "If only {} requests or fewer", "4", rate.FEW, 4.0),
    Figure("docs/explanation/flow-control.md", "grows by {} of itself", "half", rate.SEARCH_SHARE, 0.5),
    Figure("docs/explanation/flow-control.md", "never falls below {} %", "65", rate.LEAST_SHARE, 0.65),
    Figure("docs/explanation/flow-control.md", "or below {} % if the rate", "94", rate.LONG_SHARE, 0.94),
    Figure("docs/explanation/flow-control.md", "went well for {} seconds", "five", rate.LONG_MS, 5_000.0),
    Figure("docs/explanation/flow-control.md", "wait for more than {} seconds", "two", rate.LONG_WAIT_MS, 2_000.0),
    Figure("docs/explanation/flow-control.md", "is tried** after {} seconds", "18", rate.HOLD_WINDOWS, 18),
    Figure("docs/explanation/flow-control.md", "or after {} if the first", "4", rate.FIRST_HOLD_WINDOWS, 4),
    Figure("docs/explanation/flow-control.md", "after {} if the estimate came", "6", rate.SHORT_HOLD_WINDOWS, 6),
    Figure("docs/explanation/flow-control.md", "does not fall below {} % either", "85", rate.EARLY_SHARE, 0.85),
    Figure(
        "docs/explanation/design.md", "the endpoint takes {} records a second", "20,000", gate.QUICK_RECORDS, 20_000.0
    ),
    Figure("docs/explanation/design.md", "of which more than {} % are deletes", "2", delete_scan.MANY_DELETES, 0.02),
    Figure("docs/explanation/flow-control.md", "from fewer than {} confirmations", "10", rate.MANY, 10.0),
    Figure("docs/explanation/flow-control.md", "Each second adds {} % of", "5", rate.STEP_SHARE, 0.05),
    Figure("docs/explanation/flow-control.md", "the estimate is {} % of what was", "95", rate.LATELY_SHARE, 0.95),
    Figure("docs/explanation/flow-control.md", "at least {} % of the rate was confirmed", "80", rate.USED_SHARE, 0.8),
    Figure("docs/explanation/flow-control.md", "asks for more than {} seconds", "two", rate.LONG_WAIT_MS, 2000.0),
    Figure("docs/explanation/flow-control.md", "or a {} has passed", "second", concurrency.FIRST_MS, 1_000.0),
    Figure("docs/explanation/flow-control.md", "is 4 until {} requests", "32", concurrency.FIRST_REQUESTS, 32.0),
    Figure("docs/explanation/flow-control.md", "no answer comes for {} ms", "50", concurrency.SLOW_MS, 50.0),
    Figure("docs/explanation/flow-control.md", "a latency {} deviations above", "2.5", concurrency.DEVIATIONS, 2.5),
    Figure("docs/explanation/flow-control.md", "is not tried again for {} s", "5", concurrency.HOLD_MS, 5000.0),
    Figure("docs/explanation/flow-control.md", "At {} times the least latency", "1.5", concurrency.SLOWER, 1.5),
    Figure("docs/explanation/flow-control.md", "never lowers the limit below {}.", "4", concurrency.START, 4.0),
    Figure("README.md", "a worker, {} changes", "20,000", DEMO_CHANGES, 20_000),
    Figure("docs/reference/contract.md", "has {} dead letters already", "10,000", DEAD_CAP, 10_000),
    Figure("docs/reference/contract.md", "{} refusals of single records in a row", "Twenty", SINGLE_REJECTIONS_MAX, 20),
    Figure("docs/reference/contract.md", "({} unless configured otherwise)", "30", LONGEST_WAIT_SECONDS, 30.0),
    Figure("docs/reference/contract.md", "while the pressure is {} or more", "0.9", PRESSURE_WAITS, 0.9),
    Figure("docs/reference/contract.md", "lane fills to {} changes", "two million", BULK_WAITING_MAX, 2_000_000),
    Figure("docs/reference/contract.md", "in use goes from 50 % to {} %", "90", MEMORY_FULL, 0.9),
    Figure("docs/reference/contract.md", "memory in use goes from {} %", "50", MEMORY_EASY, 0.5),
    Figure("docs/reference/contract.md", "the first {} entries of each log", "100", STATUS_HEADS, 100),
    Figure("docs/reference/exit-statuses.md", "| `{}` | worker | it stopped consuming", "70", EXIT_STALLED, 70),
    Figure("docs/explanation/design.md", "and its {} other classes", "seven", CLASSES - 1, 7),
    Figure("docs/explanation/design.md", "and up to {} more", "a thousand", AUDIT_MOST - AUDIT_KEPT, 1_000),
    Figure("docs/how-to/page.md", "are removed {} at a time", "a thousand", AUDIT_MOST - AUDIT_KEPT, 1_000),
    Figure(
        "docs/explanation/design.md", "from {} on, pairs that are not suspect", "ten", SINGLE_REJECTIONS_MAX // 2, 10
    ),
    Figure("docs/explanation/design.md", "of a log that holds {} requests' worth", "four", LONG_BATCHES, 4),
    Figure("docs/explanation/design.md", "in the queue ends with status {},", "70", EXIT_STALLED, 70),
    Figure("docs/explanation/flow-control.md", "the limit becomes {} immediately", "8", 2 * concurrency.START, 8.0),
    Figure("docs/reference/contract.md", "of which more than {} % are deletes", "2", delete_scan.MANY_DELETES, 0.02),
    Figure("docs/reference/contract.md", "XC user id: 1 to {} bytes", "256", ID_MAX_BYTES, 256),
    Figure("docs/reference/contract.md", "reports the change, up to {} bytes", "64", SOURCE_MAX_BYTES, 64),
    Figure("docs/reference/dead-letter-reasons.md", "empty, longer than {} bytes", "256", ID_MAX_BYTES, 256),
    Figure("docs/reference/log-events.md", "it ends with {} |", "70", EXIT_STALLED, 70),
    Figure("docs/reference/log-events.md", "the process ends with {} |", "75", EX_TEMPFAIL, 75),
    Figure("docs/reference/contract.md", "a Redis older than {},", "6.2", OLDEST_REDIS, (6, 2)),
    Figure("docs/how-to/alerts.md", "is older than {},", "6.2", OLDEST_REDIS, (6, 2)),
    Figure("docs/how-to/redis.md", "It must be {} or newer", "6.2", OLDEST_REDIS, (6, 2)),
    Figure("docs/how-to/repartition.md", "{} is enough for most", "64", DEFAULT_PARTITIONS, 64),
    Figure("docs/how-to/endpoint.md", "If {} records in a row are refused alone", "twenty", SINGLE_REJECTIONS_MAX, 20),
    Figure("README.md", "event log, {} partitions", "64", DEFAULT_PARTITIONS, 64),
    Figure("docs/tutorials/testing.md", "contact, seconds={})", "10", SYNCED_SECONDS, 10.0),
    Figure("docs/how-to/page.md", "http://127.0.0.1:{}>", "8090", SERVE["port"], 8090),
    Figure("docs/tutorials/first-delivery.md", "http://127.0.0.1:{}>", "8090", SERVE["port"], 8090),
    Figure("docs/how-to/lanes.md", "Bulk gets a {} of the records", "tenth", bulk_share(500, 0), 50),
    Figure("docs/reference/contract.md", "Bulk has a {} of the records", "tenth", bulk_share(500, 0), 50),
    Figure("docs/how-to/redis.md", "looks at its master {}, each", "once a second", LOOKED_FOR_LOSS_SECONDS, 1.0),
    Figure("docs/how-to/redis.md", "{} after the cut it counts", "ten seconds", _REMEMBERED_SECONDS, 10.0),
    Figure("docs/how-to/redis.md", "had in the last {}, at least one", "ten seconds", _REMEMBERED_SECONDS, 10.0),
    Figure("docs/how-to/redis.md", "if not set, {} for the broker", "5", _BROKER_HEALTH_CHECK_SECONDS, 5),
    Figure("docs/how-to/messages.md", "what it wrote within {} |", "half a second", WAIT_SECONDS, 0.5),
    Figure("docs/how-to/upgrade.md", "was seen in the last {},", "minute", GONE_MS, 60_000),
    Figure("docs/how-to/erasure.md", "the person** for {} days", "30", ERASE["suppress_days"], 30),
    Figure("docs/how-to/erasure.md", "(`--wait`, {} s)", "60", ERASE["wait_seconds"], 60),
    Figure("docs/how-to/erasure.md", "It reads {} pairs at a time", "a thousand", traces.PAGE, 1_000),
    Figure("docs/how-to/reconcile.md", "(`--wait`, {} seconds unless given)", "300", _REASSERT_WAIT_SECONDS, 300),
    Figure("docs/how-to/deploy.md", "A worker has {} s to finish", "60", GRACE and GRACE[1], "60s"),
    Figure("docs/how-to/alerts.md", "429 or silence for {} |", "ten minutes", ALERTS["ContactSyncEndpointAway"], "10m"),
    Figure("docs/how-to/alerts.md", "paused deliveries {} ago", "an hour", ALERTS["ContactSyncPaused"], "1h"),
    Figure("docs/how-to/alerts.md", "with an unknown code for {} |", "an hour", ALERTS["ContactSyncParked"], "1h"),
    Figure("docs/reference/metrics.md", "seen in the last {} minutes", "ten", HISTORY_SECONDS, 600.0),
    Figure("docs/reference/metrics.md", "minutes, {} at least", "two", _RATE_SECONDS, 120.0),
    Figure("docs/explanation/comparison.md", "batches of up to {} |", "500", DEFAULTS["batch_size"], 500),
    Figure("docs/explanation/performance.md", "after {} new objects", "50,000", _GARBAGE, 50_000),
    Figure("docs/explanation/performance.md", "traffic as it is: {} pairs", "50,000", DAILY_PAIRS, 50_000),
    Figure("docs/explanation/proof.md", "{} bugs are planted into it", "Twelve", len(PLANTED), 12),
    Figure("docs/explanation/flow-control.md", "above the mean takes a {}.", "tenth", concurrency.DECREASE, 0.9),
    Figure("docs/explanation/design.md", "`audit` | {} entries", "10,000", AUDIT_KEPT, 10_000),
    Figure("docs/explanation/design.md", "`reconcile:history` | {} runs", "100", RUNS_KEPT, 100),
    Figure("docs/explanation/design.md", "together hold more than {} requests' worth", "four", LONG_BATCHES, 4),
    Figure("docs/explanation/design.md", "and more than a {} of them, is heavy", "quarter", HEAVY_SHARE, 4),
    Figure("docs/explanation/design.md", "{} single rejections in a row", "Twenty", SINGLE_REJECTIONS_MAX, 20),
    Figure("docs/explanation/design.md", "up to {} runs work at once", "four", AT_WORK, 4),
    Figure("docs/explanation/design.md", "up to {} are begun", "four", STALLED_RUNS, 4),
    Figure("docs/reference/exit-statuses.md", "| `{}` | worker | the number of partitions", "75", EX_TEMPFAIL, 75),
]


def names(figures: Iterable[Figure]) -> list[str]:
    return [figure.words.format(figure.shown) for figure in figures]


@pytest.mark.parametrize("figure", FIGURES, ids=names(FIGURES))
def test_a_figure_is_what_the_code_runs_with(figure: Figure) -> None:
    text = " ".join((ROOT / figure.document).read_text(encoding="utf-8").split())
    assert figure.words.format(figure.shown) in text, f"{figure.document} words it otherwise: fix this table"
    assert figure.constant == figure.value


def test_the_command_reconciles_within_the_documented_limits() -> None:
    defaults = {option.name: option.default for option in reconcile_run.params}
    assert defaults["max_deletes"] == Limits().most
    (share,) = [option for option in reconcile_run.params if option.name == "max_delete_share"]
    assert f"[default: {Limits().share:g}]" in str(share.to_info_dict()["help"])
