"""The receipt of an erasure: what was done, what is certain and what is not, without the id; and how it is verified."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from worker.admin.traces import Traces
from worker.core.suppression import keyed_hash
from worker.core.times import iso_utc
from worker.store.replies import time_ms
from worker.store.suppressions import read_suppression

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.admin.eraser import Erased
    from worker.core.inbox_map import InboxMap
    from worker.store.namespace import Namespace

_SEALED: Final = b"receipt\x1f"
"""What a seal is of begins so: no id does, because none holds a control character."""

_BEYOND: Final = (
    "spools and outboxes of producers may hold the id; the upserts in them are refused while the user is suppressed",
    "files of emit --unsent, reconcile --diff and --rejects, Redis' own files, and backups may hold the id",
    "what clients or other writers changed at the endpoint is not known here",
)


def receipt(namespace: Namespace, erased: Erased) -> dict[str, Any]:
    """The receipt, sealed with the key of the namespace's hashes.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    complete = erased.ended_ms is not None
    said: dict[str, Any] = {
        "complete": complete,
        "namespace": namespace.keys.namespace,
        "user_hash": erased.hashed.decode(),
        "begun_at": iso_utc(erased.begun_ms),
        "erased_at": None if erased.ended_ms is None else iso_utc(erased.ended_ms),
        "suppressed_until": iso_utc(erased.until_ms),
        "deletes": erased.as_owner + erased.as_contact,
        "as_owner": erased.as_owner,
        "as_contact": erased.as_contact,
        "dead_letters": erased.letters,
        "left": erased.left.counts(),
        "certain": [*_certain(erased, complete=complete)],
        "uncertain": [*_uncertain(erased), *_BEYOND],
    }
    return {**said, "seal": _seal(read_suppression(namespace).key, said)}


def _certain(erased: Erased, *, complete: bool) -> list[str]:
    until = f"upserts of the user, as owner and as contact, are refused until {iso_utc(erased.until_ms)}"
    if not complete:
        return [until]
    return [
        "for every pair that was stored of the user the endpoint confirmed a delete",
        "no key of the namespace holds the id; the keyed hash alone is kept",
        until,
    ]


def _uncertain(erased: Erased) -> list[str]:
    if not erased.vouched_ms:
        return []
    since = iso_utc(erased.vouched_ms)
    return [f"pairs that were confirmed before {since}, and not since, may be forgotten: no delete was said for them"]


class Verified(NamedTuple):
    """What became of a receipt.

    Attributes:
        genuine: whether this namespace wrote it so.
        complete: whether it says that nothing was left.
        stored: whether anything is stored of the user now.
        suppressed: whether upserts of the user are refused now.
    """

    genuine: bool
    complete: bool
    stored: bool
    suppressed: bool


def verify(namespace: Namespace, receipt: Mapping[str, Any], inbox_map: InboxMap | None = None) -> Verified:
    """Checks a receipt, and looks for the user again, by the hash alone.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    known = read_suppression(namespace)
    said = {name: value for name, value in receipt.items() if name != "seal"}
    if not known.key or not _is_sealed(known.key, said, receipt.get("seal")):
        return Verified(genuine=False, complete=False, stored=False, suppressed=False)
    hashed = str(said["user_hash"]).encode()
    now_ms = time_ms(namespace.client.time())
    return Verified(
        genuine=True,
        complete=said["complete"] is True,
        stored=Traces(namespace, lambda each: keyed_hash(known.key, each) == hashed, inbox_map=inbox_map).exist(),
        suppressed=known.until_ms.get(hashed, 0) > now_ms,
    )


def _is_sealed(key: bytes, said: Mapping[str, Any], seal: object) -> bool:
    try:
        return hmac.compare_digest(_seal(key, said).encode(), str(seal).encode("utf-8", "surrogatepass"))
    except orjson.JSONEncodeError:  # nested more deeply than anything that was ever sealed
        return False


def _seal(key: bytes, said: Mapping[str, Any]) -> str:
    return keyed_hash(key, _SEALED + orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).decode()
