"""A real Prometheus scrapes a real `serve`, and has the numbers and the alerts that it should."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.alerts.prometheus import RULES, program
from tests.support.commands import dead_letter
from tests.support.fleet import Fleet
from tests.support.serving import OPERATOR, READER, TOKENS, serving
from worker.local.data_dir import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.waiting import WaitUntil
    from worker.local.redis import EmbeddedRedis
    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def prometheus(
    redis_server: EmbeddedRedis, namespace: str, stand_in: StandInClient, tmp_path: Path, wait_until: WaitUntil
) -> Iterator[httpx.Client]:
    """A client of a Prometheus that scrapes a fleet with a confirmed change, a dead letter, and a closed gate."""
    binary = program("prometheus")
    with ExitStack() as undo:
        fleet = undo.enter_context(Fleet(redis_server.url, namespace, stand_in))
        dead_letter(fleet)
        fleet.append("2", "2", "delete")
        fleet.deliver()
        fleet.stand_in.settings(key_id="another")
        fleet.append("3", "3", "upsert")
        fleet.flush_once()
        serve = undo.enter_context(serving(fleet, TOKENS))
        (tmp_path / "token").write_text(READER)
        config: dict[str, Any] = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {
                    "job_name": "contact-sync",
                    "authorization": {"credentials_file": str(tmp_path / "token")},
                    "static_configs": [{"targets": [urlsplit(str(serve.base_url)).netloc]}],
                }
            ],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        listen = f"127.0.0.1:{free_port()}"
        log = undo.enter_context((tmp_path / "log").open("wb"))
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={listen}",
            ],
            stdout=log,
            stderr=log,
        )
        undo.callback(process.wait, 30)
        undo.callback(process.terminate)
        client = undo.enter_context(httpx.Client(base_url=f"http://{listen}/api/v1", timeout=10))

        def ready() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                return bool(asked(client, 'up{job="contact-sync"} == 1'))
            except (httpx.TransportError, httpx.HTTPStatusError):
                return False

        wait_until(ready, seconds=60, what="it has scraped")
        yield client


def asked(client: httpx.Client, query: str) -> dict[str, float]:
    """What a query gives: values by the one label that is ours, if there is one."""
    answer = client.get("/query", params={"query": query}).raise_for_status().json()
    labels = {"__name__", "job", "instance"}
    return {
        ",".join(value for name, value in sorted(each["metric"].items()) if name not in labels): float(each["value"][1])
        for each in answer["data"]["result"]
    }


def test_it_scrapes_with_the_readers_token_and_sees_what_happened(
    prometheus: httpx.Client, wait_until: WaitUntil
) -> None:
    assert asked(prometheus, "contact_sync_changes_accepted_total") == {"": 3}
    assert asked(prometheus, "contact_sync_changes_confirmed_total") == {"delete": 1, "upsert": 0}
    assert asked(prometheus, "contact_sync_changes_dead_total") == {"refused": 1}
    assert asked(prometheus, "contact_sync_gate_state == 1") == {"held": 1}
    assert asked(prometheus, "contact_sync_gate_held") == {"credentials": 1}
    assert asked(prometheus, 'contact_sync_change_confirmation_seconds_bucket{le="+Inf",op="delete"}') == {
        "+Inf,delete": 1
    }

    def alerts() -> set[str]:
        found = prometheus.get("/alerts").raise_for_status().json()["data"]["alerts"]
        return {each["labels"]["alertname"] for each in found}

    wait_until(lambda: alerts() == {"ContactSyncEndpointHeld", "ContactSyncNoWorker"}, what="both are pending")
    targets = prometheus.get("/targets").raise_for_status().text
    assert OPERATOR not in targets
    assert READER not in targets
