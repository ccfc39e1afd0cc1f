"""taskiq: a task a change, over the broker with acknowledgements that its documentation shows, with its defaults."""

from __future__ import annotations

import asyncio
import os
import sys

import httpx
import orjson
from taskiq_redis import RedisStreamBroker

# Without a result backend: nobody asks for the results.
broker = RedisStreamBroker(os.environ["BENCH_REDIS_URL"])
_http = httpx.AsyncClient(headers={"Server-Key": "key", "Content-Type": "application/json"})


@broker.task("post")  # a name of its own: what loads the tasks runs as __main__
async def post(owner: str, contact: str, op: str) -> None:
    record = {"ownerXCUserID": owner, "contactXCUserID": contact, "isDeleted": op == "delete"}
    url = os.environ["BENCH_ENDPOINT_URL"] + "/v1/server/contact/sync"
    (await _http.post(url, content=orjson.dumps({"contacts": [record]}))).raise_for_status()


async def load() -> None:
    await broker.startup()
    for line in sys.stdin:
        await post.kiq(*line.split())
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(load())
