"""Requests to `serve`: query, headers and body, up to what an action is called with."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request

from producers.contract.change import id_fault
from tests.fuzz.target import Target, one_line
from worker.config.serve import Tokens
from worker.serve.access import Access
from worker.serve.params import body_of, filters_of, id_of, number_of, query_of, wanted_of
from worker.serve.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from worker.store.dead_letters import Wanted

_TOKEN: Final = "0123456789abcdef"
_ACCESS: Final = tuple(
    Access(Tokens(_TOKEN, None), "127.0.0.1", loopback=loopback, proxied=frozenset({"page.example"}))
    for loopback in (True, False)
)
_NOT_A_TARGET: Final = re.compile(rb"[^\x21-\x7e]")
"""The server refuses a request with such a byte in its target before we see it."""
_LOOP: Final = asyncio.new_event_loop()


def _request(data: bytes) -> Request:
    """A line with the query, a line for each header, a blank line and the body; as a server passes them on."""
    head, _, body = data.partition(b"\n\n")
    query, *lines = head.split(b"\n")
    query = _NOT_A_TARGET.sub(b"", query)
    headers = [(name.lower().strip(), value) for name, _, value in (line.partition(b": ") for line in lines)]
    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": "/api/dead-letters",
        "query_string": query,
        "headers": headers,
        "server": ("127.0.0.1", 8787),
    }
    chunks = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(chunks, {"type": "http.disconnect"})

    return Request(scope, receive)


def _now(coroutine: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    return _LOOP.run_until_complete(coroutine)


def _check(wanted: Wanted) -> None:
    for each in (wanted.owner, wanted.contact):
        assert each is None or id_fault(each.encode()) is None


def _act(request: Request) -> str:
    params = query_of(request, "owner", "contact", "reason", "skip")
    assert 0 <= number_of(params, "skip") <= 1_000_000
    _check(filters_of(params))
    if "content-type" not in request.headers:
        for name in ("owner", "contact"):
            assert id_fault(id_of(params, name).encode()) is None
        return "explains"
    _check(wanted_of(_now(body_of(request))))
    return "acts"


def run(data: bytes) -> str:
    """Everything that reads a request, as the paths of the page do."""
    request = _request(data)
    for access in _ACCESS:
        access.is_known_host(request.headers.get("host", ""))
        access.is_same_origin(request.headers)
        if access.role(request.headers, 0.0) is not None:
            assert _TOKEN in request.headers.get("authorization", ""), "let in without the token"
    try:
        return _act(request)
    except Refused as refused:
        one_line(refused.message)
        assert 400 <= refused.status <= 499  # noqa: PT017 - what is checked is any input, and this no test
        return f"refused {refused.status} {refused.error}"


_JSON: Final = b"\nContent-Type: application/json\n\n"

TARGET: Final = Target(
    "params",
    "a request to serve: query, headers, body",
    run,
    frozenset({"acts", "explains", "refused 413 too_large", "refused 415 bad_type"})
    | {f"refused 400 {each}" for each in ("bad_query", "bad_skip", "bad_owner", "bad_contact", "bad_reason")}
    | {f"refused 400 {each}" for each in ("bad_ids", "bad_body", "bad_json")},
    [
        b"owner=1&contact=2",
        b"owner=%C3%A9&contact=2&skip=7&reason=refused" + _JSON + b'{"all":true,"owner":"1","reason":"bad_op"}',
        b"" + _JSON + b'{"ids":["17-3"]}',
        b"skip=x",
        b"owner=1&owner=2",
        b"owner=%FF",
        b"reason=X",
        b"owner=1\nHost: [::1]:8787\nAuthorization: Bearer 0123456789abcdef",
        b"\nCookie: contact_sync_session=operator.9.0\nOrigin: http://page.example\nX-Contact-Sync: 1" + _JSON + b"[]",
        b"a" * 4097,
        b"\nContent-Type: text/plain\n\n",
        b"" + _JSON + b'{"ids":[]}',
        b"" + _JSON + b"{}",
    ],
    [
        b"owner=",
        b"contact=",
        b"reason=",
        b"skip=",
        b"&",
        b"%00",
        b"%ED%A0%80",
        b"+",
        _JSON,
        b'"all":true',
        b'"ids":[',
        b'"owner":',
        b'"reason":',
        b"\\ud800",
        b"\nHost: ",
        b"\nOrigin: ",
        b"\nCookie: ",
        b"\nAuthorization: Bearer ",
        b"\nSec-Fetch-Site: ",
        b"\nX-Contact-Sync: 1",
        b"contact_sync_session=",
        b"operator.",
        b"http://",
        b"[",
    ],
    4200,
)
