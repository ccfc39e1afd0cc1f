"""URLs of Redis: what is taken must be one that a client can be made of."""

from __future__ import annotations

from typing import Final

from producers.contract.errors import SettingsError
from producers.nodes.connect import async_pool_options, cluster_client, is_cluster, pool_options
from producers.nodes.url import parse_redis_url
from producers.settings import check_redis_url
from tests.fuzz.target import Target, one_line, shows_secret


def run(data: bytes) -> str:
    """The URL, in UTF-8 as an environment holds it."""
    url = data.decode("utf-8", "surrogateescape")
    try:
        check_redis_url(url, "CONTACT_SYNC_REDIS_URL")
    except SettingsError as error:
        one_line(error)
        assert not shows_secret(error, url), "an error shows the password"  # noqa: PT017 - any input, and no test
        return "refused by a rule"
    except ValueError as error:
        assert not shows_secret(error, url), "an error shows the password"  # noqa: PT017 - any input, and no test
        return "no URL of Redis"
    parsed = parse_redis_url(url)
    assert parsed.single.startswith(("redis://", "rediss://", "unix://"))
    assert (parsed.kind == "single") is not bool(parsed.addresses)
    assert (parsed.kind == "sentinel") is bool(parsed.master)
    for host, port in parsed.addresses:
        assert host
        assert 0 <= port <= 65_535
    if is_cluster(url):
        cluster_client(url).close()
    else:
        pool_options(url)
        async_pool_options(url)
    return parsed.kind


TARGET: Final = Target(
    "urls",
    "a URL of Redis",
    run,
    frozenset({"refused by a rule", "no URL of Redis", "single", "sentinel", "cluster"}),
    [
        b"redis://localhost:6379/0",
        b"rediss://user:s3cr3t@redis.example:6380/3?ssl_cert_reqs=required",
        b"unix:///run/redis.sock?db=2",
        b"redis+sentinel://:s3cr3t@a:26379,[::1]:26380,c/mymaster/2?sentinel_password=s3cr3t",
        b"rediss+cluster://a:1,b:2,[fe80::1]:3?health_check_interval=5",
        b"redis://:s3cr3t?@localhost",
        b"http://x",
    ],
    [
        b"redis://",
        b"rediss://",
        b"unix://",
        b"redis+sentinel://",
        b"rediss+sentinel://",
        b"redis+cluster://",
        b"[::1]",
        b"?db=",
        b"&health_check_interval=",
        b"?ssl_cert_reqs=",
        b"ssl_check_hostname=true",
        b"sentinel_username=",
        b"%2F",
        b"s3cr3t",
        b"@",
        b":6379",
        b"%ff",
        b"\xc2\xad",
        b"\xe2\x84\x80",
        b"\t",
        b"#",
        b"?",
        b",",
        b"/0",
    ],
    256,
)
