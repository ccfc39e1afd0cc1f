"""``python -m tests.fuzz.run``: gives targets inputs, guided by the coverage of our code, and keeps what was new.

It needs atheris, which `make fuzz` brings into an environment of its own. libFuzzer's own corpus and a finding lie in
build/fuzz; the kept inputs and the results are committed.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

import click

from tests.fuzz import kept
from tests.fuzz.catalogue import NAMES, load
from tests.fuzz.place import remove_of
from tests.proof import published

PROJECT: Final = Path(__file__).parents[2]
WORK: Final = PROJECT / "build" / "fuzz"

_STATUS: Final = re.compile(r"^#(\d+)\s.* cov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)
_DONE: Final = re.compile(r"^Done (\d+) runs in", re.MULTILINE)
_INPUT_SECONDS: Final = 20
_SHOWN: Final = 300
_KEPT_BYTES: Final = 24 * 1024
"""Most bytes that are kept of a target's corpus."""

_EPILOG = """\b
Examples:
  make fuzz                              every target, a minute each
  make fuzz TARGET=answers INPUTS=3000000
  python -m tests.fuzz.run --list
"""


class Fuzzed(NamedTuple):
    """What became of one target.

    Attributes:
        inputs: how many it was given.
        seconds: how long that took.
        edges: how many places of the instrumented code were reached.
        features: how many of these, told apart by how often.
        finding: where the input lies that ended it, None if none did.
        said: what it raised, if so.
    """

    inputs: int
    seconds: float
    edges: int
    features: int
    finding: Path | None
    said: str = ""


def _dictionary(words: list[bytes], path: Path) -> None:
    lines = ("".join(chr(b) if 0x20 <= b < 0x7F and b not in b'"\\' else f"\\x{b:02x}" for b in word) for word in words)
    path.write_text("".join(f'"{line}"\n' for line in lines), encoding="ascii")


def _unpack(name: str, directory: Path) -> None:
    """Lays the kept inputs out as libFuzzer wants them, a file each."""
    directory.mkdir(parents=True, exist_ok=True)
    for i, data in enumerate([*load(name).seeds, *kept.read(name), *kept.read(name, kept.FOUND)]):
        (directory / f"kept-{i}").write_bytes(data)


def _command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.fuzz.child", name, *map(str, arguments)]


def fuzz(name: str, inputs: int, seconds: float, shown: bool) -> Fuzzed:  # noqa: FBT001 - one of four, and named so
    """Fuzzes a target until it had so many inputs, so many seconds passed, or something is found.

    Args:
        name: of the target.
        inputs: most inputs.
        seconds: longest time; 0 for none.
        shown: whether a line says how far it is.
    """
    target, work = load(name), WORK / name
    live, found = work / "corpus", work / "found"
    _unpack(name, live)
    found.mkdir(exist_ok=True)
    _dictionary([*target.words], work / "words")
    arguments = [f"-runs={inputs}", f"-max_len={target.most_bytes}", f"-dict={work / 'words'}", "-reload=0"]
    arguments += [
        f"-timeout={_INPUT_SECONDS}",
        f"-artifact_prefix={found}/",
        "-rss_limit_mb=2048",
        "-print_final_stats=0",
    ]
    if seconds:
        arguments.append(f"-max_total_time={int(seconds)}")
    before, begun, said, lived = {*found.iterdir()}, time.monotonic(), "", 0
    with (work / "log").open("w+", encoding="utf-8", errors="replace") as log:
        child = subprocess.Popen(_command(name, *arguments, live), stdout=subprocess.PIPE, stderr=log, text=True)
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("{"):
                told = json.loads(line)
                lived = told["inputs"]
                if shown:
                    rate = lived / max(told["seconds"], 0.1)
                    click.echo(f"\r{name}: {lived:,} of {inputs:,} inputs, {rate:,.0f}/s ", err=True, nl=False)
            else:
                said += line
        status = child.wait()
        remove_of(child.pid)
        log.seek(0)
        text = log.read()
    if shown:
        click.echo("\r\x1b[K", err=True, nl=False)
    last = _STATUS.findall(text)
    done = _DONE.search(text)
    new = sorted({*found.iterdir()} - before)
    if status and not new:
        raise click.ClickException(f"{name} ended with status {status}: see {work / 'log'}")
    return Fuzzed(
        int(done[1]) if done else max(lived, int(last[-1][0]) if last else 0),
        round(time.monotonic() - begun, 1),
        int(last[-1][1]) if last else 0,
        int(last[-1][2]) if last else 0,
        new[0] if new else None,
        said,
    )


def keep(name: str) -> None:
    """Keeps what reached something new, the shortest first, as far as there is room; and one for each outcome."""
    target, live = load(name), WORK / name / "corpus"
    size, reached, chosen = 0, set[str](), set[bytes]()
    for data in sorted((path.read_bytes() for path in live.iterdir()), key=lambda each: (len(each), each)):
        outcome = target.run(data)
        size += len(data)
        if size <= _KEPT_BYTES or outcome not in reached:
            chosen.add(data)
        reached.add(outcome)
    kept.write(name, chosen)


def note(name: str, ran: Fuzzed) -> None:
    """Writes what became of a target into the results; the others stay as they are."""
    found = published.read("fuzzing") or {"targets": {}}
    target = load(name)
    found["targets"][name] = {
        "what": target.says,
        "inputs": ran.inputs,
        "seconds": ran.seconds,
        "edges": ran.edges,
        "features": ran.features,
        "kept": len(kept.read(name)),
        "outcomes": len(target.outcomes),
        "findings": int(ran.finding is not None),
        "made": published.made(),
        "versions": {"python": platform.python_version(), "atheris": metadata.version("atheris")},
    }
    found["targets"] = {each: found["targets"][each] for each in NAMES if each in found["targets"]}
    published.write("fuzzing", found)


@click.command(epilog=_EPILOG)
@click.option("--target", "names", multiple=True, type=click.Choice(NAMES), help="This one, and others that are named.")
@click.option(
    "--inputs", type=click.IntRange(min=1), default=10_000_000, show_default=True, help="Most for each target."
)
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=60, show_default=True, help="Longest for each; 0: no limit."
)
@click.option("--list", "listed", is_flag=True, help="Only say which targets there are.")
@click.option("--forget", is_flag=True, help="Leave corpora and results as they are.")
def main(*, names: tuple[str, ...], inputs: int, seconds: float, listed: bool, forget: bool) -> None:
    """Gives targets inputs until each had so many, or its time is over; then keeps what reached something new.

    Exit status 0 if every input had a defined outcome; 1 if one had not: it lies in build/fuzz, and its error is
    printed. Such a case is fixed, and kept in tests/fuzz/found.
    """
    if listed:
        click.echo("\n".join(f"{name}: {load(name).says}" for name in NAMES))
        return
    for name in names or NAMES:
        ran = fuzz(name, inputs, seconds, sys.stderr.isatty())
        rate = ran.inputs / max(ran.seconds, 0.1)
        click.echo(f"{name}: {ran.inputs:,} inputs in {ran.seconds:,.0f} s ({rate:,.0f}/s), {ran.edges:,} edges")
        if ran.finding is not None:
            click.echo(
                f"{ran.said.strip()}\n{name}: {ran.finding.read_bytes()[:_SHOWN]!r}\nkept in {ran.finding}", err=True
            )
            sys.exit(1)
        if not forget:
            keep(name)
            note(name, ran)


if __name__ == "__main__":
    main()
