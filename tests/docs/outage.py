"""Makes the picture of an outage, from a real run of three minutes: ``python -m tests.docs.outage``.

A Redis, a worker process with default settings, a stand-in endpoint that answers 503 for a minute, and a producer that
goes on all the while.
"""

# ruff: noqa: E501 - sentences of the page stand here as they stand there

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import redis

from producers import ContactProducer
from producers.contract.keys import Keys
from producers.contract.partitions import DEFAULT_PARTITIONS
from tests.support.worker_process import CONTACT_SYNC, WorkerProcess
from worker.local.redis import EmbeddedRedis
from worker.standin.server import StandInThread
from worker.standin.settings import DEFAULT_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
RATE, PAIRS = 200, 2_000
DOWN_AT, UP_AT, QUIET_AT, END_AT = 15.0, 75.0, 150.0, 165.0
"""Seconds after which the endpoint goes away, is back, the producer ends, and the run ends."""

Sample = dict[str, float]


def run() -> list[Sample]:
    """Lets it happen, and returns what was seen each half second."""
    with ExitStack() as undo:
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        server = undo.enter_context(EmbeddedRedis())
        stand_in = undo.enter_context(StandInThread())
        environ = {
            "CONTACT_SYNC_REDIS_URL": server.url,
            "CONTACT_SYNC_ENDPOINT_URL": stand_in.url,
            "CONTACT_SYNC_SERVER_KEY_ID": DEFAULT_KEY,
            "CONTACT_SYNC_SERVER_KEY_SECRET": DEFAULT_KEY,
        }
        undo.enter_context(WorkerProcess(environ, directory / "worker", (), CONTACT_SYNC)).wait_until_ready()
        client = undo.enter_context(redis.Redis.from_url(server.url))
        began = time.monotonic()
        threading.Thread(target=_produce, args=(server.url, began + QUIET_AT), daemon=True).start()
        samples: list[Sample] = []
        down = up = False
        while (now := time.monotonic() - began) < END_AT:
            if now >= DOWN_AT and not down:
                down = bool(stand_in.faults({"kind": "status", "status": 503}))
            if now >= UP_AT and not up:
                stand_in.remove_faults()
                up = True
            counts = stand_in.counts()
            samples.append(
                {
                    "seconds": round(now, 1),
                    "waiting": _waiting(client),
                    "requests": counts["requests"],
                    "records": counts["inserted"] + counts["deleted"],
                    "changes": sum(int(n) for n in _totals(client)),
                }
            )
            time.sleep(0.5)
        return samples


def _produce(url: str, until: float) -> None:
    chance = random.Random(0)
    with ContactProducer(url) as contacts:
        while time.monotonic() < until:
            pairs = [divmod(chance.randrange(PAIRS), 40) for _ in range(RATE // 10)]
            contacts.send(
                {"owner": str(owner), "contact": str(contact), "op": chance.choice(("upsert", "upsert", "delete"))}
                for owner, contact in pairs
            )
            time.sleep(0.1)


def _waiting(client: redis.Redis) -> int:
    keys, pipe = Keys("contact-sync"), client.pipeline(transaction=False)
    for partition in range(DEFAULT_PARTITIONS):
        pipe.xlen(keys.events(partition))
        for each in keys.pending_classes(partition):
            pipe.hlen(each)
    return sum(pipe.execute())


def _totals(client: redis.Redis) -> list[Any]:
    keys, pipe = Keys("contact-sync"), client.pipeline(transaction=False)
    for partition in range(DEFAULT_PARTITIONS):
        pipe.xinfo_stream(keys.events(partition))
    return [found["entries-added"] for found in pipe.execute(raise_on_error=False) if isinstance(found, dict)]


_WIDTH, _HEIGHT, _LEFT = 760, 130, 70


def told(samples: Sequence[Sample]) -> str:
    """The page of it, with every figure from the run."""
    at_fault = [each for each in samples if DOWN_AT <= each["seconds"] < UP_AT]
    back = next(each["seconds"] for each in samples if each["seconds"] > UP_AT + 1 and each["waiting"] < RATE)
    said = at_fault[-1]["changes"] - at_fault[0]["changes"]
    asked = at_fault[-1]["requests"] - at_fault[0]["requests"]
    said_a_second = samples[-1]["changes"] / QUIET_AT
    waited = max(each["waiting"] for each in samples)
    return f"""# An outage, second by second

<!-- Written by `python -m tests.docs.generate` from docs/images/outage.json, which `python -m tests.docs.outage` measures. -->

A real run of {END_AT:.0f} seconds: one worker with default settings, a producer that sends {said_a_second:.0f} changes a second of
{PAIRS:,} pairs, and an endpoint that answers every request with 503 from second {DOWN_AT:.0f} to second {UP_AT:.0f}.

![Changes sent, waiting, and requests over time; the outage in grey](../images/outage.svg)

- **Producers notice nothing.** They sent {said:,.0f} changes during the outage.
- **What waits is bounded by pairs.** It never exceeded {waited:,.0f}: a state for each of the {PAIRS:,} pairs, and the changes
  of the last seconds, which were not read yet. At each step down workers join what is new. So a longer outage takes no more memory.
- **The endpoint is left in peace.** It got {asked:.0f} requests in {UP_AT - DOWN_AT:.0f} seconds: one probe at a time, at growing intervals.
- **The rest is quick.** The next probe found the endpoint well, and everything was delivered {back - UP_AT:.0f} seconds after it was
  back. Nearly all of that is the wait for that probe, which grows with the length of the outage up to
  `CONTACT_SYNC_BACKOFF_MAX_SECONDS`.
"""


def drawn(samples: Sequence[Sample]) -> str:
    """The picture: three curves over the same time, the outage in grey."""
    charts = [
        ("changes sent so far", [(each["seconds"], each["changes"]) for each in samples]),
        ("waiting: entries and pairs", [(each["seconds"], each["waiting"]) for each in samples]),
        ("requests to the endpoint so far", [(each["seconds"], each["requests"]) for each in samples]),
    ]
    right = samples[-1]["seconds"]
    shapes = []
    for number, (title, points) in enumerate(charts):
        bottom, most = 40 + (number + 1) * (_HEIGHT + 40), max(y for _, y in points) or 1.0
        path = "L".join(f"{_x(x, right):.1f} {bottom - y / most * _HEIGHT:.1f}" for x, y in points)
        grey = _x(UP_AT, right) - _x(DOWN_AT, right)
        shapes += [
            (
                f'<rect x="{_x(DOWN_AT, right):.1f}" y="{bottom - _HEIGHT}" width="{grey:.1f}" height="{_HEIGHT}" '
                'fill="#eaeef2"/>'
            ),
            f'<text x="{_LEFT}" y="{bottom - _HEIGHT - 8}" font-weight="bold">{title}</text>',
            f'<path d="M{_LEFT} {bottom - _HEIGHT}V{bottom}H{_WIDTH - 20}" fill="none" stroke="#57606a"/>',
            f'<text x="{_LEFT - 6}" y="{bottom - _HEIGHT + 5}" text-anchor="end">{most:,.0f}</text>',
            f'<path d="M{path}" fill="none" stroke="#1f6feb" stroke-width="2"/>',
        ]
    foot = 40 + len(charts) * (_HEIGHT + 40)
    shapes += [
        f'<text x="{_x(second, right):.1f}" y="{foot + 18}" text-anchor="middle">{second} s</text>'
        for second in range(0, int(right) + 1, 15)
    ]
    shapes.append(f'<text x="{_x(DOWN_AT, right) + 6:.1f}" y="100" fill="#57606a">the endpoint answers 503</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {foot + 30}" font-family="sans-serif" '
        f'font-size="13"><rect width="{_WIDTH}" height="{foot + 30}" fill="white"/>{"".join(shapes)}</svg>\n'
    )


def _x(second: float, right: float) -> float:
    return _LEFT + second / right * (_WIDTH - 20 - _LEFT)


if __name__ == "__main__":
    seen = run()
    (IMAGES / "outage.json").write_text(json.dumps(seen) + "\n", encoding="utf-8")
    (IMAGES / "outage.svg").write_text(drawn(seen), encoding="utf-8")
