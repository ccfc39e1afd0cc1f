"""The command: `python -m tests.soak.run --minutes 5`, which `make soak MINUTES=5` runs."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tests.soak.nemesis import KINDS
from tests.soak.progress import Shown
from tests.soak.report import write_report
from tests.soak.soak import Options, SoakFailedError, run
from tests.soak.verdict import verdict_of
from worker.cli.interrupts import exiting_on_sigterm
from worker.local.process import ProcessStartError
from worker.local.redis import EmbeddedRedisError

if TYPE_CHECKING:
    from producers.nodes.trip import Replicas
    from tests.soak.homes import On
    from worker.core.pair import Readd

EXIT_WRONG: Final = 1
EXIT_INTERRUPTED: Final = 130

_EPILOG = """\b
Example:
  python -m tests.soak.run --minutes 5 --seed 7
  python -m tests.soak.run --minutes 5 --on cluster --wait-replicas 1
  python -m tests.soak.run --minutes 2 --only "redis killed" --only "worker paused"
"""


@click.command(epilog=_EPILOG)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides the faults and what producers say.")
@click.option(
    "--workers",
    type=click.IntRange(2, 32),
    default=4,
    show_default=True,
    help="With threads, prefork and no pool named, in turns.",
)
@click.option(
    "--rate", type=click.FloatRange(min=10), default=500.0, show_default=True, help="Changes a second, about."
)
@click.option(
    "--readd", type=click.Choice(["resend", "absorb"]), default="resend", show_default=True, help="CONTACT_SYNC_READD."
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([kind.name for kind in KINDS]),
    metavar="KIND",
    help="A kind of fault that may strike; may be given again.  [default: all]",
)
@click.option(
    "--on",
    type=click.Choice(["redis", "sentinel", "cluster"]),
    default="redis",
    show_default=True,
    help="One Redis; a master and two replicas that three sentinels watch; or a cluster of six nodes.",
)
@click.option("--wait-replicas", default="0", show_default=True, metavar="N|all", help="CONTACT_SYNC_WAIT_REPLICAS.")
@click.option(
    "--partitions",
    type=click.IntRange(min=1, max=1024),
    default=16,
    show_default=True,
    help="CONTACT_SYNC_PARTITIONS; with many of them, what waits lies in many short logs.",
)
@click.option(
    "--import-size", type=click.IntRange(min=1), default=20_000, show_default=True, help="Changes of one bulk import."
)
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("soak-report"),
    show_default=True,
    metavar="DIR",
    help="Where the report goes, and the workers' logs if anything is wrong.",
)
def soak(  # noqa: PLR0913 - each is an option of the command
    *,
    minutes: float,
    seed: int,
    workers: int,
    rate: float,
    only: tuple[str, ...],
    readd: Readd,
    import_size: int,
    on: On,
    wait_replicas: str,
    partitions: int,
    report: Path,
) -> None:
    """Run the whole system on this machine, let faults strike it, and judge what it did.

    Exit status 0: nothing is wrong; 1: something is, or the soak could not be carried out.
    """
    replicas: Replicas = "all" if wait_replicas == "all" else int(wait_replicas)
    options = Options(minutes * 60, seed, workers, rate, only, readd, import_size, on, replicas, partitions)
    try:
        with exiting_on_sigterm(), tempfile.TemporaryDirectory(prefix="contact-sync-soak-") as directory:
            sys.exit(_soak(options, Path(directory), report))
    except KeyboardInterrupt:
        click.echo("soak: interrupted; all of it has ended", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except (SoakFailedError, EmbeddedRedisError, ProcessStartError) as error:
        click.echo(f"soak: {error}", err=True)
        sys.exit(EXIT_WRONG)


def _soak(options: Options, directory: Path, report: Path) -> int:
    with Shown() as progress:
        ran = run(options, directory, progress)
        progress.at(1.0, "judgement")
        verdict = verdict_of(ran)
    path = write_report(report, ran, verdict)
    for each in verdict.wrong[:10]:
        click.echo(f"{each.kind}: {each.says.splitlines()[0]}")
    counts = verdict.counts
    click.echo(
        f"soak: {counts['accepted']:,} changes, {len(ran.struck)} strikes of {len(verdict.recoveries)} kinds of fault, "
        f"{len(verdict.wrong)} things wrong: {path}"
    )
    if verdict.wrong:
        logs = report / "logs"
        logs.mkdir(exist_ok=True)
        for log in directory.glob("*.log"):
            shutil.copy(log, logs)
    return EXIT_WRONG if verdict.wrong else 0


if __name__ == "__main__":
    soak()
