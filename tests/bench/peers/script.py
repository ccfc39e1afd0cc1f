"""The peer to beat: what a capable user writes in an afternoon. One stream, one loop: read, fold, post, ack.

Written with what `pip install 'redis[hiredis]' httpx` gives. It loses the order of changes at the first retry, and what
it had in hand at the first crash: nothing reads the entries again that were delivered to a consumer that died.
"""

from __future__ import annotations

import os
from contextlib import suppress

import httpx
import redis

STREAM, GROUP, ME = "bench:events", "contacts", f"script-{os.getpid()}"


def main() -> None:
    log = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"], decode_responses=True)
    url = os.environ["BENCH_ENDPOINT_URL"] + "/v1/server/contact/sync"
    batch_size = int(os.environ.get("BENCH_BATCH_SIZE", "500"))
    with suppress(redis.ResponseError):  # it is there already
        log.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    with httpx.Client(headers={"Server-Key": "key"}) as http:
        while True:
            reply = log.xreadgroup(GROUP, ME, {STREAM: ">"}, count=batch_size, block=1000)
            if not reply:
                continue
            entries = reply[0][1]
            folded = {}
            for _, change in entries:
                folded[change["owner"], change["contact"]] = change["op"]
            contacts = [
                {"ownerXCUserID": owner, "contactXCUserID": contact, "isDeleted": op == "delete"}
                for (owner, contact), op in folded.items()
            ]
            answer = http.post(url, json={"contacts": contacts})
            answer.raise_for_status()
            if answer.json()["status"] == 200:
                pipe = log.pipeline(transaction=False)
                ids = [entry_id for entry_id, _ in entries]
                pipe.xack(STREAM, GROUP, *ids)
                pipe.xdel(STREAM, *ids)
                pipe.execute()


if __name__ == "__main__":
    main()
