"""celery-batches: Celery gathers the messages of a task, 500 at a time or once a second, as its documentation shows."""

from __future__ import annotations

import os
import sys

import httpx
import orjson
from celery import Celery
from celery_batches import Batches

BATCH_SIZE = int(os.environ.get("BENCH_BATCH_SIZE", "500"))

app = Celery("celery_batches_app", broker=os.environ["BENCH_REDIS_URL"])
# Its documentation: the prefetch must be larger than flush_every, or batches never fill.
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=2 * BATCH_SIZE)
_http = httpx.Client(headers={"Server-Key": "key", "Content-Type": "application/json"})


@app.task(base=Batches, flush_every=BATCH_SIZE, flush_interval=1)
def post(requests: list) -> None:
    folded = {(request.args[0], request.args[1]): request.args[2] for request in requests}
    contacts = [
        {"ownerXCUserID": owner, "contactXCUserID": contact, "isDeleted": op == "delete"}
        for (owner, contact), op in folded.items()
    ]
    url = os.environ["BENCH_ENDPOINT_URL"] + "/v1/server/contact/sync"
    _http.post(url, content=orjson.dumps({"contacts": contacts})).raise_for_status()


if __name__ == "__main__":
    with app.producer_pool.acquire(block=True) as producer:
        for line in sys.stdin:
            post.apply_async(line.split(), producer=producer)
