"""The systems that are compared: how each is given its changes, started, and known to be done."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import redis
from hiredis import pack_command

from producers.contract.change import partition_of
from producers.contract.keys import Keys
from tests.bench.processes import ARQ as ARQ_BIN
from tests.bench.processes import BULLMQ as BULLMQ_MODULES
from tests.bench.processes import OURS, PEERS, PROJECT
from worker.standin.settings import DEFAULT_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from producers.contract.change import Lane
    from tests.bench.changes import Change

PARTITIONS: Final = 64
_CHUNK: Final = 1_000
_STREAM: Final = "bench:events"
_PEER_DIRECTORY: Final = str(PROJECT / "tests" / "bench" / "peers")


@dataclass(frozen=True, slots=True)
class System:
    """One of those that are compared.

    Attributes:
        name: as the tables call it.
        command: what starts it.
        load: gives it changes, which wait until it is started.
        waiting: how many changes it has not done with, more or less; 0 when it is done.
        per_record: it makes a request of every change, so it is given fewer.
        environment: further settings.
        processes: how many of it are started.
        remembers: whether it knows pairs that it delivered before: it is given those of ``daily`` beforehand.
    """

    name: str
    command: Sequence[str]
    load: Callable[[str, Sequence[Change]], None]
    waiting: Callable[[redis.Redis], int]
    per_record: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    processes: int = 1
    remembers: bool = False


def append_all(url: str, commands: Sequence[bytes]) -> None:
    """Packed commands to Redis, a thousand at a time."""
    client = redis.Redis.from_url(url)
    connection: Any = client.connection_pool.get_connection()
    for i in range(0, len(commands), _CHUNK):
        part = commands[i : i + _CHUNK]
        connection.send_packed_command((b"".join(part),), check_health=False)
        for _ in part:
            connection.read_response()
    client.connection_pool.release(connection)
    client.close()


def packed_log(changes: Sequence[Change], partitions: int = PARTITIONS, lane: Lane = "live") -> list[bytes]:
    """The commands that append changes to our log."""
    log = "bulk" if lane == "bulk" else "events"
    keys = [f"contact-sync:{{{p}}}:{log}" for p in range(partitions)]
    return [_xadd(keys[partition_of(each.owner, partitions)], each) for each in changes]


def _load_stream(url: str, changes: Sequence[Change]) -> None:
    client = redis.Redis.from_url(url)
    client.xgroup_create(_STREAM, "contacts", id="0", mkstream=True)
    client.close()
    append_all(url, [_xadd(_STREAM, each) for each in changes])


def _xadd(key: str, change: Change) -> bytes:
    owner, contact, op, at = change
    stamp = () if at is None else ("at", str(at))
    packed: bytes = pack_command(("XADD", key, "*", "owner", owner, "contact", contact, "op", op, *stamp))
    return packed


def _load_by(*command: str, **environment: str) -> Callable[[str, Sequence[Change]], None]:
    def load(url: str, changes: Sequence[Change]) -> None:
        lines = "".join(f"{each.owner} {each.contact} {each.op}\n" for each in changes)
        given = {"BENCH_REDIS_URL": url, "BENCH_ENDPOINT_URL": "", **environment}
        subprocess.run(command, input=lines.encode(), env=given, check=True)

    return load


def _load_by_module(name: str, at: Path = PEERS) -> Callable[[str, Sequence[Change]], None]:
    return _load_by(str(at / "python"), f"{_PEER_DIRECTORY}/{name}.py")


def log_waiting(client: redis.Redis, partitions: int = PARTITIONS) -> tuple[int, int]:
    """Entries in our log, and pairs that wait beside it."""
    pipe = client.pipeline(transaction=False)
    for p in range(partitions):
        pipe.xlen(f"contact-sync:{{{p}}}:events")
    for key in (each for p in range(partitions) for each in Keys("contact-sync").pending_classes(p)):
        pipe.hlen(key)
    found = pipe.execute()
    return sum(found[:partitions]), sum(found[partitions:])


def _stream_waiting(client: redis.Redis) -> int:
    groups: Any = client.xinfo_groups(_STREAM)
    return int(groups[0]["lag"] or 0) + int(groups[0]["pending"])


def _stream_left(client: redis.Redis) -> int:
    """Where entries are deleted out of order, Redis does not know the lag of the group."""
    left: Any = client.xlen(_STREAM)
    return int(left)


def _queue_waiting(client: redis.Redis) -> int:
    unacked: Any = client.hlen("unacked")
    queued: Any = client.llen("celery")
    return int(queued + unacked)


def _taskiq_waiting(client: redis.Redis) -> int:
    groups: Any = client.xinfo_groups("taskiq")
    return int(groups[0]["lag"] or 0) + int(groups[0]["pending"])


def _bullmq_waiting(client: redis.Redis) -> int:
    waiting: Any = client.llen("bull:contacts:wait")
    active: Any = client.llen("bull:contacts:active")
    return int(waiting + active)


def _arq_waiting(client: redis.Redis) -> int:
    jobs: Any = client.zcard("arq:queue")
    return int(jobs)


def ours(*options: str, processes: int = 1, partitions: int = PARTITIONS, **settings: str) -> System:
    """`contact-sync worker` as its users start it, with default settings but for what is given."""
    name = " ".join(("contact-sync worker", *options))
    key = {"CONTACT_SYNC_SERVER_KEY_ID": DEFAULT_KEY, "CONTACT_SYNC_SERVER_KEY_SECRET": DEFAULT_KEY}
    return System(
        name,
        [str(OURS / "contact-sync"), "worker", "--loglevel", "WARNING", *options],
        lambda url, changes: append_all(url, packed_log(changes, partitions)),
        lambda client: sum(log_waiting(client, partitions)),
        environment=key | {"CONTACT_SYNC_PARTITIONS": str(partitions)} | settings,
        processes=processes,
        remembers=True,
    )


_CELERY: Final = (str(PEERS / "python"), "-m", "celery", "--workdir", _PEER_DIRECTORY)

SCRIPT: Final = System(
    "hand-written script", [str(OURS / "python"), f"{_PEER_DIRECTORY}/script.py"], _load_stream, _stream_left
)
SCRIPT_TUNED: Final = System(
    "the same, tuned", [str(OURS / "python"), f"{_PEER_DIRECTORY}/script_tuned.py"], _load_stream, _stream_waiting
)
SCRIPT_TWICE: Final = replace(SCRIPT, name="the script, two processes", processes=2)
FASTSTREAM: Final = System(
    "FastStream, batches",
    [str(PEERS / "python"), f"{_PEER_DIRECTORY}/faststream_app.py"],
    _load_stream,
    _stream_waiting,
)
CELERY_TASK: Final = System(
    "Celery task a change",
    # With threads it takes 32 tasks a second where a task waits at all: its loop hears of their end once a second.
    [*_CELERY, "-A", "celery_task", "worker", "-P", "prefork", "-c", "8", "-l", "WARNING"],
    _load_by_module("celery_task"),
    _queue_waiting,
    per_record=True,
)
CELERY_BATCHES: Final = System(
    "celery-batches",
    [*_CELERY, "-A", "celery_batches_app", "worker", "-P", "threads", "-c", "8", "-l", "WARNING"],
    _load_by_module("celery_batches_app"),
    _queue_waiting,
    per_record=True,
)
ARQ: Final = System(
    "arq job a change",
    [str(ARQ_BIN / "python"), "-m", "arq", "arq_app.WorkerSettings", "--custom-log-dict", "arq_app.QUIET"],
    _load_by_module("arq_app", ARQ_BIN),
    _arq_waiting,
    per_record=True,
    environment={"PYTHONPATH": _PEER_DIRECTORY},
)
TASKIQ: Final = System(
    "taskiq task a change",
    [str(PEERS / "python"), "-m", "taskiq", "worker", "taskiq_app:broker", "--log-level", "WARNING"],
    _load_by_module("taskiq_app"),
    _taskiq_waiting,
    per_record=True,
    environment={"PYTHONPATH": _PEER_DIRECTORY},
)
_NODE: Final = shutil.which("node") or "node"
_NODE_PATH: Final = {"NODE_PATH": str(BULLMQ_MODULES)}
BULLMQ: Final = System(
    "BullMQ job a change",
    [_NODE, f"{_PEER_DIRECTORY}/bullmq/app.cjs"],
    _load_by(_NODE, f"{_PEER_DIRECTORY}/bullmq/app.cjs", "load", **_NODE_PATH),
    _bullmq_waiting,
    per_record=True,
    environment=_NODE_PATH,
    processes=2,  # recommended before more concurrency: one for each core
)
PEERS_ALL: Final = (
    *(SCRIPT, SCRIPT_TUNED, FASTSTREAM, CELERY_BATCHES, CELERY_TASK, ARQ, TASKIQ),
    *([BULLMQ] if BULLMQ_MODULES.is_dir() else []),
)
