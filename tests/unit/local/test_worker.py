"""What a kept worker learns of its owner's environment: nothing that decides what it connects to."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from worker.config.settings import WorkerSettings, load_worker_settings
from worker.local.worker import environment_of, last_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

SETTINGS = WorkerSettings(redis_url="unix:///tmp/r.sock?db=0", server_key_id=SecretStr("id"), linger_seconds=0.2)


@pytest.fixture
def log() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as file:
        yield file


def test_it_works_with_exactly_the_settings_of_its_owner() -> None:
    assert load_worker_settings(environment_of(SETTINGS, {}), None, require_credentials=False) == SETTINGS


@pytest.mark.parametrize(
    "name",
    ["CONTACT_SYNC_BROKER_URL", "CELERY_BROKER_URL", "BROKER_URL", "APP", "CONFIG_MODULE", "NO_COLOR", "http_proxy"],
)
def test_nothing_else_is_passed_on_that_could_lead_it_elsewhere(name: str) -> None:
    assert name not in environment_of(SETTINGS, {name: "elsewhere"})


@pytest.mark.parametrize("name", ["PATH", "TMPDIR", "LC_ALL", "PYTHONPATH"])
def test_what_any_program_needs_is_passed_on(name: str) -> None:
    assert environment_of(SETTINGS, {name: "as it is"})[name] == "as it is"


def test_a_path_is_as_good_in_its_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = WorkerSettings(server_key_secret_file=Path("secret"))
    assert environment_of(settings, {})["CONTACT_SYNC_SERVER_KEY_SECRET_FILE"] == str(tmp_path / "secret")


@pytest.mark.parametrize(
    ("written", "last"),
    [(b"one\ntwo \n\n", "two"), (b"x" * 100_000 + b"\nlast", "last"), (b"", "no output"), (b"\xff", "\ufffd")],
)
def test_the_last_line_of_a_log_is_found_without_moving_the_writers_place(
    written: bytes, last: str, log: IO[bytes]
) -> None:
    log.write(written)
    log.flush()
    assert last_line(log) == last
    assert log.seek(0, io.SEEK_CUR) == len(written)
