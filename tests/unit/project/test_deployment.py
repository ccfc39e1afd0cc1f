"""What containers and service managers are told agrees with the code: settings, time limits, Redis, keys, versions."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from producers.settings import variable_of
from worker.admin.health import WATCH_SECONDS, default_bound_seconds
from worker.cli.main import COMMANDS
from worker.config.serve import ServeSettings
from worker.config.settings import WorkerSettings
from worker.core.timing import FLUSH_BUDGET_SECONDS
from worker.local.redis import EmbeddedRedis
from worker.standin.settings import DEFAULT_KEY
from worker.store.client import LEASE_PATH_SECONDS

PROJECT = Path(__file__).parents[3]
DEPLOY = PROJECT / "deploy"

REAL, DEMO = ("redis", "broker", "worker"), ("demo-redis", "stand-in", "demo-worker", "demo")
BY_FILE_ALONE = {variable_of("server_key_id"), variable_of("server_key_secret")}
"""What stands in a container's environment is shown to whoever may inspect it, so the key comes by file."""

VARIABLES = {variable_of(name) for name in WorkerSettings.model_fields}
PINNED = re.compile(r"[a-z]+:\d+\.\d+\.\d+-[a-z0-9-]+@sha256:[0-9a-f]{64}")


def lines_of(path: Path) -> list[str]:
    """A file's lines without comments, each with its indentation."""
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [re.sub(r"\s+#.*$|^#.*$", "", line).rstrip() for line in lines]
    return [line for line in kept if line]


def block(lines: list[str], heading: str) -> list[str]:
    """What is indented below a line that begins so."""
    at = next(i for i, line in enumerate(lines) if line.strip().startswith(heading))
    depth = len(lines[at]) - len(lines[at].lstrip())
    inside: list[str] = []
    for line in lines[at + 1 :]:
        if len(line) - len(line.lstrip()) <= depth:
            break
        inside.append(line)
    return inside


def service(name: str) -> list[str]:
    """A service's lines, stripped, those that it takes over from an anchor before its own."""
    compose = lines_of(PROJECT / "docker-compose.yml")
    return taken_over(compose, block(block(compose, "services:"), f"{name}:"))


def taken_over(compose: list[str], own: list[str]) -> list[str]:
    found = []
    for line in own:
        if anchor := re.fullmatch(r"\s*<<: \*(\S+)", line):
            found += taken_over(compose, block(compose, f"x-{anchor[1]}: &{anchor[1]}"))
        else:
            found.append(line.strip())
    return found


def value(lines: list[str], key: str) -> str:
    """The last value of a key: a service's own wins over one that it takes over."""
    return next(line.partition(":")[2].strip() for line in reversed(lines) if line.startswith(f"{key}:"))


def environment(name: str) -> dict[str, str]:
    """The variables that a service sets, by hand or by the anchor of the demo."""
    lines = service("demo-worker") if "environment: *demo" in service(name) else service(name)
    pairs = [line.partition(":") for line in lines if line.startswith("CONTACT_SYNC_")]
    return {variable: given.strip() for variable, _, given in pairs}


def seconds(text: str) -> float:
    """A duration such as ``60s``, the default of ``${VARIABLE:-60s}`` included."""
    found = re.fullmatch(r"(?:\$\{\w+:-)?(\d+)s?\}?", text)
    assert found, text
    return float(found[1])


def directives(name: str) -> dict[str, str]:
    """A configuration of Redis."""
    pairs = [line.split(maxsplit=1) for line in lines_of(DEPLOY / "redis" / name)]
    return {key: given.strip('"') for key, given in pairs}


def unit(name: str) -> list[tuple[str, str]]:
    """A unit's directives, in order: some stand there more than once."""
    pairs = [line.partition("=") for line in lines_of(DEPLOY / "systemd" / name) if "=" in line]
    return [(key, given) for key, _, given in pairs]


WORKER_UNIT, SERVE_UNIT = "contact-sync-worker@.service", "contact-sync-serve.service"


# docker-compose.yml


def test_the_worker_is_handed_every_setting_and_nothing_else() -> None:
    assert set(environment("worker")) == VARIABLES - BY_FILE_ALONE


def test_the_log_and_the_broker_are_two_servers() -> None:
    found = environment("worker")
    hosts = [urlsplit(found[variable_of(name)]).hostname for name in ("redis_url", "broker_url")]
    assert hosts == ["redis", "broker"]


def test_services_have_time_to_end_what_they_began() -> None:
    longest = FLUSH_BUDGET_SECONDS + WorkerSettings().request_timeout_seconds
    assert seconds(value(service("worker"), "stop_grace_period")) > longest
    assert seconds(dict(unit(WORKER_UNIT))["TimeoutStopSec"]) > longest


def test_a_fleet_that_stands_still_is_unhealthy_within_a_minute() -> None:
    check = service("worker")
    assert 'test: ["CMD", "contact-sync", "health"]' in check
    looks = int(value(check, "retries")) * (seconds(value(check, "interval")) + WATCH_SECONDS)
    assert default_bound_seconds(WorkerSettings()) + looks <= 60
    assert seconds(value(check, "timeout")) > WATCH_SECONDS + LEASE_PATH_SECONDS


@pytest.mark.parametrize("name", [*REAL, "serve", *DEMO])
def test_every_container_runs_as_nobody_special_on_a_root_that_it_cannot_write(name: str) -> None:
    lines = service(name)
    assert re.fullmatch(r'"[1-9]\d*:[1-9]\d*"', value(lines, "user"))
    for line in ("init: true", "read_only: true", "cap_drop: [ALL]", 'security_opt: ["no-new-privileges:true"]'):
        assert line in lines


@pytest.mark.parametrize("name", REAL)
def test_what_runs_for_real_needs_no_profile_and_comes_back_after_a_reboot(name: str) -> None:
    lines = service(name)
    assert not any(line.startswith("profiles:") for line in lines)
    assert value(lines, "restart") == "unless-stopped"
    assert not any(demo in line for demo in DEMO for line in lines)


@pytest.mark.parametrize("name", DEMO)
def test_the_demo_stays_apart_from_what_runs_for_real(name: str) -> None:
    lines = service(name)
    assert "profiles: [demo]" in lines
    assert not any(line.startswith(tuple(f"{real}:" for real in REAL)) for line in lines)
    assert "/run/secrets" not in " ".join(lines)


@pytest.mark.parametrize("name", ["demo-worker", "demo"])
def test_the_demo_needs_no_settings(name: str) -> None:
    found = environment(name)
    assert not any("$" in given for given in found.values())
    assert urlsplit(found[variable_of("redis_url")]).hostname == "demo-redis"
    assert urlsplit(found[variable_of("endpoint_url")]).hostname == "stand-in"
    assert {found[each] for each in BY_FILE_ALONE} == {DEFAULT_KEY}


def test_the_server_key_is_read_from_a_directory_that_git_ignores() -> None:
    found, lines = environment("worker"), service("worker")
    for name in ("server_key_id", "server_key_secret"):
        assert found[variable_of(f"{name}_file")] == f"{value(lines, 'target')}/{name}"
    default = value(lines, "source").removeprefix("${SECRETS_DIR:-").removesuffix("}")
    assert lines_of(PROJECT / default / ".gitignore") == ["*", "!.gitignore"]


# The page, the probes and the metrics


def test_serve_is_given_its_token_by_file_and_no_server_key() -> None:
    found, lines = environment("serve"), service("serve")
    assert set(found) <= {variable_of(name) for name in ServeSettings.model_fields}
    assert found[variable_of("serve_token_file")] == value(lines, "target") == "/run/secrets/serve_token"
    assert not any("SERVER_KEY" in name for name in found)
    assert found[variable_of("redis_url")] == environment("worker")[variable_of("redis_url")]
    credentials = [given for key, given in unit(SERVE_UNIT) if key == "LoadCredential"]
    assert [each.partition(":")[0] for each in credentials] == ["serve_token"]
    named = [given for key, given in unit(SERVE_UNIT) if key == "Environment" and given.startswith("CONTACT_SYNC_")]
    assert named == [f"{variable_of('serve_token_file')}=%d/serve_token"]


def test_serve_listens_where_its_probe_asks_and_on_this_machine_alone() -> None:
    lines = service("serve")
    port = re.findall(r'--port, "(\d+)"', value(lines, "command"))
    published = value(lines, "ports")
    assert published.startswith('["127.0.0.1:')
    assert re.findall(r":(\d+)\D*$", published.partition("#")[0]) == port
    assert f"127.0.0.1:{port[0]}/healthz" in value(lines, "test")
    assert dict(unit(SERVE_UNIT))["ExecStart"].endswith(f"serve --host 127.0.0.1 --port {port[0]}")


# Redis


@pytest.mark.parametrize(("name", "conf"), [("redis", "log"), ("broker", "broker"), ("demo-redis", "broker")])
def test_every_redis_has_its_configuration(name: str, conf: str) -> None:
    assert value(service(name), "command").startswith(f"[redis-server, /etc/redis/{conf}.conf")
    assert f"./deploy/redis/{conf}.conf:/etc/redis/{conf}.conf:ro" in " ".join(service(name))


def test_the_log_is_kept_and_never_evicted() -> None:
    found = directives("log.conf")
    assert found["maxmemory-policy"] == "noeviction"
    assert found["appendonly"] == "yes"
    assert found["appendfsync"] in {"everysec", "always"}
    assert "redis:/data" in " ".join(service("redis"))


@pytest.mark.parametrize("name", ["log.conf", "broker.conf"])
def test_redis_takes_the_configuration(name: str) -> None:
    given = directives(name)
    with EmbeddedRedis(config=given) as server, redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert {key: client.config_get(key)[key] for key in given} == given


# The image


def test_images_are_pinned_by_version_and_digest() -> None:
    bases = [line.split() for line in lines_of(PROJECT / "Dockerfile") if line.startswith("FROM ")]
    assert [base[1] for base in bases[1:]] == ["base"] * 2
    assert PINNED.fullmatch(bases[0][1])
    assert PINNED.fullmatch(value(service("redis"), "image"))


def test_the_image_runs_as_nobody_special() -> None:
    users = [line.split()[1] for line in lines_of(PROJECT / "Dockerfile") if line.startswith("USER ")]
    assert users == [value(service("worker"), "user").strip('"')]


def test_all_that_is_installed_into_the_image_is_pinned_by_hash() -> None:
    installs = [line for line in lines_of(PROJECT / "Dockerfile") if re.search(r"\bpip .*install", line)]
    assert len(installs) == 3
    assert all("--require-hashes --requirement" in line or "--no-deps --no-index" in line for line in installs)


def test_what_builds_the_package_is_pinned_by_hash() -> None:
    text = "\n".join(lines_of(DEPLOY / "requirements-build.txt"))
    pins = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert all("==" in pin and "--hash=sha256:" in pin for pin in pins)
    build = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert {re.split(r"[^\w-]", each)[0] for each in build} <= {pin.partition("==")[0] for pin in pins}


def test_what_the_image_copies_is_all_that_its_build_sees() -> None:
    allowed = {line[1:] for line in lines_of(PROJECT / ".dockerignore") if line.startswith("!")}
    copies = [line.split()[1:-1] for line in lines_of(PROJECT / "Dockerfile") if line.startswith("COPY ")]
    assert {source for sources in copies for source in sources if not sources[0].startswith("--from")} == allowed
    assert lines_of(PROJECT / ".dockerignore")[0] == "*"


@pytest.mark.slow
def test_worker_and_commands_load_with_no_package_but_those_of_the_image(tmp_path: Path) -> None:
    text = (PROJECT / "requirements.txt").read_text(encoding="utf-8")
    there = {"contact-sync", *re.findall(r"^([a-z0-9._-]+)==", text, flags=re.MULTILINE)}
    missing = [
        top
        for top, dists in packages_distributions().items()
        if not there & {re.sub(r"[._]", "-", dist.lower()) for dist in dists}
    ]
    modules = ["worker.celery", *(place.module for place in COMMANDS.values())]
    program = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); import {', '.join(modules)}"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={}, capture_output=True, text=True, check=False, timeout=60
    )
    assert (ran.returncode, ran.stderr) == (0, "")


# systemd


def test_the_unit_lets_the_main_process_end_the_pool() -> None:
    found = dict(unit(WORKER_UNIT))
    assert found["KillMode"] == "mixed"
    assert found["ExecStart"].split()[:2] == ["/opt/contact-sync/bin/contact-sync", "worker"]


def test_the_unit_is_restarted_unless_its_configuration_does_not_fit() -> None:
    found = dict(unit(WORKER_UNIT))
    assert (found["Restart"], found["RestartPreventExitStatus"]) == ("on-failure", "2")


def test_the_unit_hands_the_server_key_on_by_file() -> None:
    given = unit(WORKER_UNIT)
    named = [text.partition("=") for key, text in given if key == "Environment" and text.startswith("CONTACT_SYNC_")]
    files = {variable: path.removeprefix("%d/") for variable, _, path in named}
    assert files == {f"{variable}_FILE": variable.removeprefix("CONTACT_SYNC_").lower() for variable in BY_FILE_ALONE}
    loaded = {text.partition(":")[0] for key, text in given if key == "LoadCredential"}
    assert loaded == set(files.values())


def test_all_services_are_locked_down_alike() -> None:
    def locks(name: str) -> list[tuple[str, str]]:
        directives = unit(name)
        return directives[directives.index(("UMask", "0077")) : directives.index(("SystemCallErrorNumber", "EPERM"))]

    assert locks(WORKER_UNIT) == locks("contact-sync-health.service") == locks(SERVE_UNIT)
    wanted = {("NoNewPrivileges", "yes"), ("ProtectSystem", "strict"), ("PrivateTmp", "yes")}
    assert wanted <= set(locks(WORKER_UNIT))
    assert all(
        ("DynamicUser", "yes") in unit(name) for name in (WORKER_UNIT, SERVE_UNIT, "contact-sync-health.service")
    )
