"""A current directory that cannot be read, or is gone, and a `.env` that cannot be read: never a traceback."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fleet import Fleet

PRODUCE = (
    sys.executable,
    "-c",
    "import sys; from producers import ContactProducer as P; P(sys.argv[1]).upsert('1', '2')",
)
LINES = ("status", "check", "health", "worker", "serve", "emit", "endpoint", "relay sqlite://", "reconcile history")
_DROP_FROM_BOUNDING_SET, _DAC = 24, (1, 2)  # prctl's number, and the capabilities by which root reads everything

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")


def _obey_permissions() -> None:
    """Lets permissions hold for root, too, once the process has begun its program."""
    if os.geteuid() == 0:
        prctl = ctypes.CDLL(None).prctl
        for capability in _DAC:
            assert prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0) == 0


def run_in(
    directory: Path, *args: str | Path, environ: dict[str, str], gone: bool = False
) -> subprocess.CompletedProcess[str]:
    def begin() -> None:
        os.chdir(directory)
        if gone:
            directory.rmdir()
        _obey_permissions()

    return subprocess.run(
        args,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        input="",
        preexec_fn=begin,
    )


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A directory that nobody may enter."""
    directory = tmp_path / "locked"
    directory.mkdir()
    (directory / ".env").write_text("CONTACT_SYNC_NAMESPACE=other\n")
    directory.chmod(0)
    yield directory
    directory.chmod(0o700)


def directory_of(kind: str, locked: Path) -> Path:
    if kind == "locked":
        return locked
    (directory := locked.parent / "gone").mkdir()
    return directory


@pytest.mark.parametrize("gone", ["locked", "gone"])
@pytest.mark.parametrize("line", ["status --json", "emit", "health", "check", "reconcile history"])
def test_a_directory_that_cannot_be_read_is_harmless(line: str, gone: str, locked: Path, fleet: Fleet) -> None:
    directory = directory_of(gone, locked)
    ran = run_in(directory, COMMAND, *line.split(), environ=fleet.environment(), gone=gone == "gone")
    assert "Traceback" not in ran.stderr
    assert ran.returncode == (1 if line == "check" and "wrong" in ran.stdout else 0)


@pytest.mark.parametrize("gone", ["locked", "gone"])
def test_a_producer_sends_from_there(gone: str, locked: Path, fleet: Fleet) -> None:
    directory = directory_of(gone, locked)
    environ = fleet.environment()
    ran = run_in(directory, *PRODUCE, environ["CONTACT_SYNC_REDIS_URL"], environ=environ, gone=gone == "gone")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert fleet.backlog() == 1


@pytest.mark.parametrize("line", LINES)
def test_a_file_that_cannot_be_read_is_one_line(line: str, tmp_path: Path, fleet: Fleet) -> None:
    (tmp_path / ".env").touch(mode=0)
    ran = run_in(tmp_path, COMMAND, *line.split(), environ=fleet.environment())
    assert ran.returncode == 2
    assert [*ran.stderr.splitlines(), *ran.stdout.splitlines()] == [
        "contact-sync: .env cannot be read: Permission denied"
    ]
