"""The blocks of the documentation that say what the proofs found, each from a result (pure)."""

from __future__ import annotations

import re
from collections import Counter
from decimal import ROUND_CEILING, Context
from typing import TYPE_CHECKING, Any, Final

from worker.core.numbers import many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_BLOCK: Final = re.compile(r"(<!-- proof:begin (\w+) -->\n).*?(\n?<!-- proof:end -->)", re.DOTALL)
_WRONG: Final = (
    ("lost", ("lost",), ("lost",)),
    ("resurrected", ("resurrected",), ("resurrected",)),
    ("wrong final state", ("wrong final state",), ("wrong_end",)),
    ("order violations, illegal requests", ("order violations", "illegal requests"), ("order", "illegal_request")),
    (
        "dead letters wrong, totals wrong, left over",
        ("wrong dead letters", "wrong totals", "left over"),
        ("dead_letters", "totals", "left_over"),
    ),
)
"""Rows of the table: how they are called, and under which names the soak and the simulation count them."""

_WRONG_SHOWN: Final = 50
"""Most of what is wrong that is told in full."""

_ON: Final = {
    "redis": "one Redis",
    "sentinel": "a master and two replicas with sentinels",
    "cluster": "a cluster of six nodes",
}


def day(date: str) -> str:
    """A day as people write it: 24 November 2026."""
    year, month, of_month = date.split("-")
    return f"{int(of_month)} {_MONTHS[int(month) - 1]} {year}"


def share(value: float) -> str:
    """A small share as people say it, rounded up: rounded down it would claim too much."""
    for of, words in ((100, "%"), (100_000, "in 100,000"), (1_000_000, "in a million"), (10**9, "in a billion")):
        if (rounded := _rounded_up(value * of)) >= (1 if of < 10**6 else 0.5):  # nobody says 910 in a billion
            rounded = max(rounded, 1)
            return f"{rounded:g} {words}"
    return "0"


def _rounded_up(value: float) -> float:
    return float(Context(prec=2, rounding=ROUND_CEILING).create_decimal_from_float(value))


def of_code(made: Mapping[str, Any]) -> str:
    """When and of which commit: `on 29 November 2026 on commit 775e33e`."""
    commit = f" on commit {made['commit']}" if made["commit"] else ""
    return f"on {day(made['date'])}{commit}"


def table(rows: Sequence[Sequence[str]], right: str = "") -> str:
    """A table of Markdown.

    Args:
        rows: the head, then the others.
        right: the columns whose numbers stand on the right, by a `r` for each of these and a `-` for the others.
    """
    line = ["---:" if each == "r" else "---" for each in right.ljust(len(rows[0]), "-")]
    return "\n".join(f"| {' | '.join(each)} |" for each in (rows[0], line, *rows[1:]))


def _soaked(runs: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(int(each["counts"][name]) for each in runs)


def _struck(runs: Sequence[Mapping[str, Any]]) -> str:
    kinds = {kind for each in runs for kind in each["faults"]}
    times = sum(each["times"] for run in runs for each in run["faults"].values())
    alone = sum(each["alone"] for run in runs for each in run["faults"].values())
    return f"{times:,} of {len(kinds)} kinds, {times - alone:,} at the same time as others"


def _broken(lived: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """In how many worlds each invariant was broken."""
    found: Counter[str] = Counter()
    for world in (each for run in lived for each in run["failing"]):
        found.update({each.partition(":")[0] for each in world["violations"]})
    return found


def _numbers(results: Mapping[str, Mapping[str, Any]], *, all_rows: bool) -> str:
    runs, lived = results["soak"]["runs"], results["simulation"]["runs"]
    minutes = sum(each["options"]["seconds"] for each in runs) / 60
    broken = _broken(lived)
    worlds, steps, requests = (sum(each[name] for each in lived) for name in ("seeds", "steps", "requests"))
    soak = f"a soak of {minutes:.0f} minutes" if len(runs) == 1 else f"{len(runs)} soaks, {minutes:.0f} minutes"
    rows = [["", soak, f"{worlds:,} simulated worlds"]]
    if all_rows:
        rows.append(["command", "; ".join(map(_soak_command, runs)), "; ".join(map(_simulation_command, lived))])
        rows.append(
            [
                "what is real",
                "Redis, four Celery workers of both pools, HTTP, producers",
                "the code; Redis, clock, network are models",
            ]
        )
    pairs = f"{_soaked(runs, 'accepted'):,} of {_soaked(runs, 'pairs'):,}"
    rows.append(["changes, pairs", pairs, f"{steps:,} steps"])
    rows.append(["requests", f"{_soaked(runs, 'requests'):,}", f"{requests:,}"])
    rows.append(["faults", _struck(runs), "at every step, by chance"])
    for name, soaked, simulated in _WRONG if all_rows else _WRONG[:3]:
        cells = (sum(_soaked(runs, each) for each in soaked), sum(broken[each] for each in simulated))
        rows.append([name, *(f"{each:,}" for each in cells)])
    if any("failovers" in each["counts"] for each in runs):
        rows.append(["lost by Redis itself in failovers", _lost_by_redis(runs), "not counted"])
    return table(rows, "-rr")


def _lost_by_redis(runs: Sequence[Mapping[str, Any]]) -> str:
    """What failovers lost because the replica did not have it; the oldest report has no failovers."""
    lost, failovers = (
        sum(each["counts"].get(name, 0) for each in runs) for name in ("changes lost by failovers", "failovers")
    )
    return f"{lost:,} in {failovers} failovers"


def _soak_command(run: Mapping[str, Any]) -> str:
    options = run["options"]
    on = "" if options["on"] == "redis" else f" ON={options['on']}"
    wait = f" WAIT={options['wait_replicas']}" if options["wait_replicas"] else ""
    # Those of reports that do not say it, and of most others, are as many as by default.
    partitions = f" PARTITIONS={options['partitions']}" if options.get("partitions", 16) != 16 else ""
    return f"`make soak MINUTES={options['seconds'] / 60:g} SEED={options['seed']}{on}{wait}{partitions}`"


def _simulation_command(run: Mapping[str, Any]) -> str:
    first = f" FIRST={run['first']}" if run.get("first") else ""  # the oldest one does not say it: 0
    return f"`make simulate SEEDS={run['seeds'] // run['pieces']}{first}`, {many(run['pieces'], 'piece')}"


def numbers(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The soak and the simulation side by side, and what follows from it."""
    runs, lived = results["soak"]["runs"], results["simulation"]["runs"]
    changes, pairs = (share(3 / _soaked(runs, name)) for name in ("accepted", "pairs"))
    alone = [each for run in runs for each in run["faults"].values() if each["p50"] is not None]
    slowest, longest = (max(each[name] for each in alone) for name in ("p50", "longest"))
    return "\n".join(
        (
            _numbers(results, all_rows=True),
            "",
            "What a failover lost is what the replica did not have. Such a change counts as lost by contact-sync only",
            "if its producer was told, after waiting for replicas, that it was accepted.",
            "",
            f"If none of n failed, then with 95 % confidence fewer than 3/n do. So fewer than {changes} of the soaks'",
            f"changes are lost, and fewer than {pairs} of their pairs end wrong. After a fault that struck alone, all",
            f"that had been accepted was confirmed within {slowest:.1f} s or less (median, by kind of fault), and",
            f"within {_tenths_up(longest)} s at most.",
            "",
            f"Workers ended by a fault of Celery's own {_exits(runs, 'by_celery')}, and because they stopped",
            f"consuming {_exits(runs, 'stalled')}. Each was started again, as a service manager does.",
            "",
            f"Soaks were run {'; '.join(dict.fromkeys(of_code(each['made']) for each in runs))}.",
            *map(_told_of_worlds, lived),
        )
    )


def _exits(runs: Sequence[Mapping[str, Any]], why: str) -> str:
    return many(sum(each["worker_exits"][why] for each in runs), "time")


def _told_of_worlds(run: Mapping[str, Any]) -> str:
    """One run of the simulation, with how much came up in it; the oldest one does not say that."""
    told = (
        f"The simulation was run {of_code(run['made'])}: {run['seeds']:,} worlds of "
        f"{run['steps'] / run['seeds']:.0f} steps each, {run['worlds_per_second_per_core']:.0f} a second on each core."
    )
    if "faults" not in run:
        return told
    faults, pairs = len(run["faults"]), len(run["pairs_of_faults"])
    return f"{told} {faults} kinds of faults came up, {pairs} of their {faults * (faults - 1) // 2} pairs in one world."


def _tenths_up(value: float) -> str:
    return f"{-(-value * 10 // 1) / 10:.1f}"


def headline(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of the README: the rows that matter most."""
    return _numbers(results, all_rows=False)


def fuzzing(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The inputs that each target was given."""
    targets = results["fuzzing"]["targets"]
    rows = [["target", "what it takes", "inputs", "seconds", "edges", "outcomes", "kept", "undefined", "commit"]]
    for name, each in targets.items():
        counted = [f"{each[key]:,}" for key in ("inputs", "seconds", "edges", "outcomes", "kept", "findings")]
        rows.append([name, each["what"], *counted, each["made"]["commit"]])
    inputs, seconds = (sum(each[key] for each in targets.values()) for key in ("inputs", "seconds"))
    found = sum(each["findings"] for each in targets.values())
    dates = sorted({each["made"]["date"] for each in targets.values()})
    versions = sorted(
        {f"atheris {each['versions']['atheris']}, Python {each['versions']['python']}" for each in targets.values()}
    )
    return "\n".join(
        (
            f"{inputs:,} inputs in {seconds / 60:,.0f} minutes, {found} without a defined outcome;",
            f"{', '.join(map(day, dates))}, {'; '.join(versions)}.",
            "",
            table(rows, "--rrrrrr-"),
        )
    )


def model(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The small worlds, and the bugs that are found in them."""
    every = results["model"]["scenes"]
    scenes, planted = ([each for each in every if each["planted"] is wanted] for wanted in (False, True))
    states, moves = (sum(each[name] for each in scenes) for name in ("states", "moves"))
    held, found = sum(not each["broken"] for each in scenes), sum(bool(each["broken"]) for each in planted)
    return (
        f"{states:,} states of {len(scenes)} scenes were tried, by {moves:,} moves: all held in {held} of the scenes.\n"
        f"{found} of {len(planted)} planted bugs were found. Run {of_code(results['model']['made'])}."
    )


def endurance(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What a steady load leaves behind."""
    result = results["endurance"]
    rows = [["", "at first", "in the end", "least", "most"]]
    rows += [
        [name, *(f"{each[key]:,.1f}".removesuffix(".0") for key in ("begin", "end", "least", "most"))]
        for name, each in result["trends"].items()
    ]
    grown = f"What grew: {', '.join(result['grown'])}." if result["grown"] else "Nothing grew."
    return (
        f"{result['delivered']:,} changes were delivered in {result['minutes']:g} minutes. {grown}\n"
        f"Run {of_code(result['made'])}.\n\n{table(rows, '-rrrr')}"
    )


def mutants(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The planted bugs, and what sees each."""
    result = results["mutants"]
    rows = [["bug", "what it breaks", "seen by", "seeds", "seconds"]]
    for each in result["found"]:
        cells = (each["name"], each["why"], seen_by(each), seeds_of(each), f"{each['seconds']:.1f}")
        rows.append([str(cell).replace("|", "\\|") for cell in cells])
    not_asked = result.get("not_asked", ())
    rows += [[each["name"], each["why"], f"not asked in this run: {each['because']}", "-", "-"] for each in not_asked]
    seen = sum(bool(each["by"]) and not each["trouble"] for each in result["found"])
    asked = len(result["found"])
    return f"{seen} of {asked} that were planted were seen. Run {of_code(result['made'])}.\n\n{table(rows, '---rr')}"


def seen_by(caught: Mapping[str, Any]) -> str:
    """The check that saw a bug: a test by its file and name."""
    path, _, test = caught["by"].partition("::")
    if not test:
        return caught["trouble"] or caught["by"] or "NOTHING SEES IT"
    return f"`{path.removeprefix('tests/')}`: {test}"


def seeds_of(caught: Mapping[str, Any]) -> str:
    """After how many worlds the simulation saw a bug."""
    if not caught["asked"]:
        return "-"
    return str(caught["seeds"]) if caught["seeds"] else f"none of {caught['asked']:,}"


def mutation(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The generated changes, and what follows from those that were tried."""
    runs = results["mutation"]["runs"]
    rows = [["of", "commit", "seed", "tried", "seen by a test", "changes nothing", "survived"]]
    names = {"core": "`worker/core`", "scripts": "the scripts"}
    for each in runs:
        numbers = (each[name] for name in ("seed", "tried", "seen", "same", "survived"))
        rows.append([names[each["of"]], each["made"]["commit"], *map(str, numbers)])
    seen, survived = (sum(each[name] for each in runs) for name in ("seen", "survived"))
    asked = seen + survived
    return "\n".join(
        (
            table(rows, "--rrrrr"),
            "",
            f"Of {asked} changes that mean something {seen} were seen. From that follows no more than this: with 95 %",
            f"confidence fewer than {100 * _most_missed(survived, asked):.0f} % of all such changes survive.",
        )
    )


def _most_missed(missed: int, asked: int) -> float:
    """The least share of all that is refuted, with 95 % confidence, when so many of so many are missed (binomial)."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        chance, term = 0.0, (1 - middle) ** asked
        for i in range(missed + 1):
            chance += term
            term *= (asked - i) / (i + 1) * middle / (1 - middle) if middle < 1 else 0.0
        low, high = (middle, high) if chance > 0.05 else (low, middle)
    return high


def soak(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole report of each soak."""
    return "\n\n".join("\n".join(soak_run(each)) for each in results["soak"]["runs"])


def soak_run(run: Mapping[str, Any]) -> Iterator[str]:
    """The report of one soak, line by line; `make soak` writes it as well."""
    options, counts, faults = run["options"], run["counts"], run["faults"]
    yield f"## {options['seconds'] / 60:g} minutes on {_ON[options['on']]}, seed {options['seed']}"
    yield ""
    machine = f" {run['machine']}." if "machine" in run else ""
    yield f"The report of {_soak_command(run)}, run {of_code(run['made'])}.{machine}"
    yield from run.get("notes", ())
    yield ""
    wrong = run["wrong"]
    yield "Nothing is wrong." if not wrong else f"{len(wrong)} things are wrong."
    yield f"{options['workers']} workers, {counts['accepted']:,} changes of {counts['pairs']:,} pairs,"
    struck = sum(each["times"] for each in faults.values())
    yield f"{counts['requests']:,} requests, {struck:,} faults of {len(faults)} kinds."
    yield f"Redis ran with `appendfsync {run['appendfsync']}`."
    if wrong:
        yield from ("", "### What is wrong", "")
        for each in wrong[:_WRONG_SHOWN]:
            yield from ("```", f"{each['kind']}: {each['says']}", "```")
        if len(wrong) > _WRONG_SHOWN:
            yield f"… and {len(wrong) - _WRONG_SHOWN} more, in its JSON."
    yield from ("", "### What was checked", "")
    yield table([["", ""], *([name, f"{number:,}"] for name, number in counts.items())])
    yield from ("", "If none of n failed, then with 95 % confidence fewer than 3/n do:", "")
    for name, what in (("accepted", "changes lost"), ("pairs", "pairs with a wrong end"), ("applied", "wrong records")):
        yield f"- {what}: {_bound(counts[name])}"
    yield from ("", "### Faults", "")
    yield "Recovery: from healing until all that had been accepted before was confirmed; of those that struck alone."
    yield "Requests: those that reached the endpoint while it lasted. Bound: 3/n, as above, for one to do harm."
    yield ""
    head = ["fault", "times", "recovery p50", "p99", "max", "lasted, in all", "requests", "bound"]
    yield table([head, *([kind, *_fault(each)] for kind, each in faults.items())], "-rrrrrrr")
    yield from ("", "### Records sent again though nothing was said since", "")
    yield from [f"- {cause}: {number:,}" for cause, number in sorted(run["duplicates"].items())] or ["None."]
    yield from _erasures(run.get("erasures", ()))
    peaks, exits = run["peaks"], run["worker_exits"]
    yield from ("", "### Peaks", "")
    yield f"- Redis: {_mebibytes(peaks, 'redis'):.1f} MiB"
    yield f"- one worker with its children: {_mebibytes(peaks, 'worker'):.0f} MiB"
    yield f"- all workers: {_mebibytes(peaks, 'workers'):.0f} MiB"
    yield f"- waiting entries: {peaks['backlog']:,}; waiting pairs: {peaks['pending']:,}"
    yield from ("", "### Workers", "")
    yield from (f"- {why}: {times:,}" for why, times in sorted(exits["by_soak"].items()))
    yield f"- ended because they stopped consuming: {exits['stalled']}"
    yield f"- ended by a fault of Celery's own while its broker went away or refused writes: {exits['by_celery']}"
    if "barred" in exits:
        release = run.get("previous_release") or "not here"
        yield f"- ended because they are of the previous release ({release}): {exits['barred']}"
    yield from (f"- of the previous release: {each}" for each in exits.get("wrong_of_previous_release", ()))
    yield f"- slowest end after SIGTERM: {_seconds(run['slowest_stop_seconds'])}"
    if "worker_log" in run:
        yield from ("", "What they logged above the level of information:", "")
        yield from (f"- {event}: {times:,}" for event, times in sorted(run["worker_log"].items()))


def _erasures(erasures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    took = sorted(each["seconds"] for each in erasures if each["seconds"] is not None)
    if took:
        calls = sum(each["calls"] for each in erasures)
        yield from ("", "### Erasures", "")
        yield f"{len(took)} people were erased in {calls} calls of `contact-sync erase`; the median took"
        yield f"{_seconds(took[len(took) // 2])}, the longest {_seconds(took[-1])}."


def _mebibytes(peaks: Mapping[str, Any], name: str) -> float:
    """A peak of memory, noted in bytes; the oldest report knows it in mebibytes alone."""
    return float(peaks[name]) / (1 << 20) if name in peaks else float(peaks[f"{name}_mebibytes"])


def _fault(each: Mapping[str, Any]) -> list[str]:
    times = f"{each['times']}" if each["times"] == each["alone"] else f"{each['times']} ({each['alone']} alone)"
    took = [_seconds(each[name]) for name in ("p50", "p99", "longest", "outage_seconds")]
    return [times, *took, f"{each['requests']}", _bound(each["times"])]


def _bound(checked: int) -> str:
    return f"{_rounded_up(min(1.0, 3 / checked)):.2g}" if checked else ""


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


BLOCKS: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Mapping[str, Mapping[str, Any]]], str]]]] = {
    "headline": (("soak", "simulation"), headline),
    "numbers": (("soak", "simulation"), numbers),
    "soak": (("soak",), soak),
    "fuzzing": (("fuzzing",), fuzzing),
    "model": (("model",), model),
    "endurance": (("endurance",), endurance),
    "mutants": (("mutants",), mutants),
    "mutation": (("mutation",), mutation),
}
"""Each block by its name: the proofs that it needs, and how it is written."""


def written(text: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """A document with its blocks as they follow from the results."""

    def block(found: re.Match[str]) -> str:
        needs, render = BLOCKS[found[2]]
        missing = [each for each in needs if each not in results]
        said = f"No result of `make {missing[0]}` has been published yet." if missing else render(results)
        return f"{found[1]}\n{said}\n\n{found[3].lstrip()}"

    return _BLOCK.sub(block, text)
