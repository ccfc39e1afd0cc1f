"""FastStream: a subscriber that takes a stream in batches, with a consumer group, as its documentation shows."""

from __future__ import annotations

import os

import httpx
import orjson
from faststream import FastStream
from faststream.redis import RedisBroker, StreamSub

BATCH_SIZE = int(os.environ.get("BENCH_BATCH_SIZE", "500"))

broker = RedisBroker(os.environ["BENCH_REDIS_URL"], logger=None)
app = FastStream(broker, logger=None)
_http = httpx.AsyncClient(headers={"Server-Key": "key", "Content-Type": "application/json"})


@broker.subscriber(
    stream=StreamSub("bench:events", group="contacts", consumer="one", batch=True, max_records=BATCH_SIZE, last_id=">")
)
async def post(changes: list[dict]) -> None:
    folded = {(change["owner"], change["contact"]): change["op"] for change in changes}
    contacts = [
        {"ownerXCUserID": owner, "contactXCUserID": contact, "isDeleted": op == "delete"}
        for (owner, contact), op in folded.items()
    ]
    url = os.environ["BENCH_ENDPOINT_URL"] + "/v1/server/contact/sync"
    (await _http.post(url, content=orjson.dumps({"contacts": contacts}))).raise_for_status()


if __name__ == "__main__":
    import asyncio

    asyncio.run(app.run())
