"""Whoever we speak TLS with shows a certificate that we trust and that is for the host we mean, or hears nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import redis
from celery import Celery

from producers import AsyncContactProducer, ContactProducer, NotAccepted
from producers.contract.errors import SettingsError
from producers.nodes.url import Address
from producers.settings import ProducerSettings
from tests.security.authority import Authority, TlsRedis
from tests.support.commands import run, told
from tests.support.raw_server import Connection, RawServer, http
from tests.support.sentinels import MASTER, one_sentinel
from tests.support.waiting import wait_until
from tests.support.worker_process import PREFORK, THREADS, WorkerProcess, wait_until_delivered
from worker.config.settings import WorkerSettings
from worker.core.outcome import Answer, NoAnswer
from worker.delivery.endpoint import Endpoint
from worker.store.client import connect

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fleet import Fleet
    from worker.local.redis import EmbeddedRedis

pytestmark = pytest.mark.timeout(120)

# Redis: the log


def test_the_logs_certificate_must_be_of_the_authority_and_for_the_host(
    redis_server: EmbeddedRedis, ours: Authority, another: Authority
) -> None:
    with (
        TlsRedis(redis_server.url, ours.serving("127.0.0.1")) as right,
        TlsRedis(redis_server.url, ours.serving("elsewhere.example")) as elsewhere,
    ):
        with connect(right.url(f"ssl_ca_certs={ours.path}")) as client:
            assert client.ping()
        for url in (
            right.url(),
            right.url(f"ssl_ca_certs={another.path}"),
            elsewhere.url(f"ssl_ca_certs={ours.path}"),
        ):
            with connect(url) as client, pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
                client.ping()


def test_producers_verify_too(redis_server: EmbeddedRedis, ours: Authority, another: Authority, namespace: str) -> None:
    with TlsRedis(redis_server.url, ours.serving("127.0.0.1")) as server:

        def producer(query: str) -> ContactProducer:
            settings = ProducerSettings(redis_url=server.url(query), namespace=namespace)
            return ContactProducer(settings=settings)

        with producer(f"ssl_ca_certs={another.path}") as refusing, pytest.raises(NotAccepted, match="CERTIFICATE"):
            refusing.upsert("1", "2")
        with producer(f"ssl_ca_certs={ours.path}") as trusting:
            assert trusting.upsert("1", "2")


OFF = [
    *("ssl_cert_reqs=none", "ssl_cert_reqs=optional", "ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs="),
    *("ssl_check_hostname=false", "ssl_check_hostname=0", "ssl_check_hostname=False", "ssl_check_hostname="),
    *("ssl_cert_reqs=required&ssl_cert_reqs=none", "ssl_ca_certs=/x&ssl%5Fcert_reqs=none"),
]


@pytest.mark.parametrize("query", OFF)
@pytest.mark.parametrize("variable", ["redis_url", "broker_url"])
def test_a_url_cannot_switch_verification_off(variable: str, query: str) -> None:
    given = {variable: f"rediss://me:hunter2@redis.example/0?{query}"}
    with pytest.raises(SettingsError, match=f"CONTACT_SYNC_{variable.upper()} must not switch off") as refused:
        WorkerSettings.model_validate(given)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["amqps://h//?ssl_cert_reqs=none", "rediss://a/1;rediss://b/1?ssl_cert_reqs=none"])
def test_nor_can_that_of_any_other_broker(url: str) -> None:
    with pytest.raises(SettingsError, match="CONTACT_SYNC_BROKER_URL must not switch off"):
        WorkerSettings(broker_url=url)


# Redis: the broker


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rediss://h/1", "rediss://h/1?ssl_cert_reqs=required"),
        ("rediss://h/1?ssl_cert_reqs=required", "rediss://h/1?ssl_cert_reqs=required"),
        (
            "rediss://a/1;redis://b/1;rediss://c/1",
            "rediss://a/1?ssl_cert_reqs=required;redis://b/1;rediss://c/1?ssl_cert_reqs=required",
        ),
    ],
)
def test_the_broker_is_told_to_verify(url: str, expected: str) -> None:
    assert WorkerSettings(broker_url=url).celery_broker_url == expected
    assert WorkerSettings(redis_url=url).celery_broker_url == expected if ";" not in url else True


def test_the_broker_is_told_whom_to_trust(ours: Authority) -> None:
    url = f"rediss://h/1?ssl_ca_certs={ours.path}&ssl_check_hostname=true"
    assert WorkerSettings(broker_url=url).celery_broker_url == f"{url}&ssl_cert_reqs=required"


@pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])
def test_a_worker_delivers_by_tls_alone(
    process_fleet: Fleet, redis_server: EmbeddedRedis, ours: Authority, tmp_path: Path, options: tuple[str, ...]
) -> None:
    query = f"ssl_ca_certs={ours.path}"
    with TlsRedis(redis_server.url, ours.serving("127.0.0.1")) as server:
        environment = process_fleet.environment(redis_url=server.url(query), broker_url=server.url(query, database=1))
        with WorkerProcess(environment, tmp_path / "worker", options) as worker:
            worker.wait_until_ready()
            process_fleet.append("1", "2", "upsert")
            wait_until_delivered(process_fleet)
            assert "broker_away" not in worker.said()
            assert worker.end() == 0
        assert server.greeted
        ran = told(process_fleet, "check", redis_url=server.url(query))
        assert {each["name"]: each["severity"] for each in ran["checks"]}["broker"] == "ok"
    assert process_fleet.stand_in.contacts() == {("1", "2")}


@pytest.mark.parametrize("query", ["", "ssl_ca_certs={another}"], ids=["nobody named", "another named"])
def test_a_worker_leaves_no_hint_with_a_broker_that_it_does_not_trust(  # noqa: PLR0913, PLR0917 - fixtures
    process_fleet: Fleet, redis_server: EmbeddedRedis, ours: Authority, another: Authority, tmp_path: Path, query: str
) -> None:
    with TlsRedis(redis_server.url, ours.serving("127.0.0.1")) as server:
        url = server.url(query.format(another=another.path), database=1)
        environment = process_fleet.environment(broker_url=url)
        with WorkerProcess(environment, tmp_path / "worker") as worker:
            process_fleet.append("1", "2", "upsert")
            wait_until(lambda: "broker_away" in worker.said(), seconds=30, what="the broker counts as away")
            wait_until_delivered(process_fleet)  # without it
            assert "TLS: CERTIFICATE_VERIFY_FAILED" in worker.said()
        assert server.greeted == 0


def test_a_worker_says_that_it_waits_for_another_certificate(
    process_fleet: Fleet, redis_server: EmbeddedRedis, ours: Authority, another: Authority, tmp_path: Path
) -> None:
    with TlsRedis(redis_server.url, ours.serving("127.0.0.1")) as server:
        environment = process_fleet.environment(redis_url=server.url(f"ssl_ca_certs={another.path}"))
        with WorkerProcess(environment, tmp_path / "worker") as worker:
            wait_until(lambda: "redis_away" in worker.said(), seconds=30, what="the worker says what it waits for")
            assert "TLS: CERTIFICATE_VERIFY_FAILED" in worker.said()


# The endpoint


def answering(connection: Connection) -> None:
    while connection.read_request():
        connection.socket.sendall(http())


def sent_to(url: str, authority: Authority | None) -> Answer | NoAnswer:
    endpoint = Endpoint(url, 5.0, ssl_context=None if authority is None else authority.trusting())
    try:
        return endpoint.send(b"{}", "key")
    finally:
        endpoint.close()


def test_the_endpoints_certificate_must_be_of_the_authority_and_for_the_host(
    ours: Authority, another: Authority
) -> None:
    with (
        RawServer(answering, tls=ours.serving("127.0.0.1")) as right,
        RawServer(answering, tls=ours.serving("elsewhere.example")) as elsewhere,
    ):
        assert isinstance(sent_to(right.url, ours), Answer)
        for url, authority in ((right.url, another), (right.url, None), (elsewhere.url, ours)):
            refused = sent_to(url, authority)
            assert isinstance(refused, NoAnswer)
            assert (refused.sent, "CERTIFICATE_VERIFY_FAILED" in refused.why) == (False, True)


def test_the_environment_names_no_authority_for_the_endpoint(
    ours: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is meant for another program must not decide whom the server key goes to."""
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(ours.path))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    with RawServer(answering, tls=ours.serving("127.0.0.1")) as server:
        assert isinstance(sent_to(server.url, None), NoAnswer)
    assert "SECRET" not in (tmp_path / "keys.log").read_text(encoding="ascii")


@pytest.mark.parametrize("url", ["http://endpoint.example", "http://10.0.0.1", "http://128.0.0.1:80", "http://[::2]"])
def test_http_stays_on_this_machine_unless_it_is_allowed(url: str, fleet: Fleet) -> None:
    with pytest.raises(SettingsError, match="CONTACT_SYNC_ENDPOINT_URL must be https:// for another machine"):
        WorkerSettings(endpoint_url=url)
    assert run(fleet, "check", endpoint_url=url).exit_code == 2
    assert WorkerSettings(endpoint_url=url, endpoint_insecure="allow").endpoint_url == url


@pytest.mark.parametrize(
    "url", ["http://localhost", "http://127.0.0.1:8080", "http://127.8.9.1", "http://[::1]:8080", "https://h.example"]
)
def test_nothing_needs_to_be_allowed_for_loopback_or_https(url: str) -> None:
    assert WorkerSettings(endpoint_url=url).endpoint_url == url


@pytest.mark.parametrize("url", ["http://localhost.example", "http://127.0.0.1.example", "http://2130706433.example"])
def test_a_name_that_only_looks_like_loopback_counts_as_another_machine(url: str) -> None:
    with pytest.raises(SettingsError, match="for another machine"):
        WorkerSettings(endpoint_url=url)


def test_check_warns_of_what_is_allowed(fleet: Fleet) -> None:
    found = told(fleet, "check", endpoint_url="http://endpoint.invalid", endpoint_insecure="allow")["checks"]
    assert {"endpoint tls": "warn"}.items() <= {each["name"]: each["severity"] for each in found}.items()


# Sentinels


def test_sentinels_and_the_master_that_they_name_are_verified(
    redis_server: EmbeddedRedis, ours: Authority, another: Authority, namespace: str, tmp_path: Path
) -> None:
    with (
        TlsRedis(redis_server.url, ours.serving("127.0.0.1")) as master,
        one_sentinel(tmp_path, Address("127.0.0.1", master.port), "watch") as sentinel,
        TlsRedis(sentinel.socket_url, ours.serving("127.0.0.1")) as front,
    ):

        def producer(authority: Authority) -> ContactProducer:
            query = f"sentinel_password=watch&ssl_ca_certs={authority.path}"
            url = f"rediss+sentinel://127.0.0.1:{front.port}/{MASTER}?{query}"
            return ContactProducer(settings=ProducerSettings(redis_url=url, namespace=namespace))

        with producer(another) as refusing, pytest.raises(NotAccepted, match="CERTIFICATE"):
            refusing.upsert("1", "2")
        with producer(ours) as trusting:
            assert trusting.upsert("1", "2")
        query = f"sentinel_password=watch&ssl_ca_certs={ours.path}"
        settings = WorkerSettings(redis_url=f"rediss+sentinel://127.0.0.1:{front.port}/{MASTER}?{query}")
        with Celery(broker=settings.celery_broker_url) as app:
            options = settings.broker_sentinel_options
            app.conf.update(broker_use_ssl=settings.broker_tls, broker_transport_options=options)
            with app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=5)
                assert connection.connected


def test_an_asynchronous_producer_verifies_sentinels_too(
    redis_server: EmbeddedRedis, ours: Authority, namespace: str, tmp_path: Path
) -> None:
    async def run() -> None:
        settings = ProducerSettings(redis_url=url, namespace=namespace)
        async with AsyncContactProducer(settings=settings) as producer:
            assert await producer.upsert("1", "2")

    with (
        TlsRedis(redis_server.url, ours.serving("127.0.0.1")) as master,
        one_sentinel(tmp_path, Address("127.0.0.1", master.port), "watch") as sentinel,
        TlsRedis(sentinel.socket_url, ours.serving("127.0.0.1")) as front,
    ):
        query = f"sentinel_password=watch&ssl_ca_certs={ours.path}"
        url = f"rediss+sentinel://127.0.0.1:{front.port}/{MASTER}?{query}"
        asyncio.run(run())
