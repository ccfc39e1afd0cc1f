"""Marks a backup with its time, and what was restored from one: nothing may be sent until somebody has seen it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from producers.contract.errors import ContactSyncError
from worker.admin.status import read_status
from worker.store import scripts
from worker.store.agreed import agreed_partitions
from worker.store.gate import Gate
from worker.store.namespace import Namespace
from worker.store.replies import time_ms

if TYPE_CHECKING:
    import redis

    from producers.contract.keys import Keys
    from producers.settings import ProducerSettings
    from worker.admin.status import Status

_TAKEN: Final = "backup_at"


class NothingToRestore(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """The backup holds nothing of this namespace."""


def mark_taken(client: redis.Redis, keys: Keys) -> int:
    """Stores the time in what is backed up next, and returns it (Unix ms).

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    now_ms = time_ms(client.time())
    scripts.run_one(client, scripts.Call(scripts.NOTE, [keys.config], [_TAKEN, now_ms]))
    return now_ms


def mark_restored(client: redis.Redis, settings: ProducerSettings) -> Status:
    """Pauses deliveries, and records that what was accepted since the backup is lost; returns what waits.

    What waits in a backup may have been delivered long ago, and an upsert of then may have been followed by a delete
    that nobody here remembers. Sent unseen, it would bring back a contact that was deleted.

    Raises:
        NothingToRestore: the backup holds nothing of the namespace.
        PartitionsMismatch, UnknownLogFormat: the log does not match the settings.
        redis.RedisError: Redis does not answer, or refuses.
    """
    keys = settings.keys
    taken: Any = client.hmget(keys.config, "partitions", _TAKEN, "beat_at")
    if taken[0] is None:
        raise NothingToRestore(f"the backup holds nothing of namespace {keys.namespace!r}")
    namespace = Namespace(client, keys, agreed_partitions(client, settings))
    Gate(namespace).pause()
    now_ms = time_ms(client.time())
    for name, value in (("lost_from", int(taken[1] or taken[2] or 0)), ("lost_at", now_ms)):
        scripts.run_one(client, scripts.Call(scripts.NOTE, [keys.config], [name, value]))
    return read_status(namespace)
