"""A Celery task per change, on Redis, as Celery's first steps show it."""

from __future__ import annotations

import os
import sys
import threading

import httpx
import orjson
from celery import Celery

app = Celery("celery_task", broker=os.environ["BENCH_REDIS_URL"])
app.conf.update(task_ignore_result=True)
_local = threading.local()


@app.task
def post(owner: str, contact: str, op: str) -> None:
    http = getattr(_local, "http", None)
    if http is None:
        http = _local.http = httpx.Client(headers={"Server-Key": "key", "Content-Type": "application/json"})
    record = {"ownerXCUserID": owner, "contactXCUserID": contact, "isDeleted": op == "delete"}
    url = os.environ["BENCH_ENDPOINT_URL"] + "/v1/server/contact/sync"
    http.post(url, content=orjson.dumps({"contacts": [record]})).raise_for_status()


if __name__ == "__main__":
    with app.producer_pool.acquire(block=True) as producer:
        for line in sys.stdin:
            post.apply_async(line.split(), producer=producer)
