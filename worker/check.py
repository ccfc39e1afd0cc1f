"""Is everything there and right? Each question answered in one line; nothing is changed anywhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import redis

from producers.change import AT_AHEAD_MS
from producers.errors import ContactSyncError, SettingsError
from producers.partitions import DEFAULT_PARTITIONS, agree_partitions
from worker.endpoint import Endpoint
from worker.log_client import connect
from worker.outcome import Answer, Confirmed, Hold, Rejected, Retry, TooLarge, decide
from worker.server_key import read_server_key
from worker.status import read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from worker.settings import WorkerSettings

Verdict = Literal["ok", "warn", "wrong"]

OLDEST_REDIS: Final = (6, 2)
"""XTRIM MINID came with it."""

_REDIS_SECONDS: Final = 5.0
_SKEW_SECONDS: Final = 5.0  # more than this between two clocks is no network delay

HARMLESS_BODY: Final = b'{"contacts":[]}'
"""A request that changes nothing: refused for its emptiness (40002, field 101) by who accepts the key."""


class Finding(NamedTuple):
    """One answer.

    Attributes:
        name: what was looked at.
        verdict: `ok`; `warn`, it works, but not as well or as safely as it might; `wrong`, it does not work.
        message: what was found, without secrets.
    """

    name: str
    verdict: Verdict
    message: str


def check_all(settings: WorkerSettings, shown: Callable[[str], str], epoch: Callable[[], float]) -> Iterator[Finding]:
    """Looks at Redis, the log, the broker, the credentials and the endpoint.

    Args:
        settings: what to look at.
        shown: a URL without what may be secret in it.
        epoch: this machine's clock, the Unix time in seconds.
    """
    client = connect(settings.redis_url, timeout_seconds=_REDIS_SECONDS)
    try:
        info: dict[str, Any] = dict(client.info())
        yield from check_server(info, shown(settings.redis_url))
        yield check_persistence(info, _config(client, "appendfsync"), _config(client, "save"))
        yield _clock(client, epoch)
        yield from _log(client, settings)
        yield check_broker(settings, info, shown)
    except redis.RedisError as error:
        yield Finding("redis", "wrong", f"{shown(settings.redis_url)}: {error}")
    finally:
        client.close()
    yield from check_endpoint(settings, epoch)


def check_server(info: Mapping[str, Any], url: str) -> Iterator[Finding]:
    """Redis itself: its version, and that it drops nothing when it is full."""
    version = str(info.get("redis_version", "0"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    old = numbers < OLDEST_REDIS
    yield Finding("redis", "wrong" if old else "ok", f"{url}, version {version}" + (": 6.2 is needed" if old else ""))
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        yield Finding("eviction", "ok", "noeviction: a full Redis refuses changes and drops none")
    else:
        yield Finding("eviction", "wrong", f"maxmemory-policy {policy} drops changes in silence: set it to noeviction")


def check_persistence(info: Mapping[str, Any], appendfsync: str | None, save: str | None) -> Finding:
    """What a crash of Redis may lose."""
    if info.get("aof_enabled"):
        match appendfsync:
            case "always":
                return Finding("persistence", "ok", "append-only file, synced always: a crash loses nothing accepted")
            case "everysec":
                return Finding("persistence", "ok", "append-only file, synced every second: a crash may lose the last")
            case _:
                how = appendfsync or "in a way it does not tell"
                return Finding("persistence", "warn", f"append-only file, synced {how}: a crash may lose what was not")
    if save is None:
        return Finding("persistence", "warn", "no append-only file; whether snapshots are taken it does not tell")
    if save:
        return Finding("persistence", "warn", "snapshots only: a crash loses all changes since the last one")
    return Finding("persistence", "warn", "none: a restart of Redis loses everything that waits")


def _config(client: redis.Redis, name: str) -> str | None:
    """A directive of the server, None where it does not tell: hosted ones often do not."""
    try:
        found: Any = client.config_get(name)
    except redis.ResponseError:
        return None
    value = found.get(name)
    return None if value is None else str(value)


def _clock(client: redis.Redis, epoch: Callable[[], float]) -> Finding:
    reply: Any = client.time()
    ahead = epoch() - (int(reply[0]) + int(reply[1]) / 1e6)
    if ahead * 1000 > AT_AHEAD_MS:
        rule = "a change stamped here would be refused (at_out_of_range)"
        return Finding("clock", "wrong", f"this machine's is {ahead:.0f} s ahead of Redis': {rule}")
    if abs(ahead) > _SKEW_SECONDS:
        side = "ahead of" if ahead > 0 else "behind"
        return Finding("clock", "warn", f"this machine's is {abs(ahead):.0f} s {side} Redis': orders may be wrong")
    return Finding("clock", "ok", "this machine's agrees with Redis'")


def _log(client: redis.Redis, settings: WorkerSettings) -> Iterator[Finding]:
    """The log: its number of partitions, and that nothing else stands in its place."""
    keys = settings.keys
    if not client.hexists(keys.config, "partitions"):
        count = settings.partitions or DEFAULT_PARTITIONS
        yield Finding("partitions", "ok", f"none recorded yet: the log will begin with {count}")
    else:
        try:
            count = agree_partitions(client, keys, settings.partitions)
        except ContactSyncError as error:
            yield Finding("partitions", "wrong", str(error))
            return
        yield Finding("partitions", "ok", f"{count} recorded, {settings.partitions or 'none'} configured")
    strange = read_status(client, keys, count).strange_partitions
    if strange:
        numbers = ", ".join(map(str, strange))
        yield Finding("streams", "wrong", f"a key of another type stands in our place in partitions {numbers}")
    else:
        yield Finding("streams", "ok", "no key of another type stands in our place")


def check_broker(settings: WorkerSettings, log_info: Mapping[str, Any], shown: Callable[[str], str]) -> Finding:
    """Celery's broker: whether it answers, and whether it shares the log's memory."""
    url = settings.broker_url or settings.redis_url
    if not url.startswith(("redis://", "rediss://", "unix://")):
        return Finding("broker", "ok", f"{shown(url)}, apart from the log; whether it answers was not tried")
    client = connect(url, timeout_seconds=_REDIS_SECONDS)
    try:
        info: Any = client.info("server")
    except redis.RedisError as error:
        # Hints are all it carries: while it is away the ticker flushes by itself, one batch at a time.
        return Finding("broker", "warn", f"{shown(url)}: {error}")
    finally:
        client.close()
    if info.get("run_id") != log_info.get("run_id"):
        return Finding("broker", "ok", f"{shown(url)}, apart from the log")
    if limit := log_info.get("maxmemory"):
        return Finding("broker", "warn", f"shares the log's Redis, which refuses both at {limit:,} bytes: part them")
    return Finding("broker", "ok", "shares the log's Redis, which has no maxmemory")


def check_endpoint(settings: WorkerSettings, epoch: Callable[[], float]) -> Iterator[Finding]:
    """The credentials, and by a request that changes nothing the endpoint and whether it accepts them."""
    try:
        header = read_server_key(settings).header
        yield Finding("credentials", "ok", "the server key is there")
    except SettingsError as error:
        header = ""
        yield Finding("credentials", "wrong", str(error))
    endpoint = Endpoint(settings.endpoint_url, settings.request_timeout_seconds)
    try:
        began = time.monotonic()
        answer = endpoint.send(HARMLESS_BODY, header)
        seconds = time.monotonic() - began
    finally:
        endpoint.close()
    yield Finding("endpoint", *_judged(answer, has_key=bool(header), epoch=epoch, said=f"answers in {seconds:.2f} s"))


def _judged(answer: Any, *, has_key: bool, epoch: Callable[[], float], said: str) -> tuple[Verdict, str]:
    # As if there were records, so that a refusal of their number is told from a refusal of everything.
    match decide(answer, records=2, now_epoch_seconds=epoch()):
        case Retry(error=error):
            return ("warn" if isinstance(answer, Answer) else "wrong"), error
        case Hold(reason="credentials") if not has_key:
            return "ok", f"{said}; without a server key it was only seen that it is there"
        case Hold(reason="credentials", error=error):
            return "wrong", f"refuses the server key: {error}"
        case Hold(reason=reason, error=error):
            return "wrong", f"{said}, but not as a contact endpoint does ({reason}: {error})"
        case TooLarge() | Rejected() | Confirmed():
            return "ok", f"{said}, and accepts the server key"
