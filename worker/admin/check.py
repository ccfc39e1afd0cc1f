"""Checks settings, Redis, the broker, the credentials and the endpoint; changes nothing. Each check gives one line."""

from __future__ import annotations

import time
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import redis

from producers.contract.errors import ContactSyncError, SettingsError
from producers.contract.partitions import DEFAULT_PARTITIONS
from producers.nodes.cluster import ClusterClient
from producers.settings import PREFIX, variable_of
from worker.admin.check_broker import check_broker
from worker.admin.check_nodes import check_balance, check_nodes
from worker.admin.check_redis import (
    check_clock,
    check_permissions,
    check_persistence,
    check_replicas,
    check_server,
    directive,
)
from worker.admin.finding import Finding
from worker.admin.obstacles import obstacles
from worker.admin.status import read_status
from worker.config.serve import ServeSettings
from worker.config.server_key import read_server_key
from worker.config.settings import WorkerSettings, is_loopback
from worker.core.outcome import Answer, Confirmed, Hold, Rejected, Retry, TooLarge, decide
from worker.delivery.endpoint import Endpoint
from worker.store.agreed import agreed_partitions
from worker.store.client import command, connect
from worker.store.inbox import load_map
from worker.store.namespace import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from producers.contract.keys import Keys
    from worker.admin.finding import Severity
    from worker.admin.status import Status

_REDIS_SECONDS: Final = 5.0

HARMLESS_BODY: Final = b'{"contacts":[]}'
"""A request that changes nothing: an endpoint that accepts the key refuses it as empty (40002, field 101)."""


def check_variables(names: Iterable[str]) -> Iterator[Finding]:
    """Finds variables that are set but unknown. Most are misspelled, so that the setting silently keeps its default.

    Args:
        names: names of the variables that are set.
    """
    known = [variable_of(field) for field in ServeSettings.model_fields]
    for name in sorted(names):
        if name.startswith(PREFIX) and name not in known:
            close = get_close_matches(name, known, n=1, cutoff=0.9)
            hint = f": did you mean {close[0]}?" if close else ""
            yield Finding("settings", "warn", f"unknown setting {name}{hint}")


def check_inbox_map(settings: WorkerSettings) -> Iterator[Finding]:
    """Checks the mapping of the inbox, if there is one."""
    if settings.inbox_map is None:
        return
    try:
        load_map(settings.inbox_map)
    except SettingsError as error:
        yield Finding("inbox map", "wrong", str(error))
    else:
        yield Finding("inbox map", "ok", f"{settings.inbox_map} is valid")


def check_all(settings: WorkerSettings, shown: Callable[[str], str], epoch: Callable[[], float]) -> Iterator[Finding]:
    """Checks the inbox's mapping, Redis, the log, the broker, the credentials and the endpoint.

    Args:
        settings: the settings to check.
        shown: returns a URL without anything that may be secret.
        epoch: this machine's clock, as Unix time in seconds.
    """
    yield from check_inbox_map(settings)
    client = connect(settings.redis_url, settings.redis_credentials, timeout_seconds=_REDIS_SECONDS)
    try:
        info: dict[str, Any] = dict(client.info())
        if isinstance(client, ClusterClient):
            yield from check_nodes(client, shown, settings.wait_replicas)
        else:
            yield from check_server(info, shown(settings.redis_url))
            yield from check_replicas(info, shown(settings.redis_url), settings.wait_replicas)
        yield (permissions := check_permissions(client, settings.keys))
        yield check_persistence(info, directive(client, "appendfsync"), directive(client, "save"))
        yield check_clock(client, epoch)
        if permissions.severity != "wrong":  # else it is refused too, and the user knows already
            yield from _log(client, settings)
        yield from check_broker(settings, info, shown)
    except redis.RedisError as error:
        yield Finding("redis", "wrong", f"{variable_of('redis_url')}, {shown(settings.redis_url)}: {error}")
    finally:
        client.close()
    yield from check_endpoint(settings, epoch)


def _log(client: redis.Redis, settings: WorkerSettings) -> Iterator[Finding]:
    """Checks the number of partitions, and the types of the keys."""
    keys = settings.keys
    if command(client, "TYPE", keys.config) not in {b"none", b"hash"}:
        yield Finding("partitions", "wrong", f"the key {keys.config} has the wrong type: something else wrote it")
        return
    if not client.hexists(keys.config, "partitions"):
        count = settings.partitions or DEFAULT_PARTITIONS
        yield Finding("partitions", "ok", f"not recorded yet: the log will begin with {count}")
    else:
        try:
            count = agreed_partitions(client, settings)
        except ContactSyncError as error:
            yield Finding("partitions", "wrong", str(error))
            return
        yield Finding("partitions", "ok", f"{count} recorded, {settings.partitions or 'no number'} configured")
    namespace = Namespace(client, keys, count)
    if isinstance(client, ClusterClient):
        yield check_balance(namespace)
    found = read_status(namespace)
    yield from (
        Finding("slots", "warn", f"{each.message}; {each.todo}")
        for each in obstacles(found)
        if each.name == "slots_open"
    )
    yield from _keys(found, keys)
    if said := found.lost_words():
        yield Finding("lost", "wrong", f"{said}; send them again, then run contact-sync status --acknowledge")


def _keys(found: Status, keys: Keys) -> Iterator[Finding]:
    """Checks the types of all keys, and says every wrong one: nobody mends a key that another one hides."""
    wrong = []
    if found.wrong_type_inbox:
        wrong.append(f"the key {keys.inbox}, the inbox, has the wrong type: something else wrote it")
    if found.wrong_type_partitions:
        numbers = ", ".join(map(str, found.wrong_type_partitions))
        wrong.append(f"in partitions {numbers} a key has the wrong type: something else wrote it")
    if others := [each for each in found.wrong_type_keys if each != keys.inbox]:
        wrong.append(f"keys of the wrong type, which something else wrote: {', '.join(others)}")
    if away := found.away_words():  # their keys could not be looked at
        wrong.append(away)
    yield from (Finding("streams", "wrong", each) for each in wrong)
    if not wrong:
        yield Finding("streams", "ok", "every key has the right type")


def check_endpoint(settings: WorkerSettings, epoch: Callable[[], float]) -> Iterator[Finding]:
    """Checks the credentials, and sends the endpoint a request that changes nothing to see if it accepts them."""
    try:
        header = read_server_key(settings).header
        yield Finding("credentials", "ok", "the server key is set")
    except SettingsError as error:
        header = ""
        yield Finding("credentials", "wrong", str(error))
    if settings.endpoint_url.startswith("http:") and not is_loopback(settings.endpoint_url):
        yield Finding(
            "endpoint tls", "warn", "http:// to another machine: anybody on the network can read the server key"
        )
    endpoint = Endpoint(settings.endpoint_url, settings.request_timeout_seconds)
    try:
        began = time.monotonic()
        answer = endpoint.send(HARMLESS_BODY, header)
        seconds = time.monotonic() - began
    finally:
        endpoint.close()
    severity, message = _endpoint_finding(answer, has_key=bool(header), epoch=epoch, said=f"answers in {seconds:.2f} s")
    yield Finding("endpoint", severity, f"{settings.endpoint_url}: {message}")


def _endpoint_finding(answer: Any, *, has_key: bool, epoch: Callable[[], float], said: str) -> tuple[Severity, str]:
    # As if it had two records: a refusal of the request's size then differs from a refusal of everything.
    match decide(answer, records=2, now_epoch_seconds=epoch()):
        case Retry(error=error) if isinstance(answer, Answer):
            return "warn", f"{said}, but fails: {error}"
        case Retry(error=error):
            return "wrong", f"{error}; is {variable_of('endpoint_url')} right?"
        case Hold(reason="credentials") if not has_key:
            return "ok", f"{said}; without a server key nothing more can be checked"
        case Hold(reason="credentials", error=error):
            return "wrong", f"refuses the server key ({variable_of('server_key_id')}, …_SECRET): {error}"
        case Hold(reason=reason, error=error):
            wrong = (
                f"but not as a contact endpoint answers ({reason}: {error}); is {variable_of('endpoint_url')} right?"
            )
            if reason == "app_unavailable":
                wrong = f"and says that the app is suspended or unavailable ({error}): ask the platform"
            return "wrong", f"{said}, {wrong}"
        case TooLarge() | Rejected() | Confirmed():
            return "ok", f"{said}, and accepts the server key"
