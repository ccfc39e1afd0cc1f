"""No secret and no id turns up where it must not, whatever goes wrong and whatever the endpoint repeats."""

from __future__ import annotations

import base64
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from tests.support.commands import run
from tests.support.fleet import Fleet
from tests.support.raw_server import Connection, RawServer, http
from tests.support.waiting import wait_until
from tests.support.worker_process import PREFORK, PROCESS, THREADS, WorkerProcess
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(120)

KEY_ID, SECRET, PASSWORD = "canary-key-id", "canary-secret", "canary-password"
OWNER, CONTACT = "canary-owner", "canary-contact"
HEADER = base64.b64encode(f"{KEY_ID}:{SECRET}".encode()).decode()

SECRETS = [SECRET, HEADER, PASSWORD]
IDS = [OWNER, CONTACT]


def envelope(code: str, field: str, request: bytes) -> bytes:
    said = request.decode("latin-1").replace("\\", " ").replace('"', " ").replace("\r\n", " ")
    return (
        '{"status":400,"error":{"code":"%s","message":"%s","field":"%s"},"data":{}}' % (code, said, field)  # noqa: UP031 - braces
    ).encode("latin-1")


ANSWERS: list[Callable[[bytes], bytes]] = [
    lambda request: http(request, "500 Oh"),
    lambda request: b"HTTP/1.1 500 " + request.replace(b"\r\n", b" ") + b"\r\nContent-Length: 0\r\n\r\n",
    lambda request: http(envelope("50001", request.decode("latin-1")[:200].split("\r", 1)[0], request), "500 Oh"),
    lambda request: http(envelope(HEADER, OWNER, request), "503 Oh", f"Retry-After: {HEADER}"),
    lambda _request: http(b"{}", "302 Found", f"Location: http://127.0.0.1:1/{HEADER}/{OWNER}"),
    lambda request: request,  # no HTTP at all
    http,
    lambda request: http(envelope("40102", "", request), "401 No"),
    lambda _request: b"",
    lambda request: http(envelope("40002", "103", request), "400 No"),
    lambda _request: http(),
]
"""What an endpoint may answer that repeats what it was sent, one after the other."""


def repeating() -> Callable[[Connection], None]:
    answers: Iterator[Callable[[bytes], bytes]] = cycle(ANSWERS)

    def handler(connection: Connection) -> None:
        while request := connection.read_request():
            answer = next(answers)(request)
            connection.socket.sendall(answer)
            if not answer.startswith(b"HTTP/1.1 200"):
                return

    return handler


def found(canaries: list[str], text: str) -> list[str]:
    return [each for each in canaries if each in text]


@pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])
def test_canaries_stay_where_they_belong_through_every_fault(
    tmp_path: Path, namespace: str, stand_in: StandInClient, options: tuple[str, ...]
) -> None:
    with (
        EmbeddedRedis(config={"requirepass": ""}) as server,
        RawServer(repeating()) as endpoint,
        Fleet(server.url, namespace, stand_in, **PROCESS) as fleet,
    ):
        fleet.client.execute_command("ACL", "SETUSER", "user", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        url = server.url.replace("unix://", f"unix://user:{PASSWORD}@")
        fleet.change(redis_url=url, endpoint_url=endpoint.url, server_key_id=KEY_ID, server_key_secret=SECRET)
        said: list[str] = []
        with WorkerProcess(fleet.environment(), tmp_path, options) as worker:
            worker.wait_until_ready()
            fleet.append(OWNER, CONTACT, "upsert")
            fleet.append_raw(0, {"owner": OWNER, "contact": f"{CONTACT}\r\n", "op": SECRET})
            wait_until(lambda: not fleet.waits(), seconds=30, what="every answer was given")
            said += [run(fleet, *line.split()).output for line in ("status", "status --json", "health", "check")]
            fleet.client.replicaof("127.0.0.1", "1")
            fleet.client.client_kill_filter(_type="normal", skipme=True)
            wait_until(lambda: "redis_away" in worker.said(), seconds=30, what="the worker met a Redis in trouble")
            fleet.client.replicaof("NO", "ONE")
            arguments = [Path(f"/proc/{pid}/cmdline").read_text() for pid in (worker.process.pid, *worker.children())]
            worker.end()
            said.append(worker.said())
        everything = "\n".join([*said, *arguments])
        assert "batch_retry" in everything
        assert "endpoint_held" in everything
        assert "entries_malformed" in everything
        assert found([*SECRETS, *IDS], everything) == []
        kept = [fleet.client.dump(key) or b"" for key in fleet.client.scan_iter("*")]
        assert found([HEADER, PASSWORD], b"".join(kept).decode("latin-1")) == []


def test_hints_carry_nothing(process_fleet: Fleet, tmp_path: Path) -> None:
    """What lies in the broker while nobody takes it, and while the log is full of ids."""
    fleet = process_fleet
    fleet.change(server_key_id=KEY_ID, server_key_secret=SECRET)
    with (
        WorkerProcess(fleet.environment(), tmp_path, PREFORK) as worker,
        redis.Redis.from_url(str(fleet.settings().broker_url)) as broker,
        broker.monitor() as monitor,
    ):
        worker.wait_until_ready()
        fleet.append(OWNER, CONTACT, "upsert")
        hint = next(str(each["command"]) for each in monitor.listen() if "contact_sync.flush" in str(each["command"]))
        worker.end()
    assert found([*SECRETS, *IDS], hint) == []
    body = (
        hint.split('\\"body\\": \\"')[-1].split('\\"')[0]
        if '\\"body\\"' in hint
        else hint.split('"body": "')[1].split('"')[0]
    )
    assert base64.b64decode(body).startswith(b"[[], {}, ")
