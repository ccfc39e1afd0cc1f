"""The Helm chart, by Helm itself (as a library) and by Kubernetes' own schemas: what it renders is what is meant."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pytest

from producers.settings import load_settings, variable_of
from tests.release.tools import PROJECT, tool
from worker.config.serve import ServeSettings
from worker.config.settings import WorkerSettings
from worker.core.timing import FLUSH_BUDGET_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

CHART: Final = PROJECT / "deploy" / "helm"
RENDERED: Final = Path(__file__).parent / "rendered"

CASES: Final[dict[str, dict[str, Any]]] = {
    "trial": {},
    "production": {
        "image": {"repository": "registry.example.com/contact-sync", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "registry"}],
        "redis": {"trial": False, "brokerUrl": "redis://broker:6379/0"},
        "settings": {"REQUEST_TIMEOUT_SECONDS": 120, "LEASE_SECONDS": 130, "LEDGER_SECONDS": "forever"},
        "settingsSecret": "contact-sync-settings",
        "worker": {"autoscaling": {"by": "keda", "max": 20}, "resources": {"limits": {"memory": "512Mi"}}},
        "serve": {"tokenKeys": ["serve_token", "serve_read_token"]},
        "relay": {"enabled": True, "replicas": 3},
        "reconcile": {
            "enabled": True,
            "query": "select user_id as owner, friend_id as contact from friends where note <> 'it''s \"over\"'",
            "arguments": ["--max-delete-share", "5"],
        },
        "networkPolicy": {"redisPorts": [6380], "serveFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "batch", "operator": "Exists"}],
        "priorityClassName": "high",
        "podAnnotations": {"team": "contacts"},
    },
}


def helm(values: dict[str, Any]) -> dict[str, Any]:
    """What tests/release/helm.py says of the chart with these values."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("Helm as a library comes for Linux on x86_64 alone")
    ran = subprocess.run(
        [tool("python"), Path(__file__).with_name("helm.py")],
        input=json.dumps({"chart": str(CHART), "values": values}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def rendered(case: str) -> dict[str, Any]:
    return helm(CASES[case])


def pods(rendered: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each part's pod, as its template says it."""
    for each in rendered["documents"]:
        spec = each["spec"].get("jobTemplate", each)["spec"]
        if "template" in spec:
            labels = spec["template"]["metadata"]["labels"]
            yield labels["app.kubernetes.io/component"], spec["template"]["spec"]


def of_kind(rendered: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each
        for each in rendered["documents"]
        if each["kind"] == kind
    }


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in pod["containers"][0].get("env", [])}


def test_helm_has_nothing_to_say_against_the_chart(rendered: dict[str, Any]) -> None:
    assert [each for each in rendered["lint"] if each["severity"] > 1] == []


def test_kubernetes_knows_every_field_of_what_is_rendered(rendered: dict[str, Any]) -> None:
    assert rendered["faults"] == []


def test_what_is_rendered_is_what_was_looked_at(case: str, rendered: dict[str, Any]) -> None:
    """Where the change is meant, `UPDATE_RENDERED=1 pytest tests/release/test_chart.py` writes it, for the review."""
    text = "".join(f"##### {name}\n{body.strip()}\n" for name, body in rendered["manifests"].items())
    path = RENDERED / f"{case}.txt"
    if os.environ.get("UPDATE_RENDERED"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_parts_run_where_they_should(case: str, rendered: dict[str, Any]) -> None:
    kinds = {part: kind for kind in ("Deployment", "StatefulSet", "CronJob") for part in of_kind(rendered, kind)}
    always = {"worker": "Deployment", "serve": "Deployment"}
    more = {
        "trial": {"redis": "StatefulSet"},
        "production": {"relay": "Deployment", "reconcile": "CronJob"},
    }
    assert kinds == always | more[case]
    assert of_kind(rendered, "NetworkPolicy").keys() == kinds.keys()
    deployed = {part for part, kind in kinds.items() if kind == "Deployment"}
    assert of_kind(rendered, "PodDisruptionBudget").keys() == deployed


def test_every_pod_runs_as_nobody_special_on_a_root_that_it_cannot_write(rendered: dict[str, Any]) -> None:
    for part, pod in pods(rendered):
        user = 999 if part == "redis" else 10001
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert pod["containers"][0]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)


def test_pods_of_a_part_are_spread_and_picked_by_their_own_labels(rendered: dict[str, Any]) -> None:
    for part, pod in pods(rendered):
        keys = {each["topologyKey"]: each["labelSelector"]["matchLabels"] for each in pod["topologySpreadConstraints"]}
        assert keys.keys() == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        assert all(labels["app.kubernetes.io/component"] == part for labels in keys.values())


def test_secrets_come_by_file_and_are_no_values(rendered: dict[str, Any]) -> None:
    secret = {variable_of(name) for name in ("server_key_id", "server_key_secret", "serve_token", "serve_read_token")}
    for part, pod in pods(rendered):
        assert not secret & environment(pod).keys()
        mounted = [each["mountPath"] for each in pod["containers"][0]["volumeMounts"] if each.get("readOnly")]
        files = {path for name, path in environment(pod).items() if name.endswith("_FILE")}
        assert all(str(Path(path).parent) in mounted for path in files)
        assert bool(files) == (part in {"worker", "serve"})
        assert all("valueFrom" not in each for each in pod["containers"][0].get("env", []))
        # A directory, not each file: a file that is mounted by itself stays the old one when the Secret changes.
        assert all("subPath" not in each for each in pod["containers"][0]["volumeMounts"])


def test_the_server_key_is_the_workers_alone(rendered: dict[str, Any]) -> None:
    having = {part for part, pod in pods(rendered) if "contact-sync-server-key" in json.dumps(pod)}
    assert having == {"worker"}


def test_a_worker_has_time_to_end_what_it_began(case: str, rendered: dict[str, Any]) -> None:
    timeout = CASES[case].get("settings", {}).get("REQUEST_TIMEOUT_SECONDS", WorkerSettings().request_timeout_seconds)
    assert dict(pods(rendered))["worker"]["terminationGracePeriodSeconds"] > FLUSH_BUDGET_SECONDS + timeout


def test_probes_ask_what_a_restart_mends(rendered: dict[str, Any]) -> None:
    containers = {part: pod["containers"][0] for part, pod in pods(rendered)}
    assert containers["worker"]["livenessProbe"]["exec"]["command"] == ["contact-sync", "health"]
    port = containers["serve"]["ports"][0]
    assert containers["serve"]["args"][-1] == str(port["containerPort"])
    assert containers["serve"]["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": port["name"]}
    assert containers["serve"]["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}


def test_every_setting_is_one_that_the_code_takes(rendered: dict[str, Any]) -> None:
    for part, pod in pods(rendered):
        if part != "redis":
            given = environment(pod)
            assert given.keys() <= {variable_of(name) for name in ServeSettings.model_fields}
            load_settings(ServeSettings, given, None)


def test_the_redis_for_trying_it_is_set_up_as_the_one_for_real() -> None:
    trial = dict(pods(helm({})))["redis"]["containers"][0]
    lines = (PROJECT / "deploy" / "redis" / "log.conf").read_text(encoding="utf-8").splitlines()
    wanted = [word for line in lines if line and not line.startswith("#") for word in line.split()]
    said = [word.removeprefix("--") for word in trial["args"][1:]]
    pairs = set(zip(said[::2], said[1::2], strict=True))
    assert pairs == {(name, value.strip('"')) for name, value in zip(wanted[::2], wanted[1::2], strict=True)}
    compose = (PROJECT / "docker-compose.yml").read_text(encoding="utf-8")
    assert f"image: {trial['image']}\n" in compose


def test_only_what_must_be_reached_is_reached(rendered: dict[str, Any]) -> None:
    policies = of_kind(rendered, "NetworkPolicy")
    assert [part for part, each in policies.items() if each["spec"]["ingress"]] == [
        part for part in policies if part in {"serve", "redis"}
    ]
    reached = {
        part: {port["port"] for rule in each["spec"]["egress"] for port in rule["ports"]}
        for part, each in policies.items()
    }
    assert 443 in reached["worker"]
    assert not any(443 in ports for part, ports in reached.items() if part != "worker")


def autoscaled(**worker: Any) -> dict[str, dict[str, Any]]:
    """What a chart with this autoscaler has, by kind; each part's own objects are the others' tests."""
    rendered = helm({"worker": {"autoscaling": worker}})
    assert rendered["faults"] == []
    return {
        each["kind"]: each
        for each in rendered["documents"]
        if each["metadata"]["labels"]["app.kubernetes.io/component"] == "worker"
    }


@pytest.mark.parametrize(("by", "kind"), [("keda", "ScaledObject"), ("hpa", "HorizontalPodAutoscaler")])
def test_an_autoscaler_sets_the_number_of_worker_pods_and_nobody_else_does(by: str, kind: str) -> None:
    found = autoscaled(by=by, min=2, max=7)
    worker, scaler = found["Deployment"], found[kind]["spec"]
    assert "replicas" not in worker["spec"]
    assert scaler["scaleTargetRef"]["name"] == worker["metadata"]["name"]
    bounds = {name: value for name, value in scaler.items() if name.startswith(("min", "max"))}
    assert list(bounds.values()) == [7, 2] or list(bounds.values()) == [2, 7]


def test_keda_reads_what_serve_tells_by_the_weakest_token() -> None:
    found = {each["kind"]: each for each in helm(CASES["production"])["documents"]}
    trigger = found["ScaledObject"]["spec"]["triggers"][0]
    name, path = urlsplit(trigger["metadata"]["url"]).netloc, urlsplit(trigger["metadata"]["url"]).path
    served = found["Service"]
    assert name == f"{served['metadata']['name']}.contacts.svc:{served['spec']['ports'][0]['port']}"
    assert f'"{path}"' in (PROJECT / "worker" / "serve" / "app.py").read_text(encoding="utf-8")
    secret = found["TriggerAuthentication"]["spec"]["secretTargetRef"][0]
    assert (secret["parameter"], secret["key"]) == ("token", "serve_read_token")
    assert autoscaled(by="keda")["TriggerAuthentication"]["spec"]["secretTargetRef"][0]["key"] == "serve_token"


def test_keda_may_reach_serve() -> None:
    ingress = of_kind(helm(CASES["production"]), "NetworkPolicy")["serve"]["spec"]["ingress"][0]["from"]
    keda = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}
    assert ingress == [*CASES["production"]["networkPolicy"]["serveFrom"], keda]


def test_the_metric_that_an_autoscaler_reads_is_one_that_is_exported() -> None:
    metric = autoscaled(by="hpa")["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["external"]["metric"]["name"]
    assert f"| `{metric}` |" in (PROJECT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"redis": {"url": "redis://redis:6379/0"}}, "say redis.trial=false"),
        ({"redis": {"trial": False}}, "no Redis: say redis.url"),
        ({"redis": {"trial": False, "url": "redis://:secret@redis:6379/0"}}, "url"),
        ({"reconcile": {"enabled": True}}, "reconcile.query is required"),
        ({"settings": {"SERVER_KEY_SECRET": "secret"}}, "SERVER_KEY_SECRET"),
        ({"settings": {"linger": 1}}, "linger"),
        ({"worker": {"replica": 3}}, "replica"),
        ({"worker": {"autoscaling": {"by": "magic"}}}, "by"),
        ({"worker": {"autoscaling": {"by": "keda"}}, "serve": {"enabled": False}}, "say serve.enabled=true"),
    ],
)
def test_values_that_do_not_fit_are_refused(values: dict[str, Any], said: str) -> None:
    assert said in helm(values)["refused"]


def test_whole_numbers_stay_whole() -> None:
    given = environment(dict(pods(helm({"settings": {"LATE_SECONDS": 3_153_600_000}})))["worker"])
    assert given[variable_of("late_seconds")] == "3153600000"


def test_the_chart_is_of_the_version_that_it_lies_beside() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    lines = (CHART / "Chart.yaml").read_text(encoding="utf-8").splitlines()
    assert f"version: {version}" in lines
    assert f'appVersion: "{version}"' in lines


def test_what_kubernetes_says_of_services_is_no_setting() -> None:
    """A Service gives each pod variables; those of `contact-sync-redis` begin as our settings do."""
    services = (
        "contact-sync",
        "contact-sync-redis",
        "contact-sync-serve",
        "contact-sync-broker",
        "contact-sync-endpoint",
    )
    links: dict[str, str] = {}
    for name in services:
        prefix = name.upper().replace("-", "_")
        links |= {
            f"{prefix}_SERVICE_HOST": "10.0.0.1",
            f"{prefix}_SERVICE_PORT": "6379",
            f"{prefix}_SERVICE_PORT_HTTP": "6379",
            f"{prefix}_PORT": "tcp://10.0.0.1:6379",
            f"{prefix}_PORT_6379_TCP": "tcp://10.0.0.1:6379",
            f"{prefix}_PORT_6379_TCP_PROTO": "tcp",
            f"{prefix}_PORT_6379_TCP_PORT": "6379",
            f"{prefix}_PORT_6379_TCP_ADDR": "10.0.0.1",
        }
    assert load_settings(ServeSettings, links, None) == ServeSettings()
    # And no setting to come may have such a name.
    endings = ("_PORT", "_SERVICE_HOST", "_TCP", "_PROTO", "_ADDR")
    assert not [name for name in ServeSettings.model_fields if variable_of(name).endswith(endings)]
