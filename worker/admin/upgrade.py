"""Raises the form in which a log is kept, once every worker that is seen knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from producers.contract.partitions import LOG_FORMAT
from worker.store.log_form import NEWEST, LogForm, raise_form, recorded_form
from worker.store.presence import present
from worker.store.replies import time_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from producers.nodes.trip import Replicas
    from worker.store.namespace import Namespace


class Upgraded(NamedTuple):
    """What an upgrade found and did.

    Attributes:
        form: what is recorded now; None if no worker has started yet.
        raised: whether this raised it.
        too_old: names of the workers that are too old, the reason why it was not raised.
    """

    form: LogForm | None
    raised: bool
    too_old: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """As in `upgrade --json`."""
        return {
            "raised": self.raised,
            "least_reader": None if self.form is None else self.form.least_reader,
            "least_writer": None if self.form is None else self.form.least_writer,
            "too_old": list(self.too_old),
        }


def upgrade(namespace: Namespace, wait: Replicas = 0) -> Upgraded:
    """Raises the least reader and the least writer to what this version knows, unless a worker is too old.

    Args:
        namespace: whose log it is.
        wait: how many replicas must have what is recorded.

    Raises:
        NotReplicatedError: it is raised, and too few replicas have that.
        redis.RedisError: Redis does not answer, or refuses.
    """
    form = recorded_form(namespace)
    too_old = [
        each.name for each in present(namespace, time_ms(namespace.client.time())) if each.log_format < LOG_FORMAT
    ]
    newest = form is not None and form.least_reader >= LOG_FORMAT and form.least_writer >= LOG_FORMAT
    if not too_old and (not newest or (wait and form == NEWEST)):
        # Written again if it is raised already, because who waits for replicas waits for what was written last.
        raise_form(namespace, wait)
    if too_old or newest:
        return Upgraded(form, raised=False, too_old=too_old)
    return Upgraded(NEWEST, raised=True, too_old=[])
