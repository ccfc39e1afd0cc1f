"""The examples run as they stand: the tests that they bring, and the nightly reconciliation with a real database."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.worker_process import CONTACT_SYNC, WorkerProcess
from worker.local.redis import EmbeddedRedis
from worker.standin.settings import DEFAULT_KEY

if TYPE_CHECKING:
    from worker.standin.client import StandInClient

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize(("name", "tests"), [("fastapi", 2), ("django", 3)])
def test_its_own_tests_pass(name: str, tests: int, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / name, tmp_path / name)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short"],
        cwd=tmp_path / name,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{tests} passed" in ran.stdout


def test_the_nightly_reconciliation_adds_and_deletes_what_differs(tmp_path: Path, stand_in: StandInClient) -> None:
    book = tmp_path / "book.db"
    with EmbeddedRedis() as server, sqlite3.connect(book) as database:
        environ = {
            "CONTACT_SYNC_REDIS_URL": server.url,
            "CONTACT_SYNC_ENDPOINT_URL": stand_in.url,
            "CONTACT_SYNC_SERVER_KEY_ID": DEFAULT_KEY,
            "CONTACT_SYNC_SERVER_KEY_SECRET": DEFAULT_KEY,
            "CONTACT_SYNC_LEDGER_SECONDS": "forever",
            "CONTACT_SYNC_LINGER_SECONDS": "0.05",
        }
        nightly = {
            **environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DATABASE_URL": f"sqlite:///{book}",
            "REJECTS": str(tmp_path / "rejects.jsonl"),
            "WAIT_SECONDS": "60",
        }
        database.execute("CREATE TABLE contact (owner, contact)")
        database.executemany("INSERT INTO contact VALUES (?, ?)", [("1", "2"), ("1", "3"), ("7", "8")])
        database.commit()
        with WorkerProcess(environ, tmp_path / "worker", (), CONTACT_SYNC):
            _reconcile(nightly)
            assert stand_in.contacts() == {("1", "2"), ("1", "3"), ("7", "8")}
            database.execute("DELETE FROM contact WHERE contact = '3'")  # nobody says it to contact-sync
            database.commit()
            _reconcile(nightly)
            assert stand_in.contacts() == {("1", "2"), ("7", "8")}


def _reconcile(environ: dict[str, str]) -> None:
    ran = subprocess.run(
        [EXAMPLES / "reconcile" / "nightly.sh"], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == {
        *("fastapi", "django", "reconcile"),  # here
        *("node", "go", "java"),  # tests/integration/producers
        "change-data-capture",  # there too, and tests/integration/store/test_row_changes.py
    }
