"""All data of one machine in one file, and back: nothing is sent from a backup before somebody has seen it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import pytest
import redis

from producers import ContactProducer
from tests.support.waiting import wait_until
from worker.local.backup import save
from worker.local.redis import EmbeddedRedis
from worker.standin.settings import DEFAULT_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(180)

MAIN = [sys.executable, "-P", "-c", "from worker.cli.main import main; main()"]


class Machine(NamedTuple):
    """A machine that delivers to the stand-in, and what is run on it."""

    directory: Path
    environ: dict[str, str]

    def run(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*MAIN, *args],
            cwd=self.directory,
            env=self.environ | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @contextmanager
    def up(self, *options: str) -> Iterator[str]:
        """The URL of the Redis of an `up` that runs."""
        with subprocess.Popen(
            [*MAIN, "up", "--data", "data", *options],
            cwd=self.directory,
            env=self.environ,
            stdout=-1,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                url = next(line.split()[1] for line in process.stdout if line.startswith("Redis"))
                yield url
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=60)
            finally:
                process.kill()

    def status(self, url: str) -> Any:
        return orjson.loads(self.run("status", "--json", CONTACT_SYNC_REDIS_URL=url).stdout)


@pytest.fixture
def machine(stand_in: StandInClient) -> Iterator[Machine]:
    given = {
        "ENDPOINT_URL": stand_in.url,
        "SERVER_KEY_ID": DEFAULT_KEY,
        "SERVER_KEY_SECRET": DEFAULT_KEY,
        "LINGER_SECONDS": "0",
    }
    environ = {**os.environ, **{f"CONTACT_SYNC_{name}": value for name, value in given.items()}}
    # A short path, so that sockets fit in. A Redis may still write as it ends.
    with tempfile.TemporaryDirectory(prefix="cs-", ignore_cleanup_errors=True) as directory:
        yield Machine(Path(directory), environ)


@pytest.mark.parametrize("options", [(), ("--tcp",)], ids=["socket", "tcp"])
def test_what_is_restored_brings_back_no_deleted_contact_unseen(
    machine: Machine, stand_in: StandInClient, options: tuple[str, ...]
) -> None:
    with machine.up(*options) as url, ContactProducer(url) as producer:
        stand_in.faults({"kind": "status", "status": 503})
        producer.upsert("1", "deleted since")
        producer.upsert("1", "still there")
        backup = machine.run("up", "--data", "data", "--backup", "evening.rdb")
        assert (backup.returncode, backup.stderr) == (0, "")
        stand_in.remove_faults()
        wait_until(lambda: len(stand_in.contacts()) == 2, seconds=30, what="both are there")
        producer.delete("1", "deleted since")
        wait_until(lambda: len(stand_in.contacts()) == 1, seconds=30, what="one was deleted")
    assert (machine.directory / "evening.rdb").stat().st_mode & 0o777 == 0o600
    (machine.directory / "data").rename(machine.directory / "broken")

    restored = machine.run("up", "--data", "data", "--restore", "evening.rdb")
    assert (restored.returncode, restored.stderr) == (0, "")
    entries, pairs = map(int, re.findall(r"(\d+) entries in the log, (\d+) pairs pending", restored.stdout)[0])
    assert entries + pairs == 2
    assert "contact-sync resume" in restored.stdout
    stand_in.clear_history()
    with machine.up(*options) as url, ContactProducer(url) as producer:
        wait_until(lambda: machine.status(url)["worker_awake"], seconds=30, what="a worker is awake")
        found = machine.status(url)
        assert found["endpoint"]["reason"] == "paused"
        assert found["waiting_changes"] == 2
        assert found["lost"]["accepted_after"] is not None
        assert stand_in.contacts() == {("1", "still there")}
        producer.delete("1", "deleted since")  # said again
        machine.run("resume", CONTACT_SYNC_REDIS_URL=url)
        wait_until(lambda: machine.status(url)["waiting_changes"] == 0, seconds=30, what="all is delivered")
    assert stand_in.contacts() == {("1", "still there")}
    assert ("deleted since", "upsert") not in {(each["contact"], each["op"]) for each in stand_in.applied()}


def test_a_backup_of_data_that_nobody_uses_is_the_same(machine: Machine) -> None:
    with machine.up() as url, redis.Redis.from_url(url) as client:
        client.set("contact-sync:mine", "1")
    assert machine.run("up", "--data", "data", "--backup", "evening.rdb").returncode == 0
    assert machine.run("up", "--data", "other", "--restore", "evening.rdb").returncode == 0
    (machine.directory / "data").rename(machine.directory / "broken")
    (machine.directory / "other").rename(machine.directory / "data")
    with machine.up() as url, redis.Redis.from_url(url) as client:
        assert client.get("contact-sync:mine") == b"1"


def test_backups_at_the_same_time_wait_for_each_other(tmp_path: Path) -> None:
    targets = [tmp_path / name for name in ("a.rdb", "b.rdb", "a.rdb", "b.rdb")]
    with (
        tempfile.TemporaryDirectory(prefix="cs-", ignore_cleanup_errors=True) as directory,
        EmbeddedRedis(Path(directory)) as server,
        ThreadPoolExecutor(len(targets)) as pool,
    ):
        for _ in range(5):
            list(pool.map(lambda file: save(server.url, Path(directory), file), targets))
    assert {each.read_bytes()[:5] for each in targets} == {b"REDIS"}


def test_a_backup_replaces_only_a_regular_file_outside_of_the_data(machine: Machine) -> None:
    directory = machine.directory
    os.mkfifo(directory / "pipe")
    (directory / "link").symlink_to("evening.rdb")
    (directory / "same").symlink_to("data")
    with machine.up():
        for name, said in (
            ("data/dump.rdb", "is in the data directory"),
            ("data/redis.sock", "is in the data directory"),
            ("same/mine.rdb", "is in the data directory"),
            ("pipe", "is not a regular file"),
        ):
            ran = machine.run("up", "--data", "data", "--backup", name)
            assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (2, "", 1)
            assert f"--backup {name} {said}" in ran.stderr
        for _ in range(2):  # the first makes the file, and the second replaces it
            assert machine.run("up", "--data", "data", "--backup", "link").returncode == 0
    assert (directory / "pipe").is_fifo()
    assert (directory / "link").is_symlink()
    assert (directory / "evening.rdb").read_bytes().startswith((b"REDIS", b"VALKEY"))


def refused(machine: Machine, *args: str, **variables: str) -> str:
    ran = machine.run("up", *args, **variables)
    assert (ran.returncode, ran.stdout) in {(1, ""), (2, "")}
    return ran.stderr


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that cannot be read is /proc/self/mem")
def test_a_backup_that_cannot_be_read_is_named(machine: Machine) -> None:
    line = refused(machine, "--data", "data", "--restore", "/proc/self/mem")
    assert "/proc/self/mem cannot be read: Input/output error" in line


def test_what_cannot_be_done_is_one_line_and_changes_nothing(machine: Machine) -> None:
    directory = machine.directory
    (directory / "nonsense").write_text("nonsense", encoding="utf-8")
    (directory / "cut").write_bytes(b"REDIS0011" + b"\0" * 100)
    assert "need --data" in refused(machine, "--backup", "x")
    assert "exclude each other" in refused(machine, "--data", "d", "--backup", "x", "--restore", "x")
    for args, said in (
        (("--backup", "x"), "holds no data"),
        (("--restore", "missing"), "missing cannot be read: No such file"),
        (("--restore", "nonsense"), "nonsense is not a backup"),
        (("--restore", "cut"), "cut cannot be read: it is damaged, or of a newer server"),
    ):
        line = refused(machine, "--data", "data", *args)
        assert said in line
        assert len(line.splitlines()) == 1
    with machine.up():
        pass
    assert machine.run("up", "--data", "data", "--backup", "good").returncode == 0
    assert "is not empty" in refused(machine, "--data", "data", "--restore", "good")
    line = refused(machine, "--data", "new", "--restore", "good", CONTACT_SYNC_NAMESPACE="other")
    assert "nothing of namespace 'other'" in line
    line = refused(machine, "--data", "data", "--backup", "nowhere/good")
    assert "nowhere/good cannot be written" in line
    assert sorted(each.name for each in directory.iterdir()) == ["cut", "data", "good", "nonsense"]
