"""URLs of Redis: what they say, and which are refused."""

from __future__ import annotations

import pytest

from producers.nodes.url import Address, parse_redis_url


def test_a_sentinel_url_names_sentinels_a_master_and_a_database() -> None:
    parsed = parse_redis_url("redis+sentinel://me:p%40ss@one,two:26380,[::1]:5/main/3?health_check_interval=30")
    assert parsed.addresses == (Address("one", 26379), Address("two", 26380), Address("::1", 5))
    assert (parsed.kind, parsed.master) == ("sentinel", "main")
    assert parsed.single == "redis://me:p%40ss@one:26379/3?health_check_interval=30"


def test_tls_and_the_first_database_are_the_servers() -> None:
    assert parse_redis_url("rediss+sentinel://one/main").single == "rediss://one:26379/"


def test_a_cluster_url_names_some_nodes() -> None:
    parsed = parse_redis_url("rediss+cluster://me:p@one,two:7001?health_check_interval=3")
    assert (parsed.kind, parsed.addresses) == ("cluster", (Address("one", 6379), Address("two", 7001)))
    assert parsed.single == "rediss://me:p@one:6379/?health_check_interval=3"


@pytest.mark.parametrize("url", ["redis://host", "rediss://:p@host:1/2", "unix:///path?db=1", "redis://host/"])
def test_a_single_server_is_left_to_redis_py(url: str) -> None:
    assert parse_redis_url(url) == ("single", url, (), "")


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "host:6379",
        "redis://host/main",
        "unix://",
        "redis+sentinel://one,two",
        "redis+sentinel://one,two/",
        "redis+sentinel:///main",
        "redis+sentinel://one,,two/main",
        "redis+sentinel://one:0x/main",
        "redis+sentinel://one:65536/main",
        "redis+sentinel://one:26379/main/0/1",
        "redis+sentinel://one/main/first",
        "unix+sentinel://one/main",
        "redis+cluster://one/0",
        "redis+cluster://",
        "redis+sentinel:one/main",
    ],
)
def test_others_are_refused(url: str) -> None:
    with pytest.raises(
        ValueError, match=r"^(unknown scheme|the path .*|a cluster .*|a host must be NAME or NAME:PORT)$"
    ):
        parse_redis_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cr3t?@localhost",
        "redis://:s3cr3t\u2100@localhost",
        "redis://one:1,[",
        "unix://one,[/path",
        "redis+sentinel://s3cr3t[@one,two/main",
        "rediss+cluster://s3cr3t\u2100@one:1,two:2",
    ],
)
def test_what_no_client_can_be_made_of_is_refused_and_the_error_repeats_nothing_of_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(it is not a URL|the user, password, host or port is invalid)$"):
        parse_redis_url(url)
