"""Who gets what from `serve`: tokens, roles, cookies, foreign pages, foreign names, and input of any kind."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.commands import dead_letter
from tests.support.serving import OPERATOR, READER, TOKENS, metrics, serving, sign_in
from worker.config.serve import Tokens
from worker.serve.access import COOKIE, SESSION_SECONDS, Access
from worker.serve.params import BODY_MAX_BYTES

if TYPE_CHECKING:
    from tests.support.fleet import Fleet

LOOKS = (
    *("/api/status", "/api/history", "/api/audit", "/api/dead-letters", "/api/explain?owner=1&contact=2"),
    *("/metrics", "/api/workers-wanted"),
)
ACTS = ("/api/dead-letters/redrive", "/api/dead-letters/purge")
ANY = ("/", "/api/status", "/api/status/", "/metrics/?a=b", "/no/such/page")
FREE = ("/", "/page.js", "/page.css", "/chart.js", "/icon.svg", "/healthz", "/readyz", "/api/session")


def test_without_a_sign_in_only_what_tells_nothing_is_told(fleet: Fleet) -> None:
    with serving(fleet, TOKENS) as client:
        assert {path: client.get(path).status_code for path in LOOKS} == dict.fromkeys(LOOKS, 401)
        assert {path: client.post(path, json={"all": True}).status_code for path in ACTS} == dict.fromkeys(ACTS, 401)
        assert {path: client.get(path).status_code for path in FREE} == dict.fromkeys(FREE, 200)
        assert client.get("/api/session").json() == {"role": None, "sign_in": True}


@pytest.mark.parametrize(("token", "role"), [(OPERATOR, "operator"), (READER, "reader")])
def test_a_token_signs_in_by_cookie_or_as_a_bearer(token: str, role: str, fleet: Fleet) -> None:
    acts = 200 if role == "operator" else 403
    with serving(fleet, TOKENS) as client:
        bearer = {"authorization": f"Bearer {token}"}
        assert metrics(client, **bearer)["contact_sync_redis_up"] == 1
        assert client.post(ACTS[0], json={"all": True}, headers=bearer).status_code == acts
        assert client.get("/api/status").status_code == 401
        sign_in(client, token)
        assert client.get("/api/session").json() == {"role": role, "sign_in": True}
        assert {path: client.get(path).status_code for path in LOOKS} == dict.fromkeys(LOOKS, 200)
        assert {path: client.post(path, json={"all": True}).status_code for path in ACTS} == dict.fromkeys(ACTS, acts)
        assert client.post("/api/sign-out").status_code == 200
        assert client.get("/api/status").status_code == 401


def test_a_reader_changes_nothing(fleet: Fleet) -> None:
    letter = dead_letter(fleet)
    with serving(fleet, TOKENS) as client:
        sign_in(client, READER)
        for path in ACTS:
            assert client.post(path, json={"ids": [letter]}).json()["error"] == "read_only"
    assert [each["id"] for each in fleet.dead_letters()] == [letter]


@pytest.mark.parametrize(
    "token", ["", "x", OPERATOR[:-1], OPERATOR + "x", OPERATOR.upper(), "\x00", "é" * 20, 7, None, []]
)
def test_a_wrong_token_opens_nothing_and_is_not_repeated(token: object, fleet: Fleet) -> None:
    with serving(fleet, TOKENS) as client:
        answer = client.post("/api/sign-in", json={"token": token})
        assert (answer.status_code, answer.json()["error"]) == (401, "wrong_token")
        assert "set-cookie" not in answer.headers
        raw = f"Bearer {token}".encode("utf-8", "replace").replace(b"\0", b"")
        assert client.get("/api/status", headers={b"authorization": raw.strip()}).status_code == 401


def test_where_no_token_is_set_none_signs_in(fleet: Fleet) -> None:
    with serving(fleet) as client:
        assert client.get("/api/session").json() == {"role": "operator", "sign_in": False}
        assert client.post("/api/sign-in", json={"token": ""}).status_code == 401


def test_the_cookie_is_for_this_site_alone_and_for_no_script(fleet: Fleet) -> None:
    with serving(fleet, TOKENS) as client:
        answer = client.post("/api/sign-in", json={"token": OPERATOR})
    attributes = {each.strip().lower() for each in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", f"max-age={SESSION_SECONDS}"} <= attributes
    assert OPERATOR not in answer.headers["set-cookie"]


def test_a_cookie_ends_with_its_time_and_with_its_token_and_cannot_be_made_up() -> None:
    now = 1_800_000_000.0
    access = Access(TOKENS, "127.0.0.1", loopback=True)
    good = access.session_cookie("reader", now)

    def role(value: str, *, of: Access = access, at: float = now) -> str | None:
        return of.role({"cookie": f"{COOKIE}={value}"}, at)

    assert role(good) == "reader"
    assert role(good, at=now + SESSION_SECONDS - 1) == "reader"
    assert role(good, at=now + SESSION_SECONDS) is None
    assert role(good, of=Access(Tokens(OPERATOR, "another-token-16"), "127.0.0.1", loopback=True)) is None
    assert role(good, of=Access(Tokens(OPERATOR, READER), "127.0.0.1", loopback=False)) == "reader"
    name, until, mac = good.split(".")
    for made_up in (
        f"operator.{until}.{mac}",
        f"{name}.{int(until) + 1}.{mac}",
        f"{name}.{until}.{'0' * 64}",
        f"{name}.{until}.",
        f"{name}.{until}.{mac[:-1]}é",
        f"{name}.-1.{mac}",
        "..",
        ".",
        "",
        "operator",
        '"',
    ):
        assert role(made_up) is None, made_up


# Foreign pages and foreign names


@pytest.mark.parametrize(
    "headers",
    [
        {"x-contact-sync": ""},  # see below: none at all
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "file://{host}"},
        {"origin": "://{host}"},
        {"origin": "chrome-extension://{host}"},
        {"origin": "file://"},
        {"origin": "http://"},
        {"origin": "http:///{host}"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_what_acts_must_come_from_our_own_page(headers: dict[str, str], fleet: Fleet) -> None:
    letter = dead_letter(fleet)
    with serving(fleet) as client:
        if headers == {"x-contact-sync": ""}:
            headers = {}
            del client.headers["x-contact-sync"]
        headers = {name: value.replace("{host}", client.base_url.netloc.decode()) for name, value in headers.items()}
        for path in (*ACTS, "/api/sign-in", "/api/sign-out"):
            answer = client.post(path, json={"ids": [letter]}, headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (403, "foreign")
    assert len(fleet.dead_letters()) == 1


@pytest.mark.parametrize("origin", ["null", "file://", "http://", ""])
def test_an_origin_without_a_name_is_foreign_even_if_no_host_is_named(origin: str) -> None:
    access = Access(TOKENS, "", loopback=False)
    assert not access.is_same_origin({"host": "", "x-contact-sync": "1", "origin": origin})


def test_our_own_page_may_act(fleet: Fleet) -> None:
    with serving(fleet) as client:
        own = {"origin": str(client.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
        assert client.post(ACTS[0], json={"all": True}, headers=own).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8090", "127.0.0.1.evil.example", "", "[", "10.0.0.1"])
def test_on_this_machine_alone_no_foreign_name_is_answered(host: str, fleet: Fleet) -> None:
    with serving(fleet) as client:
        for method, path in (*(("GET", path) for path in ANY), ("POST", "/metrics"), ("GET", ACTS[0])):
            answer = client.request(method, path, headers={"host": host})
            assert answer.status_code in {421, 400}, (path, answer.text)
            assert answer.status_code == 400 or "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("host", ["localhost:8090", "127.0.0.1:9", "LOCALHOST", "[::1]:8090"])
def test_a_tunnel_may_have_another_port(host: str, fleet: Fleet) -> None:
    with serving(fleet) as client:
        assert client.get("/api/status", headers={"host": host}).status_code == 200


def test_for_other_machines_any_name_will_do(fleet: Fleet) -> None:
    with serving(fleet, TOKENS, loopback=False) as client:
        assert client.get("/readyz", headers={"host": "contacts.example"}).status_code == 200


def test_every_answer_says_what_may_be_done_with_it(fleet: Fleet) -> None:
    with serving(fleet) as client:
        for path in (*FREE, *LOOKS, *ANY):
            headers = client.get(path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["x-frame-options"] == "DENY"


def test_the_page_needs_nothing_from_elsewhere_and_runs_no_inline_script(fleet: Fleet) -> None:
    with serving(fleet) as client:
        page, script = client.get("/").text, client.get("/page.js").text + client.get("/chart.js").text
    assert "http://" not in page + script.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page + script
    assert "<script>" not in page
    assert "style=" not in page
    assert " on" not in page.replace(" one", "").replace(" only", "").lower().partition("<body>")[0]
    assert not {
        word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write") if word in script
    }


# Input of any kind


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/api/explain", 400, "bad_owner"),
        ("/api/explain?owner=1", 400, "bad_contact"),
        ("/api/explain?owner=&contact=2", 400, "bad_owner"),
        ("/api/explain?owner=%00&contact=2", 400, "bad_owner"),
        ("/api/explain?owner=%ff&contact=2", 400, "bad_owner"),
        ("/api/explain?owner=1&contact=" + "x" * 257, 400, "bad_contact"),
        ("/api/explain?owner=1&contact=" + "x" * 5000, 413, "too_large"),
        ("/api/explain?owner=1&owner=2&contact=3", 400, "bad_query"),
        ("/api/explain?owner=1&contact=2&x=y", 400, "bad_query"),
        ("/api/status?x=y", 400, "bad_query"),
        ("/api/dead-letters?skip=-1", 400, "bad_skip"),
        ("/api/dead-letters?skip=1e9", 400, "bad_skip"),
        ("/api/dead-letters?skip=99999999999999999999", 400, "bad_skip"),
        ("/api/dead-letters?skip=%D9%A3", 400, "bad_skip"),
        ("/api/dead-letters?reason=A%20B", 400, "bad_reason"),
        ("/api/dead-letters?owner=" + "x" * 300, 400, "bad_owner"),
        ("/api/no-such", 404, "not_found"),
        ("/api/status/", 404, "not_found"),
        ("/metrics/?a=b", 404, "not_found"),
        ("/../../etc/passwd", 404, "not_found"),
        ("/%2e%2e/secret", 404, "not_found"),
        ("/page.html", 404, "not_found"),
        ("/api/dead-letters/purge", 405, "not_allowed"),
    ],
)
def test_a_wild_query_is_refused_by_its_name(path: str, status: int, error: str, fleet: Fleet) -> None:
    with serving(fleet) as client:
        answer = client.get(path)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert "Traceback" not in answer.text
    assert len(answer.content) < 500  # what was sent is not repeated


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 400, "bad_json"),
        (b"[]", 400, "bad_json"),
        (b"{", 400, "bad_json"),
        (b"\xff\xfe", 400, "bad_json"),
        (b"[" * 100_000, 400, "bad_json"),
        (b'{"ids": []}', 400, "bad_ids"),
        (b'{"ids": "1-2"}', 400, "bad_ids"),
        (b'{"ids": ["nonsense"]}', 400, "bad_ids"),
        (b'{"ids": [7]}', 400, "bad_ids"),
        (b'{"ids": ["999999-1"]}', 400, "bad_ids"),
        (b'{"ids": ["1-2"], "all": true}', 400, "bad_body"),
        (b"{}", 400, "bad_body"),
        (b'{"all": false}', 400, "bad_body"),
        (b'{"all": 1}', 400, "bad_body"),
        (b'{"owner": "1"}', 400, "bad_body"),
        (b'{"all": true, "owner": 7}', 400, "bad_owner"),
        (b'{"all": true, "owner": null}', 400, "bad_owner"),
        (b'{"all": true, "reason": ["x"]}', 400, "bad_reason"),
        (b'{"all": true, "contact": "\\ud800"}', 400, "bad_json"),
        (b" " * (BODY_MAX_BYTES + 1), 413, "too_large"),
    ],
)
def test_a_body_that_does_not_say_what_to_do_does_nothing(body: bytes, status: int, error: str, fleet: Fleet) -> None:
    letter = dead_letter(fleet)
    with serving(fleet) as client:
        for path in ACTS:
            answer = client.post(path, content=body, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert [each["id"] for each in fleet.dead_letters()] == [letter]


def test_a_form_is_no_json(fleet: Fleet) -> None:
    with serving(fleet) as client:
        answer = client.post(ACTS[1], content=b'{"all": true}', headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]) == (415, "bad_type")


def test_a_header_of_any_size_ends_no_process(fleet: Fleet) -> None:
    with serving(fleet) as client:
        with suppress(httpx.TransportError):  # it may be cut off while it is still being sent
            assert client.get("/healthz", headers={"cookie": "x" * 200_000}).status_code in {400, 431}
        assert client.get("/healthz").status_code == 200
