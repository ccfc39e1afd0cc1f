"""What was measured, as Markdown tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# How many times the hand-written script, by kind and latency (at least).
GOALS: Final = {"distinct, 0 ms": 1.5, "hot, 0 ms": 2.0} | {
    f"{kind}, {latency} ms": goal for kind in ("distinct", "hot") for latency, goal in ((20, 6.0), (100, 20.0))
}
REDIS_GOAL_US: Final = 6.0
PENDING_GOALS: Final = {"short ids": 120, "UUIDs": 180}
LATENCY_GOALS: Final = {50: 0.15, 2_000: 0.30}


def report(found: dict[str, Any]) -> str:
    """All tables of what was found."""
    machine, run = found["machine"], found["run"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("redis", "hiredis", "celery", "httpx"))
    machines = (
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {versions}; load before: "
        f"{machine['load'][0]:.1f}. {run['changes']:,} changes a drain, {run['rounds']} alternations, medians."
    )
    parts = [machines]
    for name, text in _TEXTS.items():
        if name in found:
            parts.append(text(found[name]))
    return "\n\n".join(parts) + "\n"


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
            goal = GOALS.get(name) if system == "hand-written script" else None
            ratio = f"{each['ratio']:.2f}" + (f" (goal {goal:g})" if goal else "")
            rows.append(
                (
                    name,
                    system,
                    f"{each['rate']:,.0f}",
                    ratio,
                    f"{each['worker_us']:.1f}",
                    f"{each['redis_us']:.2f}",
                    f"{each['requests']:,}",
                    each["most_in_flight"],
                    f"{each['changes']:,}",
                )
            )
    head = (
        *(
            "changes",
            "system",
            "a second",
            "contact-sync is so many times faster",
            "its CPU µs a change",
            "Redis µs a change",
        ),
        *("requests", "most in flight", "changes given"),
    )
    return f"### {title}\n\n" + _table(head, rows)


def _drain(of: dict[str, Any]) -> str:
    text = _drained("Drain, beside the hand-written script", of)
    healthy = next(each for each in of["distinct, 0 ms"].values())
    by_command = [(name, f"{us:.3f}") for name, us in healthy["commands"].items()]
    title = f"Redis, µs of server time a change: {healthy['redis_us']:.2f} in all (goal {REDIS_GOAL_US:g})"
    return f"{text}\n\n{title}; commands inside a script are part of `evalsha`.\n\n" + _table(
        ("command", "µs"), by_command
    )


def _settings(of: dict[str, Any]) -> str:
    rows = [
        (name, f"{each['rate']:,.0f}", f"{each['worker_us']:.1f}", f"{each['redis_us']:.2f}")
        for name, each in of.items()
    ]
    return "### Drain by settings, 0 ms, 95 % distinct\n\n" + _table(
        ("", "a second", "CPU µs a change", "Redis µs a change"), rows
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
    head = ("worker processes", "a second", "CPU µs a change", "Redis µs a change", "most in flight")
    return "### Drain by workers\n\n" + _table(head, rows)


def _flow(of: dict[str, Any]) -> str:
    rows = []
    for name, each in of.items():
        if name == "knee":
            continue
        ideal, p95 = each["ideal"], each["p95"]
        rows.append(
            (
                *(name, f"{each['pairs']:,}", f"{each['seconds']:.1f}"),
                "none" if ideal is None else f"{each['seconds'] / ideal:.3f} (goal 1.1)",
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


_TEXTS: Final = {
    "floor": _floor,
    "drain": _drain,
    "peers": lambda of: _drained("Drain, beside other ways", of),
    "settings": _settings,
    "producing": _producing,
    "latency": _latency,
    "idle": _idle,
    "backlog": _backlog,
    "pending": _pending,
    "partitions": _partitions,
    "workers": _workers,
    "flow": _flow,
}
