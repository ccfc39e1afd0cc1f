"""The form in which a log is kept, and who can still take part in it: recorded beside the number of partitions.

A log that workers of an older version have read, or are awake to read, keeps the form that they know, so that they can
come back, until somebody says that they will not. Any other log has the newest form at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from producers.contract.errors import TooOld
from producers.contract.partitions import FIRST_FORMAT, LOG_FORMAT
from worker.store import scripts
from worker.store.agreed import record_new
from worker.store.client import command, round_trip
from worker.store.presence import present
from worker.store.replies import all_checked, is_wrong_type, time_ms

if TYPE_CHECKING:
    from producers.nodes.trip import Replicas
    from worker.store.namespace import Namespace

_FIELDS: Final = ("least_reader", "least_writer")
_AT_ONCE: Final = 256  # partitions in one round trip


class LogForm(NamedTuple):
    """Who can take part in a log.

    Attributes:
        least_reader: the least form that a worker must know.
        least_writer: the least form that a producer must know.
    """

    least_reader: int
    least_writer: int

    @property
    def one_pending(self) -> bool:
        """Whether all pairs that wait are kept in one hash, because older workers read no other."""
        return self.least_reader < LOG_FORMAT


NEWEST: Final = LogForm(LOG_FORMAT, LOG_FORMAT)
"""Nobody takes part who does not know all that this version knows."""


def recorded_form(namespace: Namespace) -> LogForm | None:
    """The recorded form; None if none is recorded.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    found: Any = namespace.client.hmget(namespace.keys.config, _FIELDS)
    return None if found[0] is None else LogForm(int(found[0]), int(found[1] or found[0]))


def agree_form(namespace: Namespace) -> LogForm:
    """The recorded form; records one if there is none.

    Raises:
        TooOld: the log needs a worker that knows a newer form.
        redis.RedisError: Redis does not answer, or refuses.
    """
    form = recorded_form(namespace)
    if form is None and (_was_read(namespace) or _older_workers(namespace)):
        form = record_oldest(namespace)
    if form is None:
        raise_form(namespace)
        form = NEWEST
    if form.least_reader > LOG_FORMAT:
        raise TooOld("workers", form.least_reader, LOG_FORMAT, namespace.keys.namespace)
    return form


def record_oldest(namespace: Namespace) -> LogForm | None:
    """Records that older workers may take part, unless a form is recorded; returns the recorded one.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    record_new(namespace.client, namespace.keys, dict.fromkeys(_FIELDS, FIRST_FORMAT))
    return recorded_form(namespace)


def raise_form(namespace: Namespace, wait: Replicas = 0) -> None:
    """Records that whoever takes part knows all that this version knows; older ones refuse to start from now on.

    Args:
        namespace: whose log it is.
        wait: how many replicas must have it.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    # Versions that do not know the field `least_reader` check the format alone.
    fields = [(name, LOG_FORMAT) for name in ("format", *_FIELDS)]
    # On a full server too: its workers must be able to start, or nobody would empty it.
    calls = [scripts.Call(scripts.NOTE, [namespace.keys.config], each) for each in fields]
    all_checked(scripts.run(namespace.client, calls, wait))


def _older_workers(namespace: Namespace) -> bool:
    """Whether a worker of an older version is awake: it may not have held a partition yet."""
    now_ms = time_ms(command(namespace.client, "TIME"))
    return any(each.log_format < LOG_FORMAT for each in present(namespace, now_ms))


def _was_read(namespace: Namespace) -> bool:
    """Whether a worker ever held a partition of this log."""
    client, keys, partitions = namespace
    for first in range(0, partitions, _AT_ONCE):
        several = range(first, min(first + _AT_ONCE, partitions))
        replies = round_trip(client, [("HEXISTS", keys.partition(p), "token") for p in several])
        # A key that something else stored there concerns its partition alone.
        if any(all_checked([reply for reply in replies if not is_wrong_type(reply)])):
            return True
    return False
