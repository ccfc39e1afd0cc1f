"""The floor: what reading, joining and encoding cost alone, what XADD costs alone, and what the endpoint can take."""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING, Any

from tests.bench.changes import changes
from tests.bench.systems import PARTITIONS, append_all, packed_log
from worker.core.batch import fill
from worker.core.slice import PartitionSlice, coalesce_prefix
from worker.local.redis import EmbeddedRedis
from worker.store.client import command, connect

if TYPE_CHECKING:
    import redis

    from tests.bench.processes import Endpoint

_BATCH = 500


def floor(endpoint: Endpoint, count: int) -> dict[str, Any]:
    """Rates a second, of one process each."""
    given = changes(count, "distinct")
    with EmbeddedRedis(tcp=True) as server:
        packed = packed_log(given)
        begun = time.perf_counter()
        append_all(server.url, packed)
        appended = count / (time.perf_counter() - begun)
        client = connect(server.url)
        xadd: Any = client.info("commandstats")["cmdstat_xadd"]
        begun = time.perf_counter()
        body = read_join_and_encode(client)
        joined = count / (time.perf_counter() - begun)
        client.close()
    return {
        "xadd_a_second": appended,
        "xadd_redis_us": xadd["usec_per_call"],
        "read_join_encode_a_second": joined,
        "endpoint_records_a_second": _ceiling(endpoint, body),
    }


def read_join_and_encode(client: redis.Redis) -> bytes:
    """Does so with the whole log, which stays as it is; returns the longest body."""
    body = b""
    for p in range(PARTITIONS):
        position = b"0-0"
        while raw := command(client, "XRANGE", f"contact-sync:{{{p}}}:events", b"(" + position, "+", "COUNT", _BATCH):
            log = coalesce_prefix(raw, p, PARTITIONS, _BATCH, fast=True)
            position = log.position
            body = max(body, fill([PartitionSlice(p, log)], _BATCH).body(), key=len)
    return body


def _ceiling(endpoint: Endpoint, body: bytes) -> float:
    """Records a second that the endpoint takes from one connection which does nothing but post a full batch."""
    endpoint.begin(0)
    connection = http.client.HTTPConnection(endpoint.url.removeprefix("http://"))
    begun = time.perf_counter()
    for _ in range(2_000):
        connection.request("POST", "/v1/server/contact/sync", body)
        connection.getresponse().read()
    connection.close()
    return float(endpoint.counts()["records"] / (time.perf_counter() - begun))
