"""``contact-sync up --backup`` and ``--restore``: all data of one machine in one file, and back."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import Final

import click

from worker.admin.backup import mark_restored, mark_taken
from worker.cli.session import EXIT_USAGE, Failure
from worker.config.settings import load_worker_settings
from worker.core.numbers import many
from worker.core.times import iso_utc
from worker.local.backup import restored, save, server_of
from worker.store.client import connect

_TIMEOUT_SECONDS: Final = 10.0

_WARNING: Final = """\
What was accepted after the backup is not in it. A contact that was deleted since comes back if its upsert waited then.
So start contact-sync up, and run contact-sync reconcile with your source, or emit again what changed since. Then run
contact-sync resume, and contact-sync status --acknowledge."""


def back_up(data: Path, file: Path) -> None:
    """Writes the data of the directory into the file, whether a server uses it now or not.

    Raises:
        Failure: the file must not be replaced.
        EmbeddedRedisError, RedisNotFoundError: it cannot be done; the message is one line.
        redis.RedisError: Redis does not answer, or refuses.
    """
    target = Path(os.path.realpath(file))  # a link stays
    if target.is_relative_to(os.path.realpath(data)):
        raise Failure(f"--backup {file} is in the data directory: name a file elsewhere", EXIT_USAGE)
    with suppress(OSError):  # a new file; what else is wrong with it, writing it will tell
        if not S_ISREG(target.stat().st_mode):
            raise Failure(f"--backup {file} is not a regular file: name another", EXIT_USAGE)
    keys = load_worker_settings(require_credentials=False).keys
    with server_of(data) as url:
        with connect(url) as client:
            taken_ms = mark_taken(client, keys)
        save(url, data, target)
    click.echo(f"backup of {iso_utc(taken_ms)} in {file}: it holds the ids of users, so keep it as safe as the data")


def restore(data: Path, file: Path) -> None:
    """Fills the directory from the file, with deliveries paused, and says what that means.

    Raises:
        EmbeddedRedisError, RedisNotFoundError: it cannot be done; the message is one line.
        ContactSyncError: the backup does not match the settings.
        redis.RedisError: Redis does not answer, or refuses.
    """
    settings = load_worker_settings(require_credentials=False)
    with restored(file, data) as url, connect(url, timeout_seconds=_TIMEOUT_SECONDS) as client:
        found = mark_restored(client, settings)
    taken = iso_utc(found.lost.after_ms) if found.lost is not None and found.lost.after_ms else "an unknown time"
    click.echo(f"restored  the backup of {taken} into {data}")
    click.echo(
        f"waiting   {many(found.backlog_events + found.inbox_entries, 'entry')} in the log, "
        f"{many(found.pending_pairs, 'pair')} pending, {many(found.dead_letters, 'dead letter')}"
    )
    click.echo("paused    nothing is sent until: contact-sync resume")
    click.echo()
    click.echo(_WARNING)
