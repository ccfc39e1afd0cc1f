"""What README.md and the pages of `docs` tell people to type is typed here, block by block, as it stands there."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
import redis

from producers.contract.partitions import DEFAULT_PARTITIONS
from producers.settings import variable_of
from tests.docs.blocks import BLOCKS, PAGES, Block
from worker.local.redis import EmbeddedRedis
from worker.standin.settings import DEFAULT_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.waiting import WaitUntil
    from worker.standin.client import StandInClient

SHOWN_ONLY: Final = {"", "text", "mermaid"}
FILES_RUN_ELSEWHERE: Final = {
    "docs/tutorials/frameworks.md": "test_frameworks.py",
    "docs/tutorials/testing.md": "test_testing.py",
}
"""Pages whose blocks are files, and the test that runs them together."""


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


def lasting(block: Block) -> Lasting | None:
    """What the last command of a block is, if it runs until Ctrl-C."""
    last = block.text.rstrip().splitlines()[-1]
    return next((each for each in LASTING if last.startswith(each.command)), None)


def chosen(language: str, *, lasts: bool = False) -> list[Any]:
    """The blocks of a language that are run here."""
    return [
        pytest.param(block, id=str(block))
        for block in BLOCKS
        if block.language == language and block.not_run is None and block.file is None
        if (lasting(block) is not None) is lasts
    ]


class Place(NamedTuple):
    """Where blocks are typed: a directory, and the environment of a shell in it."""

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


def typed(text: str, place: Place) -> tuple[str, dict[str, str]]:
    """The text with the names of this machine in place of the reader's, and the environment to type it in."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for theirs, ours in {
        "redis://redis.internal:6379/0": place.redis_url,
        "KEY_ID=…": f"KEY_ID={DEFAULT_KEY}",
        "/run/secrets/server-key": str(place.directory / "server-key"),
        "--port 8080": f"--port {port}",
        "http://127.0.0.1:8080": place.endpoint_url,
    }.items():
        text = text.replace(theirs, ours)
    if shutil.which("jq") is None:
        text = re.sub(r"\| jq \S+", "| python -m json.tool", text)
    key = {variable_of(name): DEFAULT_KEY for name in ("server_key_id", "server_key_secret")}
    return text, {**place.environ, **({} if "SERVER_KEY" in text else key)}


def answer_to(block: Block) -> Block | None:
    """The block of JSON right behind a block, which shows what that prints."""
    ends = block.line + block.text.count("\n") + 1
    return next((each for each in BLOCKS if each[:3] == (block.page, ends + 2, "json")), None)


INPUTS: Final = {
    "contacts.csv.gz": "owner,contact,op\n1,2,upsert\n1,9,delete\n",
    "contacts.jsonl.gz": '{"owner": "1", "contact": "2"}\n',
}
"""Files that blocks read."""

WITH_WORKER: Final = re.compile(r"\.wait\(|contact-sync drain")
"""What ends only if a worker runs, as one does where the reader is."""


@contextmanager
def beside(block: Block, place: Place) -> Iterator[None]:
    """A worker beside the block, if it waits for one."""
    if not WITH_WORKER.search(block.text):
        yield
        return
    with (place.directory / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            ["contact-sync", "worker", "--concurrency", "2"],
            cwd=place.directory,
            env=typed("", place)[1],
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)


@pytest.mark.parametrize("block", chosen("sh"))
def test_a_shell_block_does_what_it_is_there_for(block: Block, place: Place) -> None:
    if "curl" in block.text and shutil.which("curl") is None:
        pytest.skip("curl is not on this machine")
    for name, text in INPUTS.items():
        (place.directory / name).write_bytes(gzip.compress(text.encode()))
    line, environ = typed(block.text, place)
    with beside(block, place):
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=place.directory,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    assert '{"error"' not in ran.stdout or "times: Input should be" in ran.stdout
    shown = answer_to(block)
    assert shown is None or json.loads(ran.stdout) == json.loads(shown.text)


@pytest.mark.parametrize("block", chosen("sh", lasts=True))
def test_a_shell_block_that_lasts_comes_up_and_ends_with_ctrl_c(
    block: Block, place: Place, wait_until: WaitUntil
) -> None:
    expected = lasting(block)
    assert expected is not None
    line, environ = typed(block.text.rstrip(), place)
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
            lambda: expected.says in said.read_text() or process.poll() is not None, seconds=60, what=expected.says
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == expected.status, said.read_text()
    finally:
        process.kill()


@pytest.mark.parametrize("block", chosen("python"))
def test_a_python_block_runs_as_it_stands(block: Block, place: Place) -> None:
    with beside(block, place):
        ran = subprocess.run(
            [sys.executable, "-c", block.text],
            cwd=place.directory,
            env={**typed("", place)[1], "PYTHONWARNINGS": "error"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (0, "")
    if ("roducer(" in block.text or "xadd" in block.text) and not WITH_WORKER.search(block.text):
        with redis.Redis.from_url(place.redis_url) as client:
            lengths = [
                client.xlen(f"contact-sync:{{{p}}}:{lane}")
                for p in range(DEFAULT_PARTITIONS)
                for lane in ("events", "bulk")
            ]
        assert sum(lengths) > 0


def test_answers_are_compared() -> None:
    assert sum(answer_to(block) is not None for block in BLOCKS if block.language == "sh") == 2


@pytest.mark.parametrize("block", chosen("json"))
def test_a_json_block_is_json(block: Block) -> None:
    json.loads(block.text)


def test_every_block_is_run_or_says_why_not() -> None:
    left = [
        str(block)
        for block in BLOCKS
        if block.language not in {"sh", "python", "json", *SHOWN_ONLY} and block.not_run is None
    ]
    assert left == []
    files = {block.page for block in BLOCKS if block.file is not None and block.not_run is None}
    assert files == set(FILES_RUN_ELSEWHERE)
    assert sum(page.read_text(encoding="utf-8").count("```") for page in PAGES) == 2 * len(BLOCKS)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_given_their_script(shell: str, place: Place) -> None:
    ran = subprocess.run(
        ["contact-sync"],
        env={**place.environ, "_CONTACT_SYNC_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "contact-sync" in ran.stdout
