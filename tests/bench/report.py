"""What was measured, as Markdown tables."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any, Final

from tests.bench.plot import bars

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

REDIS_GOAL_US: Final = 6.0
PENDING_GOALS: Final = {"short ids": 120, "UUIDs": 180}
OUTAGE_GOAL: Final = 0.90
LATENCY_GOALS: Final = {50: 0.15, 2_000: 0.30}
COMPILED_GOAL: Final = 1.5


HEAD: Final = "contact-sync worker"
SCRIPT: Final = "hand-written script"


def report(found: Mapping[str, Any]) -> str:
    """All tables of what was found, each with what it was measured on."""
    parts = []
    for name, text in _TEXTS.items():
        if name in found:
            parts += [text(found[name]["found"]), _measured(found[name])]
    return "\n\n".join(parts)


def headline(found: Mapping[str, Any]) -> str:
    """The table of the README: the documented default beside the script, traffic as it is first.

    Of changes with and without `at` it shows the ones of which the default is less far ahead.
    """
    run = found["drain"]
    worse: dict[tuple[str, str], dict[str, Any]] = {}
    for name, systems in run["found"].items():
        latency, _, traffic = name.partition(", ")
        row = (latency, traffic.removesuffix(", with `at`").removesuffix(", without `at`"))
        if row not in worse or systems[SCRIPT]["ratio"] < worse[row][SCRIPT]["ratio"]:
            worse[row] = systems
    rows = [
        (*row, f"{of[HEAD]['rate']:,.0f}", f"{of[SCRIPT]['rate']:,.0f}", f"{of[SCRIPT]['ratio']:.1f}")
        for row, of in worse.items()
    ]
    head = ("endpoint answers in", "pairs", HEAD, "the script", "times as fast")
    return f"{_table(head, rows)}\n\n{_measured(run)}"


def sizes(found: Mapping[str, Any]) -> str:
    """What Redis needs for each entry and each pair: the table of the page on sizing."""
    run, of = found["sizes"], found["sizes"]["found"]
    rows = [
        (
            "entry in the log",
            of["log"],
            "changes not read yet; they are soon read and joined, in an outage too",
        ),
        ("pending pair", of["pending"], "distinct pairs that changed during the longest outage or pause"),
        (
            "remembered pair",
            of["ledger"],
            "distinct pairs confirmed in one to two times `CONTACT_SYNC_LEDGER_SECONDS`, or while older changes wait",
        ),
    ]
    table = _table(("what", "bytes each", "how many"), [(what, f"{size:.0f}", many) for what, size, many in rows])
    redis = run["machine"]["redis_server"]
    example = (10_000_000 * of["pending"] + 1_000_000 * of["ledger"]) / 1e9
    return (
        f"{table}\n\nMeasured with {of['pairs']:,} pairs, on {run['date']} (Redis {redis}).\n\n"
        "**An example.** Ten million pairs that changed in an outage and a million remembered pairs need "
        f"{example:.1f} GB."
    )


def reconciling(found: Mapping[str, Any]) -> str:
    """What a comparison takes by the rows of its source: the table of the page on reconciliation."""
    run = found["reconciling"]
    rows = [(f"{int(n):,}", f"{each['seconds']:.1f}", f"{each['mb']:.0f} MB") for n, each in run["found"].items()]
    table = _table(("rows, and as many pairs in the ledger", "seconds", "peak"), rows)
    cpu = run["machine"]["cpu"]
    return f"{table}\n\nComparison only, with nothing to send, on one of two cores ({cpu}), {run['date']}."


def plan(found: Mapping[str, Any]) -> str:
    """What a million changes a second would take: computed from what a change costs by the nodes of a cluster."""
    of = found["nodes"]["found"]
    few, many = (of[number] for number in (min(of, key=int), max(of, key=int)))
    masters, one, all_of = max(of, key=int), few["xadd_us"] + few["redis_us"], many["xadd_us"] + many["redis_us"]
    half, busiest = 500_000 / one, 500_000 / (all_of * many["busiest_share"])
    asked = sorted(each["shared_commands_a_request"] for each in of.values())
    workers, producers = (_least_and_most(of.values(), name) for name in ("worker_us", "producer_us"))
    rows = [
        (
            "Redis, appending and delivering",
            f"{one:.1f} µs on one node, {all_of:.1f} µs on {masters}",
            f"{one:.0f} to {all_of:.0f} cores",
        ),
        ("workers", f"{workers} µs", f"{workers} cores"),
        ("producers, in Python", f"{producers} µs", f"{producers} cores"),
        ("endpoint, 500 pairs a request", "", "2,000 requests a second; at 100 ms 200 under way"),
    ]
    said = (
        "One Redis runs commands in one thread. With half of it to spare, one node takes "
        f"{half // 1000:,.0f},000 changes a second.\n"
        f"{masters} nodes take {busiest // 1000:,.0f},000, because the busiest had {many['busiest_share'] * 100:.0f} % "
        f"of the work, where an even share is {100 / int(masters):.0f} %. So a million takes\n"
        f"{ceil(2 * all_of)} masters whose slots are balanced: `contact-sync check` says which slots to move. "
        f"Fleet-wide keys cost {asked[0]:.0f} to {asked[-1]:.0f} commands a\n"
        "request on the nodes that hold them, so 2,000 requests a second mean up to "
        f"{ceil(2 * asked[-1]):,},000 such commands a second."
    )
    return _table(("part", "cost of a change", "for 10^6 a second"), rows) + "\n\n" + said


def compiled(found: Mapping[str, Any]) -> str:
    """What a compiled core gains, and whether that is enough to take it."""
    run = found["compiled"]
    of = run["found"]["by_traffic"]
    rows = [
        (
            *(traffic, f"{each['pure_us']:.2f}", f"{each['compiled_us']:.2f}", f"{each['ratio']:.2f}"),
            *(f"{each['pure_rate']:,.0f}", f"{each['compiled_rate']:,.0f}", f"{each['drain_ratio']:.2f}"),
        )
        for traffic, each in of.items()
    ]
    head = (
        *("changes", "read, join and encode: CPU µs a change", "compiled", "ratio"),
        *("drain at 0 ms: a second", "compiled", f"ratio ({COMPILED_GOAL:g} is needed)"),
    )
    shares = [each["pure_us"] / _whole_us(found["drain"]["found"][f"0 ms, {traffic}"]) for traffic, each in of.items()]
    best = max(each["drain_ratio"] for each in of.values())
    said = (
        f"**The core {'is not' if best < COMPILED_GOAL else 'should be'} compiled.** A drain row would have to gain "
        f"{COMPILED_GOAL:g} x, and the best one gains {best:.2f} x.\n"
        f"Reading, joining and encoding are {min(shares) * 100:.0f} to {max(shares) * 100:.0f} % of a change: of the "
        "processor time that it takes in worker, Redis and endpoint."
    )
    return f"{_table(head, rows)}\n\n{said}\n\nCompiled by mypyc {run['found']['mypyc']}. {_measured(run)}"


def _whole_us(systems: Mapping[str, Any]) -> float:
    """Processor time of a change in a drain of ours, in microseconds: in worker, Redis and endpoint."""
    ours = systems[HEAD]
    return float(ours["worker_us"] + ours["redis_us"] + ours["endpoint_us"])


def _least_and_most(of: Iterable[Mapping[str, Any]], name: str) -> str:
    found = [each[name] for each in of]
    return f"{min(found):.0f} to {max(found):.0f}"


def chart(found: Mapping[str, Any]) -> str:
    """The plot of the README, as SVG."""
    (name, systems), *_ = (each for each in found["drain"]["found"].items() if each[0].startswith("20 ms"))
    title = f"Drain, endpoint at {name.replace('`', '')}"
    return bars(title, "changes a second", {each: of["rate"] for each, of in systems.items()})


def _measured(run: Mapping[str, Any]) -> str:
    machine = run["machine"]
    names = {"redis_server": "Redis", "celery": "Celery", "redis": "redis-py", "hiredis": "hiredis", "httpx": "httpx"}
    versions = ", ".join(f"{shown} {machine[name]}" for name, shown in names.items())
    busy = " **Other work ran on the machine meanwhile: this does not measure speed.**"
    return (
        f"Measured on {run['date']}: {machine['cpu']}, {machine['cores']} cores for everything, "
        f"Python {machine['python']}, {versions}. {run['changes']:,} changes, {run['rounds']} alternations, medians. "
        f"Load of the machine before it: {run['load_before']:.1f}, after it: {run['load_after']:.1f}."
        f"{' ' + run['note'] if 'note' in run else ''}{busy if run['load_before'] > machine['cores'] else ''}"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])


def _floor(of: dict[str, Any]) -> str:
    rows = [
        ("XADD alone, pipelined, packed beforehand", f"{of['xadd_a_second']:,.0f} a second"),
        ("XADD, Redis' own time", f"{of['xadd_redis_us']:.2f} µs"),
        ("read, join and encode, no ledger, no HTTP", f"{of['read_join_encode_a_second']:,.0f} changes a second"),
        ("the endpoint's ceiling, one connection", f"{of['endpoint_records_a_second']:,.0f} records a second"),
    ]
    return "### Floor\n\n" + _table(("", ""), rows)


def _drained(title: str, of: dict[str, Any]) -> str:
    rows = []
    for name, systems in of.items():
        for system, each in systems.items():
            rows.append(
                (
                    *(name, system, f"{each['rate']:,.0f}", f"{each['ratio']:.2f}", f"{each['span_rate']:,.0f}"),
                    *(f"{each['worker_us']:.1f}", f"{each['redis_us']:.2f}", f"{each['start_seconds']:.2f}"),
                    *(f"{each['requests']:,}", each["most_in_flight"], f"{each['changes']:,}"),
                )
            )
    head = (
        *(
            "endpoint, changes",
            "system",
            "a second",
            f"{HEAD} is so many times as fast",
            "a second from the first request",
        ),
        *("its CPU µs a change", "Redis µs a change", "s from start to first request"),
        *("requests", "most under way", "changes given"),
    )
    return f"### {title}\n\n" + _table(head, rows)


def _drain(of: dict[str, Any]) -> str:
    text = _drained("Drain, beside the hand-written script", of)
    first = next(each for each in next(iter(of.values())).values())
    by_command = [(name, f"{us:.3f}") for name, us in first["commands"].items()]
    title = f"Redis in the first row, µs a change: {first['redis_us']:.2f} in all (goal {REDIS_GOAL_US:g})"
    return f"{text}\n\n{title}; commands inside a script are part of `evalsha`.\n\n" + _table(
        ("command", "µs"), by_command
    )


def _producing(of: list[dict[str, Any]]) -> str:
    rows = [
        (
            *(each["ours"], f"{each['rate']:,.0f}", each["theirs"], f"{each['their_rate']:,.0f}"),
            *(f"{each['ratio']:.2f}", f"{each['goal']:.2f}", f"{each['cpu_us']:.1f}", f"{each['their_cpu_us']:.1f}"),
        )
        for each in of
    ]
    return "### Producing\n\n" + _table(
        ("ours", "a second", "beside", "a second", "ratio", "goal", "CPU µs", "their CPU µs"), rows
    )


def _latency(of: list[dict[str, Any]]) -> str:
    rows = [
        (
            f"{each['rate']:,}",
            f"{each['p50'] * 1000:.0f}",
            f"{each['p99'] * 1000:.0f} (goal {LATENCY_GOALS[each['rate']] * 1000:.0f})",
            f"{each['max'] * 1000:.0f}",
            f"{each['worker_cores'] * 100:.0f} %",
            f"{each['delivered']:,} of {each['changes']:,}",
        )
        for each in of
    ]
    return "### XADD to endpoint, linger 0.05 s\n\n" + _table(
        ("changes a second", "p50 ms", "p99 ms", "max ms", "worker, of a core", "delivered"), rows
    )


def _idle(of: dict[str, Any]) -> str:
    most = sorted(of["ours"].items(), key=lambda each: -each[1])
    said = ", ".join(f"{name} {rate:.2f}" for name, rate in most)
    return (
        f"### Idle\n\nOne worker, {of['seconds']:.0f} s: {of['cores'] * 100:.2f} % of a core (goal below 1 %), "
        f"{sum(of['ours'].values()):.1f} Redis commands a second (goal: at most 5): {said}. "
        f"Celery itself: {of['celerys']:.1f}."
    )


def _backlog(of: dict[str, Any]) -> str:
    rows = [
        (f"{int(size):,}", f"{each['rate']:,.0f}", f"{each['worker_us']:.1f}", f"{each['worker_mb']:.0f}")
        for size, each in of.items()
    ]
    head = ("changes waiting", "a second", "CPU µs a change", "worker's peak, MB")
    return "### Drain by backlog\n\n" + _table(head, rows)


def _pending(of: dict[str, Any]) -> str:
    rows = [
        (
            *(name, f"{each['bytes_a_pair']:.0f} (goal {PENDING_GOALS[name.partition(', ')[2]]})"),
            *(f"{each['log_bytes_a_change']:.0f}", f"{each['seconds']:.0f}"),
        )
        for name, each in of.items()
    ]
    head = ("pairs waiting in an outage", "bytes a pair", "bytes a change in the log", "seconds until all were joined")
    return "### An outage: what a pair costs that waits\n\n" + _table(head, rows)


def _partitions(of: dict[str, Any]) -> str:
    rows = [
        (
            *(number, f"{each['rate']:,.0f}", f"{each['worker_us']:.1f}", f"{each['redis_us']:.2f}"),
            *(f"{each['p50'] * 1000:.0f}", f"{each['p99'] * 1000:.0f}"),
        )
        for number, each in of.items()
    ]
    head = ("partitions", "a second", "CPU µs a change", "Redis µs a change", "p50 ms at 50 a second", "p99 ms")
    return "### Drain at 0 ms and latency, by partitions\n\n" + _table(head, rows)


def _workers(of: dict[str, Any]) -> str:
    rows = [
        (name, f"{each['rate']:,.0f}", f"{each['worker_us']:.1f}", f"{each['redis_us']:.2f}", each["most_in_flight"])
        for name, each in of.items()
    ]
    head = ("workers, endpoint", "a second", "CPU µs a change", "Redis µs a change", "most in flight")
    return "### Drain by workers\n\n" + _table(head, rows)


def _in_time(run: dict[str, Any]) -> str:
    """How long a run took, or how much it used of limits that had changed half a minute before."""
    if "used" in run:
        return "uses " + ", ".join(f"{share:.0%} of {limit}" for limit, share in run["used"].items())
    return "none" if run["ideal"] is None else f"{run['seconds'] / run['ideal']:.3f} (goal 1.1)"


def _flow(of: dict[str, Any]) -> str:
    rows = []
    for name, each in of.items():
        if name == "knee":
            continue
        p95 = each["p95"]
        rows.append(
            (
                *(name, f"{each['pairs']:,}", f"{each['seconds']:.1f}"),
                _in_time(each),
                f"{each['limited']:,} of {each['requests']:,} (goal 1 %)",
                "none" if p95 is None else f"{each['p50']:.2f}, {p95:.2f}",
            )
        )
    head = ("", "pairs waiting", "seconds", "times the ideal", "answered 429", "live deletes: p50, p95 s (goal 2)")
    knee = of["knee"]
    best = max(rate for limit, rate in knee.items() if limit != "auto")
    told = ", ".join(f"{limit}: {rate:,.0f}" for limit, rate in knee.items())
    return (
        "### An endpoint that limits\n\n"
        + _table(head, rows)
        + f"\n\nLatency doubles above 8 requests under way; records a second by limit: {told}. "
        f"Found: {knee['auto'] / best:.2f} of the best fixed one (goal 0.90)."
    )


def _nodes(of: dict[str, Any]) -> str:
    rows = [
        (
            number,
            f"{each['xadd_us']:.1f}",
            f"{each['redis_us']:.1f}",
            f"{each['busiest_share'] * 100:.0f} %",
            f"{each['producer_us']:.1f}",
            f"{each['worker_us']:.1f}",
            f"{each['shared_commands_a_request']:.1f}",
        )
        for number, each in of.items()
    ]
    head = (
        "masters",
        "Redis, µs a change as it is appended",
        "and as it is delivered",
        "of which the busiest node",
        "producer, µs a change",
        "worker, µs a change",
        "commands for the whole fleet's keys, a request",
    )
    return (
        "### A cluster: what a change costs by its nodes\n\n"
        "Processor time of whole processes, not of commands alone. All pairs differ, 500 a request.\n\n"
        + _table(head, rows)
    )


def _outage(of: dict[str, Any]) -> str:
    rows = [
        (
            *(name, f"{each['there']:,.0f}", f"{each['away']:,.0f}"),
            *(f"{each['ratio']:.2f} (goal {OUTAGE_GOAL:.2f})", f"{each['there_us']:.1f}, {each['away_us']:.1f}"),
            f"{each['pause']:.1f}",
        )
        for name, each in of.items()
    ]
    head = (
        *("away", "changes a second, all nodes there", "the same with it away", "ratio"),
        "the worker's CPU µs a change, there and away",
        "s that a change takes in the moment it goes",
    )
    return "### A node of a cluster is away: the partitions of the other two\n\n" + _table(head, rows)


_TEXTS: Final = {
    "floor": _floor,
    "drain": _drain,
    "peers": lambda of: _drained("Drain, beside other ways", of),
    "settings": lambda of: _drained("Drain, other settings than the default", of),
    "producing": _producing,
    "latency": _latency,
    "idle": _idle,
    "backlog": _backlog,
    "pending": _pending,
    "partitions": _partitions,
    "workers": _workers,
    "flow": _flow,
    "nodes": _nodes,
    "outage": _outage,
}
