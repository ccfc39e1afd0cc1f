"""``contact-sync erase``: erases a user, as owner and as contact, and prints a receipt that can be verified."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click
import orjson
import redis

from worker.admin.erase_receipt import Verified, receipt, verify
from worker.admin.eraser import Eraser, NotErasable
from worker.cli.number import Number
from worker.cli.session import Failure, echo_json, redis_failure, session
from worker.cli.user_id import USER_ID
from worker.config.settings import load_worker_settings
from worker.core.numbers import many
from worker.store.inbox import load_map
from worker.store.partitions import Partitions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from worker.admin.eraser import Erased, Left
    from worker.config.settings import WorkerSettings
    from worker.core.inbox_map import InboxMap
    from worker.store.namespace import Namespace

_DAY_MS = 86_400_000
_RECEIPT_MAX_BYTES = 1 << 20  # a hundred times one

_ONE_OF = {
    "inbox_entries": "inbox entry",
    "waiting_entries": "waiting entry",
    "pending_pairs": "pending pair",
    "parked_pairs": "parked pair",
    "late_marks": "late mark",
    "remembered_pairs": "remembered pair",
    "dead_letters": "dead letter",
    "busy_partitions": "busy partition",
}

_EPILOG = """\b
Example:
  contact-sync erase 1
  contact-sync erase 1 --suppress-days 90 --wait 600 --json > receipt.json
  contact-sync erase --verify receipt.json
"""


@click.command(epilog=_EPILOG)
@click.argument("user", required=False, type=USER_ID)
@click.option(
    "--suppress-days",
    type=Number(min=0, max=36_500, min_open=True),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="Refuse later upserts of USER for so long.",
)
@click.option(
    "--wait",
    "wait_seconds",
    type=Number(min=0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for the endpoint to confirm the deletes; then end with exit status 1.",
)
@click.option(
    "--verify",
    "receipt_file",
    type=click.File("rb"),
    metavar="FILE",
    help="Check an earlier receipt instead, and whether anything is stored of that user now.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def erase(
    *,
    user: str | None,
    suppress_days: float,
    wait_seconds: float,
    receipt_file: IO[bytes] | None,
    as_json: bool,
) -> None:
    """Erase USER, as owner and as contact, here and at the endpoint; prints a receipt without the id.

    It sends a delete for each pair that is stored of USER, waits until the endpoint has confirmed them, and forgets
    everything but a keyed hash, by which later upserts of USER are refused. It needs running workers. If it is cut off,
    or time is up, call it again: it goes on. To remove what is stored, and tell the endpoint nothing, use forget.

    Exit status 0 when nothing of USER is left; 1 if something is, or if nothing is known of USER.
    """
    if (user is None) == (receipt_file is None):
        raise click.UsageError("Give a USER, or --verify with a receipt.")
    settings = load_worker_settings(require_credentials=False)
    with session(settings) as namespace:
        if receipt_file is not None:
            _verify(namespace, receipt_file, load_map(settings.inbox_map), as_json=as_json)
        elif user is not None:
            _erase(namespace, settings, user, suppress_days, wait_seconds, as_json=as_json)


def _erase(  # noqa: PLR0913 - what it was asked for
    namespace: Namespace,
    settings: WorkerSettings,
    user: str,
    suppress_days: float,
    wait_seconds: float,
    *,
    as_json: bool,
) -> None:
    every = Partitions.of(namespace, settings)
    inbox_map = load_map(settings.inbox_map)
    with _progress() as show:
        eraser = Eraser(
            every,
            user,
            monotonic=time.monotonic,
            sleep=time.sleep,
            wait=settings.wait_replicas,
            inbox_map=inbox_map,
            show=show,
        )
        try:
            erased = eraser.erase(int(suppress_days * _DAY_MS), wait_seconds, 2 * settings.lease_seconds)
        except NotErasable as error:
            raise Failure(str(error)) from None
        except redis.RedisError as error:
            if not eraser.suppressed:
                raise
            failure = redis_failure(settings.redis_url, error)
            raise Failure(f"not erased yet: {failure}; the user stays suppressed: call it again, it goes on") from None
    said = receipt(namespace, erased)
    if as_json:
        echo_json(said)
    else:
        _show_receipt(said)
    if erased.ended_ms is None:
        raise Failure(_why(erased))


def _show_receipt(said: Mapping[str, Any]) -> None:
    ended = f"erased at {said['erased_at']}" if said["complete"] else "not erased yet"
    click.echo(f"{ended}; begun at {said['begun_at']}; suppressed until {said['suppressed_until']}")
    click.echo(f"user hash  {said['user_hash']}")
    pairs = f"{said['as_owner']:,} as owner, {said['as_contact']:,} as contact"
    click.echo(f"deletes    {said['deletes']:,} sent ({pairs}); {many(said['dead_letters'], 'dead letter')} removed")
    for what in ("certain", "uncertain"):
        for line in said[what]:
            click.echo(f"{what:<10} {line}")
    click.echo(f"seal       {said['seal']}")


def _why(erased: Erased) -> str:
    left = erased.left
    parts = [_left_words(left)]
    if left.parked_pairs:
        parts.append("the endpoint refuses some, which are parked (contact-sync parked list)")
    if left.dead_letters:
        parts.append("the endpoint refuses some for good (contact-sync dead-letters list): fix that first")
    if left.late_marks:
        parts.append("unanswered requests may still act (contact-sync status)")
    return f"not erased yet: {'; '.join(parts)}; the user stays suppressed: call it again, it goes on"


def _left_words(left: Left) -> str:
    words = [many(number, _ONE_OF[name]) for name, number in left.counts().items() if number]
    return f"{', '.join(words)} left"


@contextmanager
def _progress() -> Iterator[Callable[[int, int, Left], None]]:
    """One line on standard error that shows what is left, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _of, _left: None
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs rich

    with Console(stderr=True).status("looking for the user") as live:
        yield lambda done, of, left: live.update(
            f"{done:,} of {many(of, 'partition')} looked at: {'nothing left' if left.nothing else _left_words(left)}"
        )


def _verify(namespace: Namespace, file: IO[bytes], inbox_map: InboxMap | None, *, as_json: bool) -> None:
    name = getattr(file, "name", "-")
    try:
        said = orjson.loads(file.read(_RECEIPT_MAX_BYTES))
    except OSError as error:
        raise Failure(f"--verify: {name} cannot be read: {error.strerror or error}") from None
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict) or not {"user_hash", "complete", "seal"} <= said.keys():
        raise Failure(f"--verify: {name} is not a receipt: it has no user_hash, complete and seal in JSON")
    found = verify(namespace, said, inbox_map)
    if as_json:
        echo_json(found._asdict())
    fault = _fault(found, str(name), namespace.keys.namespace)
    if fault:
        raise Failure(fault)
    if not as_json:
        refused = "are refused" if found.suppressed else "are no longer refused"
        click.echo(f"genuine; nothing is stored of the user; upserts {refused}")


def _fault(found: Verified, name: str, namespace: str) -> str:
    if not found.genuine:
        return f"--verify: {name} is not as it was written, or another namespace than {namespace} wrote it"
    if not found.complete:
        return f"--verify: {name} is genuine, and says that the user was not erased yet"
    return f"--verify: {name} is genuine, but something is stored of the user now: erase again" if found.stored else ""
