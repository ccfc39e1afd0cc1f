"""The benchmark's endpoint: answers at once, or after a latency, and counts; a process of its own.

It looks at no record, so that it is never the bottleneck (its ceiling is measured, too): the records of a request are
counted by the name of a field, in C. `GET /counts` tells what came; `GET /begin/20` forgets it and takes 20 ms from
then on; `GET /watch` reads contacts as the microsecond at which they were said, and keeps how long ago that was.
`GET /limit/20` allows 20 requests a second from then on, 0 any number; `GET /knee/8` doubles the latency above 8.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import time
from collections import Counter

from worker.standin.settings import RateLimit

_SAID = re.compile(rb'contactXCUserID":"(\d{16})"')
ANSWER = b'{"status":200,"error":{"code":"","message":"","field":""},"data":{"countInserted":0,"countDeleted":0}}'


LIMITED = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: %d\r\ncontent-length: 0\r\n\r\n"


def _http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class Counts:
    """What came since the beginning: requests, records, and the times of the first request and the last answer."""

    def __init__(self) -> None:
        self.answer = _http(ANSWER)
        self.begin(0.0)

    def begin(self, latency_seconds: float) -> None:
        self.latency_seconds = latency_seconds
        self.watches = False
        self.waits: list[int] = []
        self.requests = self.records = self.in_flight = self.most_in_flight = self.limited = self.knee = 0
        self.limit: RateLimit | None = None
        self.a_second: Counter[int] = Counter()
        self.first = self.last = 0.0
        self.cpu = time.process_time()

    def body(self) -> bytes:
        names = ("requests", "records", "first", "last", "most_in_flight", "in_flight", "limited")
        counted = {name: getattr(self, name) for name in names}
        counted["a_second"] = [self.a_second[second] for second in range(max(self.a_second, default=-1) + 1)]
        return json.dumps(counted | {"cpu": time.process_time() - self.cpu, "waits": self.waits}).encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time, as HTTP/1.1 has it."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._held = bytearray()
        self._transport: asyncio.Transport | None = None
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        if len(self._held) < self._missing:
            return
        head = self._held.find(b"\r\n\r\n")
        if head < 0:
            return
        lowered = bytes(self._held[:head]).lower()
        _, _, after = lowered.partition(b"content-length:")
        length = int(after.split(b"\r\n", 1)[0]) if after else 0
        self._missing = head + 4 + length
        if len(self._held) < self._missing:
            return
        body, self._held, self._missing = bytes(self._held[head + 4 :]), bytearray(), 0
        self._take(lowered.split(b" ", 2)[1].decode(), body)

    def _take(self, path: str, body: bytes) -> None:
        counts = self._counts
        if path.startswith("/begin/"):
            counts.begin(float(path.rpartition("/")[2]) / 1000)
            self._write(_http(b"{}"))
        elif path == "/watch":
            counts.watches = True
            self._write(_http(b"{}"))
        elif path.startswith("/limit/"):
            rate = float(path.rpartition("/")[2])
            counts.limit = RateLimit(rate, time.monotonic) if rate else None
            self._write(_http(b"{}"))
        elif path.startswith("/knee/"):
            counts.knee = int(path.rpartition("/")[2])
            self._write(_http(b"{}"))
        elif path == "/counts":
            self._write(_http(counts.body()))
        else:
            now = time.time()
            if counts.limit is not None and (wait := counts.limit.take()):
                counts.limited += 1
                counts.requests += 1
                self._write(LIMITED % wait)
                return
            records = body.count(b"contactXCUserID")
            if counts.watches:
                counts.waits += [int(now * 1e6) - int(said) for said in _SAID.findall(body)]
            counts.first = counts.first or now
            counts.requests += 1
            counts.a_second[int(now - counts.first)] += 1
            counts.records += records
            counts.in_flight += 1
            counts.most_in_flight = max(counts.most_in_flight, counts.in_flight)
            if counts.latency_seconds:
                slower = 2 if 0 < counts.knee < counts.in_flight else 1
                asyncio.get_running_loop().call_later(slower * counts.latency_seconds, self._answer)
            else:
                self._answer()

    def _answer(self) -> None:
        self._counts.in_flight -= 1
        self._counts.last = time.time()
        self._write(self._counts.answer)

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


async def serve(port: int) -> None:
    """Serves until the process ends; says its port on standard output first."""
    counts = Counts()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(counts), "127.0.0.1", port, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - read by who started us
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    gc.disable()
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
