"""arq: a job per change, with its defaults, as its documentation shows."""

from __future__ import annotations

import asyncio
import os
import sys

import httpx
import orjson
from arq import create_pool
from arq.connections import RedisSettings

QUIET = {"version": 1, "disable_existing_loggers": False, "loggers": {"arq": {"level": "WARNING"}}}
_REDIS = RedisSettings.from_dsn(os.environ["BENCH_REDIS_URL"])


async def post(ctx: dict, owner: str, contact: str, op: str) -> None:
    record = {"ownerXCUserID": owner, "contactXCUserID": contact, "isDeleted": op == "delete"}
    url = os.environ["BENCH_ENDPOINT_URL"] + "/v1/server/contact/sync"
    (await ctx["http"].post(url, content=orjson.dumps({"contacts": [record]}))).raise_for_status()


async def startup(ctx: dict) -> None:
    ctx["http"] = httpx.AsyncClient(headers={"Server-Key": "key", "Content-Type": "application/json"})


class WorkerSettings:
    functions = (post,)
    on_startup = startup
    redis_settings = _REDIS
    keep_result = 0


async def load() -> None:
    pool = await create_pool(_REDIS)
    for line in sys.stdin:
        await pool.enqueue_job("post", *line.split())


if __name__ == "__main__":
    asyncio.run(load())
