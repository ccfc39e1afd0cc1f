"""``contact-sync reconcile``: makes the endpoint match a source of truth."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import click
import orjson

from producers.contract.change import AT_MIN_MS
from producers.contract.errors import InvalidChange
from producers.send.errors import NotAccepted
from worker.admin.drain import drain
from worker.admin.status import foreign_keys, read_status, reconcile_types
from worker.cli.duration import Duration
from worker.cli.number import Number
from worker.cli.path import PathName
from worker.cli.session import EXIT_FAILED, EXIT_USAGE, Failure, echo_json, printable, redis_failure, say, session
from worker.cli.user_id import USER_ID
from worker.config.settings import load_worker_settings
from worker.core.numbers import many, were
from worker.core.times import iso_utc
from worker.reconcile import Limits, NotResumable, Options, Reject, SourceBroken, TooManyDeletes, reconcile
from worker.reconcile.aside import NoRoomError, file_aside
from worker.reconcile.database import QuerySource
from worker.reconcile.files import FORMATS, FileSource
from worker.reconcile.history import drift, past_runs, record
from worker.reconcile.lock import LEASE_SECONDS, ReconcileLock
from worker.reconcile.reassert import Share, missing
from worker.reconcile.run import nothing_read, reassert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import redis

    from worker.admin.status import Status
    from worker.config.settings import WorkerSettings
    from worker.reconcile.files import Format
    from worker.store.namespace import Namespace

_EPILOG = """\b
Example:
  contact-sync reconcile contacts.csv.gz --dry-run --diff diff.jsonl
  contact-sync reconcile contacts.csv.gz --as-of 2026-11-24T03:00:00Z --rejects rejects.jsonl
  contact-sync reconcile "$DATABASE_URL" --query 'select user_id as owner, friend_id as contact from friends'
  contact-sync reconcile --reassert 10%
"""

_HISTORY_EPILOG = """\b
Example:
  contact-sync reconcile history
  contact-sync reconcile history --json | head
"""

_LEDGER: Final = "the ledger"
"""The name of the source of a run that has none."""

_REASSERT_WAIT_SECONDS: Final = 300
_SHOWN_REJECTS: Final = 20
_POLL_SECONDS: Final = 1.0
_SLOWEST_SECONDS: Final = 60.0


def _moment(_ctx: click.Context, _param: click.Parameter, given: str | None) -> int | None:
    if given is None:
        return None
    try:
        said = datetime.fromisoformat(given) if not given.isdigit() else None
        found = int(given) if said is None else int((said if said.tzinfo else said.astimezone()).timestamp() * 1000)
    except (ValueError, OverflowError):
        found = 0
    if found < AT_MIN_MS:
        raise click.BadParameter("must be a time such as 2026-11-24T03:00:00Z, or Unix milliseconds")
    return found


def _percent(_ctx: click.Context, _param: click.Parameter, given: str | None) -> float | None:
    if given is None:
        return None
    try:
        percent = float(given.removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not 0.001 <= percent <= 100:  # NaN is neither
        raise click.BadParameter("must be a share from 0.001% to 100%, such as 10%")
    return percent


class _SourceOrCommand(click.Group):
    """A group that takes every word except the name of a command as a source, and runs with it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts `run` before a source."""
        if args[:1] not in ([], ["-h"], ["--help"]) and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the help of `run`, and the list of other commands."""
        run.format_usage(ctx, formatter)
        run.format_help_text(ctx, formatter)
        run.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)
        run.format_epilog(ctx, formatter)


@click.group("reconcile", cls=_SourceOrCommand)
def reconcile_command() -> None:
    """Make the endpoint match a source of truth."""


@reconcile_command.command("run", epilog=_EPILOG)
@click.argument("source", required=False)
@click.option("--format", "format_", type=click.Choice(FORMATS), help="Format of SOURCE.  [default: by its name]")
@click.option("--query", help="Read SOURCE, a database URL for SQLAlchemy, with this query.")
@click.option(
    "--as-of",
    "as_of_ms",
    callback=_moment,
    help="Time when the snapshot began, such as 2026-11-24T03:00:00Z, or in Unix milliseconds.  [default: now]",
)
@click.option("--owner", type=USER_ID, metavar="TEXT", help="Reconcile only this owner.  [default: all]")
@click.option("--dry-run", is_flag=True, help="Send nothing; only show what would be sent.")
@click.option(
    "--diff",
    "diff_path",
    type=PathName(),
    help="Write the changes to this file as JSON lines.  [default: nowhere]",
)
@click.option(
    "--rejects",
    "rejects_path",
    type=PathName(),
    help="Write rejected rows to this file as JSON lines.  [default: nowhere]",
)
@click.option("--trim", is_flag=True, help="Remove blanks around ids and ops.  [default: reject such ids]")
@click.option("--despite-rejects", is_flag=True, help="Delete what SOURCE lacks even if rows were rejected.")
@click.option(
    "--rate",
    type=Number(min=0, min_open=True),
    help="Maximum number of changes per second.  [default: no limit]",
)
@click.option(
    "--max-deletes",
    type=click.IntRange(min=0),
    default=Limits().most,
    show_default=True,
    help="Send nothing if there are more deletes.",
)
@click.option(
    "--max-delete-share",
    type=Number(0, 100),
    help=f"Send nothing if more than this percentage is deleted.  [default: {Limits().share:g}]",
)
@click.option(
    "--reassert",
    "percent",
    callback=_percent,
    metavar="SHARE",
    help="Send once more a share, such as 10%, of what is believed confirmed; each run another.  [default: none]",
)
@click.option(
    "--wait",
    type=Number(min=0),
    metavar="SECONDS",
    help="Wait so many seconds for delivery, then show the drift.  "
    f"[default: do not wait; {_REASSERT_WAIT_SECONDS} with --reassert]",
)
@click.option(
    "--every",
    type=Duration(),
    help="Run at this interval, such as 90s, 15m, 6h or 30d; one run at a time in the fleet.  [default: run once]",
)
@click.option("--resume", is_flag=True, help="Continue an interrupted run of this source.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def run(  # noqa: PLR0913 - click passes each option by its name
    *,
    source: str | None,
    format_: Format | None,
    query: str | None,
    diff_path: Path | None,
    rejects_path: Path | None,
    percent: float | None,
    max_deletes: int,
    max_delete_share: float | None,
    wait: float | None,
    every: float | None,
    trim: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Make the endpoint match SOURCE: a CSV with a header, or JSON lines; gzip or not; - for standard input.

    Columns are owner, contact and, optionally, op (upsert or delete). It reads all of SOURCE before it sends anything.
    Every change gets the time when the snapshot began, so that newer changes win: if SOURCE was written earlier, give
    that time with --as-of.

    With CONTACT_SYNC_LEDGER_SECONDS=forever it sends only differences, and deletes what SOURCE no longer has.
    Otherwise it sends every row again, and deletes only rows with op delete. Exit status 1 if there were rejects.

    People change contacts in the app, too. --reassert upserts a share of what is believed confirmed once more, with or
    without SOURCE, and tells how many of these contacts the endpoint had lost, as far as its counts can say.
    """
    if source is None and (percent is None or query or format_ or rejects_path or options["resume"]):
        raise click.UsageError("SOURCE is missing" if percent is None else "without SOURCE, only --reassert is done")
    settings = load_worker_settings(require_credentials=False)
    limits = Limits(max_deletes) if max_delete_share is None else Limits(max_deletes, max_delete_share, floor=0)
    how = Options(name="", differences=settings.ledger_forever, limits=limits, **options)
    if percent is not None and wait is None:
        wait = _REASSERT_WAIT_SECONDS
    asked = _Asked(source, format_, query, diff_path, rejects_path, wait, trim, as_json, percent)
    if every is None:
        if _once(settings, asked, how)["rejects"]:
            raise click.exceptions.Exit(EXIT_FAILED)
        return
    if source == "-" or how.as_of_ms is not None or how.resume or how.dry_run:
        raise click.UsageError("--every cannot be used with standard input, --as-of, --resume or --dry-run")
    pause = _POLL_SECONDS
    while True:
        try:
            _once(settings, asked, how, every)
            pause = _POLL_SECONDS
        except Failure as failure:
            if failure.exit_code == EXIT_USAGE:  # which no time mends
                raise
            failure.show()
            time.sleep(min(pause, every))
            pause = min(2 * pause, _SLOWEST_SECONDS)


class _NotRead(Failure):
    """The source could not be read to its end: outputs stay as they were."""


class _Asked(NamedTuple):
    """What to read, and what to report."""

    source: str | None
    format_: Format | None
    query: str | None
    diff_path: Path | None
    rejects_path: Path | None
    wait: float | None
    trim: bool
    as_json: bool
    percent: float | None = None


def _once(settings: WorkerSettings, asked: _Asked, how: Options, every: float | None = None) -> dict[str, Any]:
    """Runs one reconciliation when no other runs; with `every`, when it is due.

    Raises:
        Failure: it could not be finished.
    """
    with ExitStack() as undo:
        undo.enter_context(_telling_no_room())
        namespace = undo.enter_context(session(settings))
        client, keys, partitions = namespace
        _check_outputs(asked)
        rejects = _Rejects(undo.enter_context(_writing(asked.rejects_path)))
        diff = undo.enter_context(_writing(asked.diff_path))
        try:
            if not how.dry_run:
                _refuse_foreign(namespace)
                _take_lock(undo.enter_context(ReconcileLock(namespace)), client, keys.reconcile, asked, every)
            before = read_status(namespace)
            if asked.source is None:
                done = nothing_read(_LEDGER, before.gate.now_ms, dry_run=how.dry_run)
            else:
                # Opened only now: a newer file may have replaced it during the wait.
                file = undo.enter_context(_source(asked, asked.source))
                how = replace(how, name=file.name)
                with _progress() as (reading, sent):
                    done = reconcile(
                        reading(file),
                        client,
                        settings,
                        partitions,
                        how,
                        on_reject=rejects.take,
                        on_sent=sent,
                        on_wait=_tell_of_wait,
                        diff=diff,
                    )
            if asked.percent is not None:
                share = Share.of(asked.percent, past_runs(namespace), before.gate.now_ms)
                done |= reassert(namespace, settings, share, how, on_wait=_tell_of_wait, diff=diff)
        except SourceBroken as error:
            raise _NotRead(str(error)) from None
        except TooManyDeletes as error:
            raise Failure(str(error)) from None
        except NotResumable as error:
            raise Failure(str(error), EXIT_USAGE) from None
        except NotAccepted as error:
            raise _cut_short(redis_failure(settings.redis_url, error.cause), asked) from None
        except InvalidChange as error:
            raise Failure(f"--as-of is invalid: {error.rule}", EXIT_USAGE) from None
        if not how.dry_run:
            _measure(done, lambda: read_status(namespace), before, asked.wait)
            record(namespace, done)
    _tell(done, as_json=asked.as_json)
    return done


@contextmanager
def _telling_no_room() -> Iterator[None]:
    """Its files are written when they are closed, too."""
    try:
        yield
    except NoRoomError as error:
        raise Failure(str(error)) from None


def _refuse_foreign(namespace: Namespace) -> None:
    if foreign := foreign_keys(namespace.client, reconcile_types(namespace.keys)):
        raise Failure(f"the key {foreign[0]} has the wrong type: something else wrote it; rename or remove it")


def _cut_short(failure: str, asked: _Asked) -> Failure:
    if asked.source is None:
        return Failure(f"{failure}; not all changes were sent: run it again")
    return Failure(f"{failure}; not all changes were sent: continue with --resume")


def _source(asked: _Asked, source: str) -> Any:
    if asked.query is None:
        return FileSource(source, asked.format_, trim=asked.trim)
    return QuerySource(source, asked.query, trim=asked.trim)


def _check_outputs(asked: _Asked) -> None:
    """Refuses an output that would replace the source, or the other output."""
    source = None if asked.source is None else _source(asked, asked.source)
    for option, path in (("--diff", asked.diff_path), ("--rejects", asked.rejects_path)):
        if path is not None and source is not None and source.is_file(path):
            raise Failure(f"{option} is SOURCE itself, which would be lost: name another file", EXIT_USAGE)
    diff, rejects = asked.diff_path, asked.rejects_path
    if diff is not None and rejects is not None and diff.resolve() == rejects.resolve() and _is_ordinary(diff):
        raise Failure("--diff and --rejects are the same file: name two", EXIT_USAGE)


def _is_ordinary(path: Path) -> bool:
    return path.is_file() or not path.exists()


def _take_lock(lock: ReconcileLock, client: redis.Redis, key: str, asked: _Asked, every: float | None) -> None:
    """Takes the lock: a single run waits as long as a killed run may hold it, a regular one until it is due."""
    if every is None:
        if not lock.acquire(LEASE_SECONDS + 2):
            raise Failure("another reconciliation of this namespace is running")
        return
    field = f"every {_name(asked)}"
    while True:
        clock: Any = client.time()
        last: Any = client.hget(key, field)
        if last is None or int(clock[0]) >= int(last) + every:
            if asked.source is not None:
                with _source(asked, asked.source):
                    pass  # who cannot open it leaves the turn to others of the fleet
            if lock.acquire():
                if client.hget(key, field) == last:
                    client.hset(key, field, int(clock[0]))
                    return
                lock.release()  # another process of the fleet was first
        time.sleep(_POLL_SECONDS)


def _name(asked: _Asked) -> str:
    """The name of the source. A file need not be there for it: it may come before it is due."""
    if asked.source is None:
        return _LEDGER
    source = _source(asked, asked.source)
    if asked.query is not None:
        with source:  # which does not connect yet
            return str(source.name)
    return str(source.name)


def _measure(done: dict[str, Any], read: Callable[[], Status], before: Status, wait: float | None) -> None:
    """Waits for delivery, and adds what the endpoint counted."""
    done["drift"] = None
    if wait is None:
        return
    _, after = drain(read, lambda _: None, timeout_seconds=wait, monotonic=time.monotonic, sleep=time.sleep)
    reasserted = done.get("reasserted", 0)
    sent = done["sent"] + reasserted
    done["drift"] = drift(before, after, sent)
    if "reasserted" in done:
        done["missing"] = missing(before, after, sent=sent, upserts=done["upserts"], reasserted=reasserted)


def _tell_of_wait(line: str) -> None:
    say(f"contact-sync: {line}")


@reconcile_command.command(epilog=_HISTORY_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def history(*, as_json: bool) -> None:
    """Show the last hundred reconciliations, newest first, and how far the endpoint had drifted."""
    with session(load_worker_settings(require_credentials=False)) as namespace:
        _refuse_foreign(namespace)
        runs = past_runs(namespace)
    if as_json:
        echo_json([{**run, "ended": iso_utc(run["ended"]), "as_of": iso_utc(run["as_of"])} for run in runs])
        return
    for each in runs:
        drifted = each["drift"]
        counts = (
            "drift not measured"
            if drifted is None
            else f"{drifted['inserted']:,} {were(drifted['inserted'])} missing, {drifted['deleted']:,} too many"
        )
        partly = (
            "" if drifted is None or (drifted["delivered"] and not drifted["others"]) else ", other changes among them"
        )
        numbers = ", ".join(many(each[f"{noun}s"], noun) for noun in ("upsert", "delete", "reject"))
        head = f"{iso_utc(each['ended'])}  {numbers}"
        click.echo(f"{head}; {counts}{partly}  {printable(each['source'])}")


def _tell(done: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        echo_json({**done, "as_of": iso_utc(done["as_of"])})
        return
    click.echo(f"{'as of':<14}{iso_utc(done['as_of'])}" + ("  dry run: nothing was sent" if done["dry_run"] else ""))
    names = ("rows", "rejects", "duplicates", "known", "unchanged", "newer", "unstamped", "held_back", "dead")
    for name in (*names, "upserts", "deletes", "sent"):
        click.echo(f"{name.replace('_', ' '):<14}{done[name]:>12,}")
    for name, number in (done.get("drift") or {}).items():
        click.echo(f"{name:<14}{number:>12}")
    if "reasserted" in done:
        click.echo(
            f"{'reasserted':<14}{done['reasserted']:>12,}  of {done['reassert']['share_known']:,} in this run's share"
        )
    if "missing" in done:
        click.echo(f"{'missing':<14}{_bounds(done['missing'], done['reasserted'])}")


def _bounds(missing_: Mapping[str, int], reasserted: int) -> str:
    """How many were missing, and why that is not certain."""
    least, most = missing_["at_least"], missing_["at_most"]
    if least == most:
        return f"{least:>12,}  of {reasserted:,}: the endpoint had lost them"
    return (
        f"{f'{least:,} to {most:,}':>12}  of {reasserted:,}: the endpoint counts whole requests, and other changes, "
        "repeated requests or what still waits may be among them"
    )


class _Rejects:
    """Reports rejected rows: the first ones on standard error, without their values; all in the file, with them."""

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file
        self._count = 0

    def take(self, reject: Reject) -> None:
        self._count += 1
        if self._count <= _SHOWN_REJECTS:
            say(f"line {reject.line}: {reject.field} {reject.rule}")
        elif self._count == _SHOWN_REJECTS + 1:
            say("more rows are rejected: --rejects FILE lists them all")
        if self._file is not None:
            self._file.write(orjson.dumps(reject._asdict()).decode() + "\n")


@contextmanager
def _writing(path: Path | None) -> Iterator[IO[str] | None]:
    """Collects an output aside, and writes it once the source was read: until then the file stays as it was."""
    if path is None:
        yield None
        return
    if reason := _why_not_writable(path):  # found out before anything is read or sent
        raise Failure(f"{path} cannot be written: {reason}", EXIT_USAGE)
    with io.TextIOWrapper(file_aside(), encoding="utf-8") as aside:
        try:
            yield aside
        except (_NotRead, NoRoomError):
            raise
        except BaseException:
            _write(path, aside)
            raise
        _write(path, aside)


def _why_not_writable(path: Path) -> str | None:
    if path.is_dir():
        return os.strerror(errno.EISDIR)
    if not path.exists() and not path.parent.is_dir():
        return os.strerror(errno.ENOENT)
    return None if os.access(path if path.exists() else path.parent, os.W_OK) else os.strerror(errno.EACCES)


def _write(path: Path, aside: IO[str]) -> None:
    aside.seek(0)
    try:
        with path.open("w", encoding="utf-8") as file:
            shutil.copyfileobj(aside, file)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from None


@contextmanager
def _progress() -> Iterator[tuple[Callable[[Any], Iterator[Any]], Callable[[int, int], None]]]:
    """Counts rows as they are read and changes as they are sent, on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield iter, lambda _done, _of: None
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs rich
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415 - the same

    columns = (
        *(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]:,}")),
        *(TextColumn("{task.fields[rate]:,.0f}/s"), TimeRemainingColumn()),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        read = progress.add_task("read", total=None, count=0, rate=0.0)
        send: list[tuple[Any, Callable[[int], float]]] = []

        def reading(file: Any) -> Iterator[Any]:
            count, rate = 0, _rate(0)
            for count, row in enumerate(file, 1):
                if count % 1_000 == 0:
                    progress.update(read, total=file.total, completed=file.done, count=count, rate=rate(count))
                yield row
            progress.update(read, total=file.done, completed=file.done, count=count, rate=rate(count))

        def sent(done: int, of: int) -> None:
            if not send:
                send.append((progress.add_task("sent", total=of, count=0, rate=0.0), _rate(done)))
            task, rate = send[0]
            progress.update(task, completed=done, count=done, rate=rate(done))

        yield reading, sent


def _rate(first: int) -> Callable[[int], float]:
    """Returns a function that computes the rate per second since now from a later count."""
    began = time.monotonic()
    return lambda count: (count - first) / max(0.1, time.monotonic() - began)
