"""What README.md and docs/reference/stand-in.md tell people to type is typed here, as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
import redis

import producers
from producers.contract.partitions import DEFAULT_PARTITIONS
from producers.settings import variable_of
from worker.cli.main import COMMANDS
from worker.config.serve import ServeSettings
from worker.local.redis import EmbeddedRedis
from worker.standin.settings import DEFAULT_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.waiting import WaitUntil
    from worker.standin.client import StandInClient

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STAND_IN = (ROOT / "docs" / "reference" / "stand-in.md").read_text(encoding="utf-8")


class Lasting(NamedTuple):
    """A command that runs until Ctrl-C: what it says once it is up, and the status that it ends with then."""

    command: str
    says: str
    status: int


LASTING: Final = (
    Lasting("contact-sync worker", "ready.", 0),
    Lasting("contact-sync up", "Ctrl-C ends all of it", 130),
    Lasting("contact-sync endpoint", "Ctrl-C ends it", 130),
    Lasting("contact-sync serve", "Ctrl-C ends it", 130),
    Lasting("contact-sync status --watch", "nothing waits", 130),
)

ELSEWHERE: Final = ("make", "pip install", "docker compose", "systemctl", "sudo", "journalctl")
"""What cannot be run in here; each has a test below of what it rests on."""

OTHER_SHELLS: Final = ("zsh_source", "fish_source")
"""What completes in a shell that need not be on this machine."""


class Block(NamedTuple):
    """A fenced block: the line it begins at, its language, and its text."""

    line: int
    language: str
    text: str


def blocks(document: str) -> list[Block]:
    """The fenced blocks; one in a list is indented there, and is not here."""
    found = []
    for fence in re.finditer(r"^( *)```(\w+)\n(.*?)^ *```$", document, re.MULTILINE | re.DOTALL):
        line = document.count("\n", 0, fence.start()) + 1
        found.append(Block(line, fence[2], re.sub(rf"^{fence[1]}", "", fence[3], flags=re.MULTILINE)))
    return found


def commands(block: Block) -> list[str]:
    """The commands of a block: lines, but for what a backslash or a here-document joins; without their comments."""
    joined = re.sub(r"\\\n", " ", block.text)
    whole = re.findall(r"^.*<<'END'\n(?:.*\n)*?END$|^.+$", joined, re.MULTILINE)
    return [re.sub(r"\s+# .*$", "", each) if "\n" not in each else each for each in whole]


def ways(document: str, *, lasting: bool) -> list[Any]:
    """Every command of the document's shell blocks, with the assignments that stand before it in its block."""
    found = []
    for block in blocks(document):
        before: list[str] = []
        for command in commands(block) if block.language == "sh" else ():
            if command.startswith("export "):
                before.append(command)
            elif not command.startswith(ELSEWHERE) and (_lasting(command) is not None) is lasting:
                found.append(pytest.param("\n".join([*before, command]), id=f"{block.line}: {command.splitlines()[0]}"))
    return found


def _lasting(command: str) -> Lasting | None:
    return next((each for each in LASTING if command.startswith(each.command)), None)


class Place(NamedTuple):
    """Where commands are typed: a directory, and the environment of a shell in it."""

    directory: Path
    environ: dict[str, str]
    redis_url: str
    endpoint_url: str


@pytest.fixture
def place(tmp_path: Path, stand_in: StandInClient) -> Iterator[Place]:
    """A machine with a Redis and the endpoint, and nothing in the log."""
    with EmbeddedRedis(tcp=True) as server:
        (tmp_path / "server-key").write_text(DEFAULT_KEY)
        environ = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "TMPDIR": "/tmp",  # noqa: S108 - sockets want a short path; what is made there goes with the command
            "CONTACT_SYNC_REDIS_URL": server.url,
            "CONTACT_SYNC_ENDPOINT_URL": stand_in.url,
        }
        yield Place(tmp_path, environ, server.url, stand_in.url)


def typed(command: str, place: Place) -> tuple[str, dict[str, str]]:
    """The command with the names of this machine in place of the reader's, and the environment to type it in."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for theirs, ours in {
        "redis://redis.internal:6379/0": place.redis_url,
        "KEY_ID=…": f"KEY_ID={DEFAULT_KEY}",
        "/run/secrets/server-key": str(place.directory / "server-key"),
        "--port 8080": f"--port {port}",
        "http://127.0.0.1:8080": place.endpoint_url,
    }.items():
        command = command.replace(theirs, ours)
    key = {variable_of(name): DEFAULT_KEY for name in ("server_key_id", "server_key_secret")}
    return command, {**place.environ, **({} if "SERVER_KEY" in command else key)}


@pytest.mark.parametrize("command", [*ways(README, lasting=False), *ways(STAND_IN, lasting=False)])
def test_a_command_does_what_it_is_there_for(command: str, place: Place) -> None:
    if any(source in command for source in OTHER_SHELLS):  # its script is written out; only that shell is not asked
        command = command.replace("| source", "| grep -q contact-sync").replace('eval "$(', 'test -n "$(')
    if shutil.which("jq") is None:
        command = re.sub(r"\| jq \S+", "| python -m json.tool", command)
    if command.startswith("curl") and shutil.which("curl") is None:
        pytest.skip("curl is not on this machine")
    line, environ = typed(command, place)
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=place.directory,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    if line.startswith("curl"):
        assert ran.stdout.startswith(("{", "[")), ran.stdout
        assert '{"error"' not in ran.stdout or "times: Input should be" in ran.stdout


@pytest.mark.parametrize("command", [*ways(README, lasting=True), *ways(STAND_IN, lasting=True)])
def test_a_command_that_lasts_comes_up_and_ends_with_ctrl_c(command: str, place: Place, wait_until: WaitUntil) -> None:
    expected = _lasting(command.splitlines()[-1])
    assert expected is not None
    line, environ = typed(command, place)
    said = place.directory / "said"
    with said.open("wb") as log:
        process = subprocess.Popen(
            # The last command takes the shell's place, so that Ctrl-C reaches it alone.
            ["bash", "-euc", re.sub(r"^(?=[^\n]+\Z)", "exec ", line, flags=re.MULTILINE)],
            cwd=place.directory,
            env=environ,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(
            lambda: expected.says in said.read_text() or process.poll() is not None, seconds=30, what=expected.says
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == expected.status, said.read_text()
    finally:
        process.kill()


@pytest.mark.parametrize(
    "program",
    [pytest.param(each.text, id=f"line {each.line}") for each in blocks(README) if each.language == "python"],
)
def test_a_python_example_runs_as_it_stands_and_appends_to_the_log(program: str, place: Place) -> None:
    environ = {**place.environ, "PYTHONWARNINGS": "error"}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=place.directory,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    with redis.Redis.from_url(place.redis_url) as client:
        lengths = [client.xlen(f"contact-sync:{{{p}}}:events") for p in range(DEFAULT_PARTITIONS)]
    assert sum(lengths) > 0


def test_every_block_is_of_a_language_that_is_run_or_shown_only() -> None:
    assert {block.language for block in blocks(README)} <= {"sh", "python"}
    assert {block.language for block in blocks(STAND_IN)} <= {"sh", "python", "json"}
    assert README.count("```") == 2 * (len(blocks(README)) + 1)  # one has no language: the picture


def test_the_reference_of_the_client_is_where_the_readme_says() -> None:
    assert "`python -m pydoc producers`" in README
    shown = subprocess.run(
        [sys.executable, "-m", "pydoc", "producers"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    for name in producers.__all__:
        assert name in shown


# What cannot be run in here


def typed_elsewhere(beginning: str) -> list[str]:
    """The commands of the README that begin so."""
    every = [command for block in blocks(README) if block.language == "sh" for command in commands(block)]
    return [command for command in every if command.startswith(beginning)]


def test_make_has_every_target_that_is_named_and_it_does_what_is_said() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes: dict[str, list[str]] = {
        name: recipe.split()
        for name, recipe in re.findall(r"^([a-z]+):[^\n]*\n((?:\t[^\n]*\n)*)", makefile, re.MULTILINE)
    }
    named = {command.partition(" ")[2] for command in typed_elsewhere("make")}
    assert named - {""} <= recipes.keys()
    assert recipes["demo"] == ["$(BIN)/contact-sync", "demo"]  # which test_demo.py runs to its end
    tested = re.search(r"^test:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert tested is not None  # it is this run, in two parts
    assert set(re.findall(r"^\t(\S+)", tested[1], re.MULTILINE)) == {"$(BIN)/pytest"}
    assert re.findall(r"--ignore (\S+)", tested[1]) == re.findall(r"pytest (tests/\S+)", tested[1])
    assert re.search(r"^check: lint types imports test ", makefile, re.MULTILINE)
    assert ".DEFAULT_GOAL := help" in makefile
    newcomer = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make demo" in newcomer
    assert "make test" in newcomer


def test_pip_installs_the_packages_the_command_and_the_extra_that_are_named() -> None:
    """The environment of this run was made by pip or uv from the same file, so that all of it is there."""
    assert typed_elsewhere("pip install") == ["pip install ."]
    assert "pip install '.[embedded]'" in README
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"]["contact-sync"] == "worker.cli.main:main"
    assert "embedded" in project["project"]["optional-dependencies"]
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["producers", "worker"]


def test_every_file_that_is_named_is_there() -> None:
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    assert linked
    deployed = re.findall(r"`(docker-compose\.yml|Dockerfile|deploy/[\w./@-]+)`", README)
    # The operator's own secrets are not in the repository; the directory for them is.
    named = [name.rpartition("/")[0] if name.startswith("deploy/secrets/") else name for name in [*linked, *deployed]]
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize("command", typed_elsewhere("docker compose"))
def test_compose_has_the_services_and_profiles_that_are_named(command: str) -> None:
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    services = re.findall(r"^  ([\w-]+):$", compose.partition("\nservices:\n")[2], re.MULTILINE)
    named = re.findall(r"--scale ([\w-]+)", command) + re.findall(r" run (?:--\S+ )*([\w-]+)", command)
    assert set(named) <= set(services)
    for profile in re.findall(r"--profile ([\w-]+)", command):
        assert re.search(rf"profiles: \[.*\b{profile}\b", compose), profile


# Tables


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, cell by cell."""
    _, _, rest = README.partition(f"\n## {heading}\n")
    rows = re.search(r"^(?:\|.*\n)+", rest, re.MULTILINE)
    assert rows is not None, heading
    return [re.split(r"(?<!\\) *\| *", row.strip("| \n")) for row in rows[0].splitlines()[2:]]


def test_the_table_of_commands_is_that_of_the_program() -> None:
    listed = [re.findall(r"`contact-sync ([\w-]+)", row[0]) for row in table("Commands")]
    assert sorted(name for names in listed for name in names) == sorted(COMMANDS)


def test_the_table_of_settings_has_every_variable_with_its_default() -> None:
    listed = {name: row[1].strip("`") for row in table("Settings") for name in re.findall(r"CONTACT_SYNC_\w+", row[0])}
    files = {variable_of(name) for name in ServeSettings.model_fields if name.endswith("_file")}
    assert listed.keys() | files == {variable_of(name) for name in ServeSettings.model_fields}
    for name, field in ServeSettings.model_fields.items():
        if field.default is not None and variable_of(name) in listed:
            shown = listed[variable_of(name)]
            assert field.default == type(field.default)("" if shown == "none" else shown), name
