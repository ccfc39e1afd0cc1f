"""All that runs in a soak: a home for the log, the stand-in endpoint, the proxies before them, and workers."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import SecretStr

from producers.nodes.cluster import ClusterClient
from tests.soak.erasures import Erasures
from tests.soak.homes import HOMES
from tests.soak.proxy import Proxy
from tests.soak.workers import Fleet
from worker.admin.parked import NotMoved, ParkedPairs
from worker.admin.status import read_status
from worker.admin.upgrade import upgrade
from worker.config.settings import WorkerSettings
from worker.local.stand_in import SupervisedStandIn
from worker.standin.client import StandInClient
from worker.store.client import connect, round_trip
from worker.store.dead_letters import DeadLetters, Wanted
from worker.store.log_form import NEWEST
from worker.store.namespace import Namespace
from worker.store.partitions import Partitions
from worker.store.replies import all_checked

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from producers.nodes.trip import Replicas
    from tests.soak.homes import On
    from worker.admin.status import Status
    from worker.core.pair import Readd
    from worker.local.redis import EmbeddedRedis
    from worker.store.dead_letters import Redriven

NAMESPACE: Final = "soak"

TIMES: Final[dict[str, float]] = {
    "linger_seconds": 0.05,
    "request_timeout_seconds": 2.0,
    "lease_seconds": 3.5,
    "late_seconds": 5.0,
    "backoff_base_seconds": 0.1,
    "backoff_max_seconds": 1.0,
    "ledger_seconds": 120.0,
}
"""Short, so that what takes minutes elsewhere happens often here. Nothing acts later than deadline and late_seconds;
no change is appended later than ledger_seconds after what outdates it, so that staleness is certain."""

BATCH_SIZE: Final = 200

RATE: Final = 20.0
"""CONTACT_SYNC_RATE: it binds while the fleet recovers, and whenever an import waits."""

LATENCY_SECONDS: Final = 0.1
"""How long the endpoint takes for a request, so that most of the time one is under way when a fault strikes."""

CONFIG, GATE, SUPPRESSED = -1, -2, -3
"""What has a place of its own, beside the partitions."""


class System:
    """The system, as a context manager; the workers are started by whoever uses it.

    Args:
        directory: where data, keys and the workers' logs go.
        workers: how many worker processes; their pools take turns.
        readd: CONTACT_SYNC_READD.
        previous: the tree of the previous release, whose workers begin; None to begin with this one's.
        on: where the log lives.
        wait_replicas: CONTACT_SYNC_WAIT_REPLICAS.

    Attributes:
        previous: the same.
        home: where the log lives.
        client: what looks at it and sets it up; past the proxies if it is one server.
        endpoint: the proxy that workers reach the endpoint through.
        stand_in: control of the endpoint.
        settings: what workers and producers work with.
        fleet: the workers.
        erasures: the people who are erased.
        partitions: how many the log has.
    """

    def __init__(  # noqa: PLR0913 - what a soak may be, by name
        self,
        directory: Path,
        workers: int,
        readd: Readd = "resend",
        previous: Path | None = None,
        *,
        on: On = "redis",
        wait_replicas: Replicas = 0,
        partitions: int,
    ) -> None:
        self.previous = previous
        self.partitions = partitions
        self.home = HOMES[on](directory)
        self.secret_file = directory / "secret"
        self._directory = directory
        self._count = workers
        self._readd: Readd = readd
        self._wait: Replicas = wait_replicas
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Starts all but the workers.

        Raises:
            RedisNotFoundError: this machine has no Redis server that fits.
            EmbeddedRedisError, ProcessStartError: one of them does not start.
        """
        with ExitStack() as undo:
            undo.enter_context(self.home)
            process = undo.enter_context(SupervisedStandIn())
            self.stand_in = undo.enter_context(StandInClient(process.url))
            self.stand_in.settings(latency_seconds=LATENCY_SECONDS)
            self.endpoint = undo.enter_context(Proxy(process.url))
            self.client = connect(self.home.observer_url, timeout_seconds=10.0)
            undo.callback(self.client.close)
            self.write_secret(process.key_secret)
            self.settings = self._settings(process.key_id)
            self.fleet = undo.enter_context(Fleet(self.settings, self._directory, self._count, self.previous))
            self.erasures = Erasures(self.settings, self._directory, self.home.on)
            self._open = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def write_secret(self, secret: str) -> None:
        """What the workers find when they read the secret of the server key anew."""
        self.secret_file.write_text(secret, encoding="utf-8")

    @property
    def redis(self) -> EmbeddedRedis:
        """The server, where there is but one."""
        return self.home.nodes[0].server

    @property
    def keys(self) -> dict[int, str]:
        """A key of each partition, and of what has a place of its own."""
        keys = self.settings.keys
        others = {CONFIG: keys.config, GATE: keys.gate, SUPPRESSED: keys.suppressed}
        return {p: keys.partition(p) for p in range(self.partitions)} | others

    def redis_memory(self) -> int:
        """Bytes that the server has that has most, as it counts them.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        found = [each.info("memory") for each in self.servers()]
        return max((int(each["used_memory"]) for each in found), default=0)

    def status(self) -> Status:
        """One look at what waits.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        return read_status(Namespace(self.client, self.settings.keys, self.partitions))

    def marks(self) -> int:
        """How many pairs an unanswered request may still act on.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        asked = [("HLEN", self.settings.keys.late(p)) for p in range(self.partitions)]
        return sum(all_checked(round_trip(self.client, asked)))

    def upgrade(self) -> bool:
        """`contact-sync upgrade`: whether the previous release is barred now.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        # If a failover took it back, nobody could say what the previous release must not do from now on.
        wait = self.settings.wait_replicas or (0 if self.home.on == "redis" else 1)
        form = upgrade(Namespace(self.client, self.settings.keys, self.partitions), wait).form
        self.fleet.upgraded = form == NEWEST
        return self.fleet.upgraded

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters there are."""
        return DeadLetters(Namespace(self.client, self.settings.keys, self.partitions))

    def redrive(self) -> list[Redriven]:
        """Puts all dead letters back into the log that may go there, and says what became of each.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        return self.dead_letters.redrive(list(self.dead_letters.find(Wanted())))

    def retry_parked(self) -> int:
        """Lets all parked pairs be tried now; returns how many there are.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        settings = self.settings
        partitions = Partitions.of(Namespace(self.client, settings.keys, self.partitions), settings)
        pairs = ParkedPairs(partitions, 2 * settings.lease_seconds, time.monotonic, time.sleep)
        found = list(pairs.find(Wanted()))
        with suppress(NotMoved):  # a partition stays leased: they are tried again at their own time
            pairs.retry(found)
        return len(found)

    def servers(self) -> list[Any]:
        """A client of each server that serves anything."""
        if isinstance(self.client, ClusterClient):
            return [each for _, each in self.client.masters()]
        return [self.client]

    def mentions(self, users: Collection[str]) -> list[str]:
        """The keys in which any of these people still stands.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        sought = re.compile("|".join(map(re.escape, sorted(users))).encode())
        return [
            key.decode()
            for server in self.servers()
            for key in server.scan_iter(f"{NAMESPACE}:*", count=1_000)
            if users and sought.search(repr(_all_of(server, key)).encode())
        ]

    def _settings(self, key_id: str) -> WorkerSettings:
        times: dict[str, Any] = dict(TIMES)
        return WorkerSettings(
            redis_url=self.home.url,
            broker_url=self.home.broker_url,
            wait_replicas=self._wait,
            namespace=NAMESPACE,
            partitions=self.partitions,
            endpoint_url=f"http://127.0.0.1:{self.endpoint.port}",
            server_key_id=SecretStr(key_id),
            server_key_secret_file=self.secret_file,
            batch_size=BATCH_SIZE,
            readd=self._readd,
            rate=RATE,
            **times,
        )


def _all_of(server: Any, key: bytes) -> Any:
    """All that a key holds."""
    match server.type(key):
        case b"hash":
            return server.hgetall(key)
        case b"stream":
            return server.xrange(key)
        case b"string":
            return server.get(key)
        case b"list":
            return server.lrange(key, 0, -1)
        case b"set":
            return server.smembers(key)
    return server.zrange(key, 0, -1)
