"""The audit trail of `serve`: a Redis stream of who did what and when. It never holds an owner's or a contact's id.

A dead letter's id is a partition and a number. It means nothing once the letter is gone, so `forget` has nothing to
remove here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog

from worker.core.times import iso_utc
from worker.store.client import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

    from producers.contract.keys import Keys

KEPT: Final = 10_000
"""Number of entries kept. The oldest are removed first, a thousand at a time, and each removal is logged."""

_LOG = structlog.get_logger("contact_sync")

_MOST: Final = KEPT + 1_000

IDS_MAX: Final = 100  # more than a person selects by hand; for larger actions the number is enough


class Audit:
    """The audit trail of one namespace."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._key = keys.audit

    def note(self, action: str, role: str, source: str, letters: Sequence[str] | None = None) -> None:
        """Records an action.

        Args:
            action: `sign_in`, `redrive` or `purge`.
            role: role of the user.
            source: address of the client.
            letters: ids of the dead letters concerned; None if the action is not about dead letters.

        Raises:
            redis.RedisError: Redis does not answer, or refuses the write.
        """
        fields = ["action", action, "role", role, "source", source]
        if letters is not None:
            fields += ["letters", str(len(letters)), "ids", " ".join(letters[:IDS_MAX])]
        command(self._client, "XADD", self._key, "*", *fields)
        if command(self._client, "XLEN", self._key) > _MOST:
            _LOG.warning("audit_trimmed", removed=command(self._client, "XTRIM", self._key, "MAXLEN", KEPT))

    def last(self, most: int) -> list[dict[str, Any]]:
        """Returns the newest entries, the newest first.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        found: Any = self._client.xrevrange(self._key, count=most)
        return [_entry(entry_id, fields) for entry_id, fields in found]


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> dict[str, Any]:
    values = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in fields.items()}
    letters = values.get("letters", "")
    return {
        "at": iso_utc(int(entry_id.partition(b"-")[0])),
        "action": values.get("action", ""),
        "role": values.get("role", ""),
        "source": values.get("source", ""),
        "letters": int(letters) if letters.isdecimal() else None,
        "ids": values.get("ids", "").split(),
    }
