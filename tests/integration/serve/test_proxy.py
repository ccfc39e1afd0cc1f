"""`serve` behind a real proxy on the same machine, set up as docs/how-to/page.md says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.nginx import nginx
from tests.support.serving import OPERATOR, OURS, TOKENS, serving

if TYPE_CHECKING:
    from tests.support.fleet import Fleet

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "page.md").read_text(encoding="utf-8")
(DOCUMENTED,) = re.findall(r"`(proxy_set_header Host [^`]+;)`", PAGE)
NAME = "sync.example.com"


def answers(fleet: Fleet, directives: str, names: str, origin: str) -> list[int]:
    """The statuses of the page, a sign-in and a request that acts, as a browser sends them through the proxy."""
    with (
        serving(fleet, TOKENS, serve_hosts=names) as direct,
        nginx(str(direct.base_url).rstrip("/"), directives) as path,
    ):
        headers = {**OURS, "origin": origin, "sec-fetch-site": "same-origin"}
        transport = httpx.HTTPTransport(uds=path)
        with httpx.Client(transport=transport, base_url=origin.replace("https", "http"), headers=headers) as browser:
            return [
                browser.get("/").status_code,
                browser.post("/api/sign-in", json={"token": OPERATOR}).status_code,
                browser.post("/api/dead-letters/redrive", json={"all": True}).status_code,
            ]


@pytest.mark.parametrize(
    "directives",
    [DOCUMENTED, "", "proxy_set_header Host $http_host;"],
    ids=["as documented", "Host replaced", "Host with its port"],
)
@pytest.mark.parametrize("origin", [f"https://{NAME}", f"https://{NAME}:8443", f"http://{NAME.upper()}"])
def test_behind_a_proxy_whose_name_is_set_people_sign_in_and_act(fleet: Fleet, directives: str, origin: str) -> None:
    assert answers(fleet, directives, f"other.example.com, {NAME}", origin) == [200, 200, 200]


def test_a_name_that_is_not_set_is_refused(fleet: Fleet) -> None:
    assert answers(fleet, DOCUMENTED, "", f"https://{NAME}") == [421, 421, 421]
    assert answers(fleet, DOCUMENTED, "other.example.com", f"https://{NAME}") == [421, 421, 421]
    assert answers(fleet, "", "other.example.com", f"https://{NAME}")[1:] == [403, 403]


def test_a_page_of_another_site_cannot_act_through_the_proxy(fleet: Fleet) -> None:
    with (
        serving(fleet, TOKENS, serve_hosts=NAME) as direct,
        nginx(str(direct.base_url).rstrip("/"), DOCUMENTED) as path,
    ):
        headers = {**OURS, "authorization": f"Bearer {OPERATOR}", "origin": "https://evil.example"}
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=path), base_url=f"http://{NAME}", headers=headers
        ) as client:
            assert client.post("/api/dead-letters/redrive", json={"all": True}).status_code == 403
