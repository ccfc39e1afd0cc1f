"""Whoever reaches the broker can run nothing here, and can stop nothing."""

from __future__ import annotations

import base64
import json
import pickle
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.support.waiting import wait_until
from tests.support.worker_process import PREFORK, THREADS, WorkerProcess, wait_until_delivered

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fleet import Fleet

pytestmark = pytest.mark.timeout(120)


class Bomb:
    """What does something when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def message(body: bytes, content_type: str, task: str = "contact_sync.flush", **headers: object) -> dict[str, object]:
    """A message as Celery's protocol 2 spells it."""
    name = str(uuid.uuid4())
    return {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "binary" if "python" in content_type else "utf-8",
        "content-type": content_type,
        "headers": {"lang": "py", "task": task, "id": name, "root_id": name, "argsrepr": "()", **headers},
        "properties": {
            "correlation_id": name,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "contact-sync"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": name,
        },
    }


def embedded(args: object, kwargs: object, embed: object = None) -> bytes:
    return json.dumps([args, kwargs, embed or {}]).encode()


CANARY = "canary-argument"

ODD: list[dict[str, object]] = [
    message(embedded([CANARY], {}), "application/json"),
    message(embedded([], {CANARY: 1, "self": 2, "task": {}}), "application/json"),
    message(embedded([["x"] * 100, None, {"a": {}}], {"settings": None}), "application/json"),
    message(embedded([], {}, {"callbacks": [{"task": "os.system", "args": ["x"]}]}), "application/json"),
    message(embedded({}, []), "application/json"),
    message(embedded(CANARY, CANARY), "application/json"),
    message(b"[]", "application/json"),
    message(b"null", "application/json"),
    message(CANARY.encode(), "application/json"),
    message(b"\xff\xfe", "application/json"),
    message(b"[" * 5_000, "application/json"),
    message(embedded([], {}), "application/x-yaml"),
    message(b"!!python/object/apply:os.system [x]", "application/x-yaml"),
    message(embedded([], {}), "application/x-unheard-of"),
    message(embedded([], {}), "application/json", task="os.system"),
    message(embedded([], {}), "application/json", task="no.such.task"),
    message(embedded([], {}), "application/json", eta="no time", expires="never"),
    message(embedded([], {}), "application/json", eta="2999-01-01T00:00:00+00:00"),
    message(embedded([], {}), "application/json", timelimit=[CANARY, None], retries=CANARY, group=CANARY),
]


@pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])
def test_a_pickled_message_and_odd_arguments_do_nothing_and_stop_nothing(
    process_fleet: Fleet, tmp_path: Path, options: tuple[str, ...]
) -> None:
    fleet, bomb = process_fleet, tmp_path / "it-ran"
    pickled = pickle.dumps(((Bomb(bomb),), {}, {}))
    with (
        WorkerProcess(fleet.environment(), tmp_path / "worker", options) as worker,
        redis.Redis.from_url(str(fleet.settings().broker_url)) as broker,
    ):
        worker.wait_until_ready()
        for each in [message(pickled, "application/x-python-serialize"), *ODD]:
            broker.lpush(fleet.keys.namespace, json.dumps(each))
        wait_until(lambda: not broker.llen(fleet.keys.namespace), seconds=60, what="every message was taken")
        fleet.append("1", "2", "upsert")
        wait_until_delivered(fleet)
        assert worker.process.poll() is None
        assert not bomb.exists()
        assert worker.end() == 0
        said = worker.said()
    assert fleet.stand_in.contacts() == {("1", "2")}
    assert CANARY not in said


def test_nothing_but_json_is_accepted() -> None:
    from worker.celery import app  # noqa: PLC0415 - it reads the settings when it is loaded

    assert (app.conf.accept_content, app.conf.result_accept_content) == (["json"], ["json"])
    assert {app.conf.task_serializer, app.conf.event_serializer} == {"json"}
