"""The list of people who were erased, in Redis, and how workers learn of it without asking before each batch.

The gate names the list's state. Every round reads the gate, and no request goes out under another state than the one it
was made under. So whoever is suppressed stays so from the moment at which the gate was told, and a fleet where nobody
was ever erased pays for one empty field.
"""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from producers.nodes.trip import NodeAwayError
from worker.core.suppression import NOBODY, Suppression, decode_suppression, encode_suppressed, keyed_hash
from worker.store import scripts
from worker.store.gate import SUPPRESSION, copy_beside

if TYPE_CHECKING:
    from producers.nodes.trip import Replicas
    from worker.store.namespace import Namespace

KEY_FIELD: Final = b"key"
"""Field of the list: the key of its hashes. Every other field is a hash, or begins with one and a colon."""


class Suppressions:
    """The list of one namespace, as one process knows it.

    Args:
        namespace: where it is stored.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._read: tuple[str, Suppression] | None = None

    def under(self, state: str) -> Suppression:
        """The suppressed people, at least as of this state of the gate.

        The list is read once when a process begins, so that a gate that was lost forgets nobody, and then whenever the
        gate names another state.

        Raises:
            Unreadable: something else wrote into the list.
            redis.RedisError: Redis does not answer, or refuses.
        """
        read = self._read  # threads share this object: another may replace it meanwhile
        if read is not None and (read[0] == state or not state):
            return read[1]
        try:
            found = read_suppression(self._namespace)
        except NodeAwayError:
            if state:
                raise
            return NOBODY  # nobody was ever erased, as the gate says; asked again later
        self._read = (state, found)
        return found


def read_suppression(namespace: Namespace) -> Suppression:
    """Reads the list.

    Raises:
        Unreadable: something else wrote into it.
        redis.RedisError: Redis does not answer, or refuses.
    """
    found: Any = namespace.client.hgetall(namespace.keys.suppressed)
    fields: dict[bytes, bytes] = dict(found)
    key = fields.pop(KEY_FIELD, b"")
    return decode_suppression(key, {name: value for name, value in fields.items() if b":" not in name})


def hash_key(namespace: Namespace, wait: Replicas = 0) -> bytes:
    """The key of the hashes; makes one if there is none, on a full Redis too.

    It is random, recorded once, and never leaves Redis. A setting would have to be the same in every worker: one that
    had another would recognize nobody, and let everybody who was erased come back.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    name = namespace.keys.suppressed
    call = scripts.Call(scripts.RECORD, [name], [KEY_FIELD, token_hex(32)])
    scripts.run_one(namespace.client, call, wait)
    found: Any = namespace.client.hget(name, KEY_FIELD.decode())
    return bytes(found)


def suppress(namespace: Namespace, user: str, until_ms: int, now_ms: int, wait: Replicas = 0) -> bytes:
    """Suppresses a user until then (Unix ms), or for longer if that was said before; returns the hash.

    Once this returns, no request goes out any more that upserts a pair with this user. What went out before ends with
    the lease of its partition. Whoever is suppressed no longer leaves the list.

    Args:
        namespace: where the list is stored.
        user: the user's id.
        until_ms: until when upserts are refused.
        now_ms: the present, by Redis' clock.
        wait: how many replicas must have it: a failover that lost it would let the user come back.

    Raises:
        NotReplicatedError: too few replicas have it.
        redis.RedisError: Redis does not answer, or refuses; it is not certain that anything changed.
    """
    client, keys, _ = namespace
    key = hash_key(namespace, wait)
    hashed = keyed_hash(key, user.encode())
    known = read_suppression(namespace).until_ms
    over = [name for name, until in known.items() if until <= now_ms]
    if over:
        found: Any = client.hgetall(keys.suppressed)
        client.hdel(keys.suppressed, *(name for name in found if name.partition(b":")[0] in {*over}))
    value = encode_suppressed(key, user.encode(), max(until_ms, known.get(hashed, 0)))
    note = scripts.Call(scripts.NOTE, [keys.suppressed], [hashed, value])
    scripts.run_one(client, note, wait)
    # The list comes first: whoever sees the gate's new state finds the user on it. The gate comes last: its state holds
    # even if too few replicas have it, and must be repeated then, too.
    state = token_hex(6)
    copy_beside(namespace, SUPPRESSION, state)
    scripts.run_one(client, scripts.Call(scripts.NOTE, [keys.gate], ["suppression", state]), wait)
    return hashed
