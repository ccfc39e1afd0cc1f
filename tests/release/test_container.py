"""In a container: process 1, nobody special, a root that cannot be written; bubblewrap around the installed wheel."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import pytest

from worker.standin.settings import DEFAULT_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.local.redis import EmbeddedRedis
    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(300)

NOBODY: Final = "10001"


@contextmanager
def container(
    installed: Path, tmp_path: Path, *command: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Runs a command as process 1; gives bubblewrap's process and the id that the command has outside."""
    bwrap = shutil.which("bwrap")
    if bwrap is None or subprocess.run([bwrap, "--ro-bind", "/", "/", "true"], check=False, timeout=30).returncode:
        pytest.skip("bubblewrap is not here, or may not make namespaces")
    tells, told = os.pipe()
    url = urlsplit(environment.get("CONTACT_SYNC_REDIS_URL", ""))
    sockets = [str(Path(url.path).parent)] if url.scheme == "unix" else []
    variables = {"PATH": f"{installed}:{os.defpath}", "PYTHONUNBUFFERED": "1", **environment}
    options = [
        *("--unshare-all", "--share-net", "--as-pid-1", "--die-with-parent", "--uid", NOBODY, "--gid", NOBODY),
        *("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),  # noqa: S108 - the container's own
        *("--ro-bind", str(installed.parent), str(installed.parent), "--ro-bind", str(tmp_path), str(tmp_path)),
        *(word for path in sockets for word in ("--bind", path, path)),
        *("--cap-drop", "ALL", "--chdir", "/", "--clearenv", "--info-fd", str(told)),
        *(word for name, value in variables.items() for word in ("--setenv", name, value)),
    ]
    with subprocess.Popen(
        [bwrap, *options, *command],
        pass_fds=[told],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        os.close(told)
        with os.fdopen(tells) as info:
            inside: int = json.load(info)["child-pid"]
        try:
            yield process, inside
        finally:
            process.kill()


def test_it_is_process_1_and_nobody_special_and_cannot_write(installed: Path, tmp_path: Path) -> None:
    looks = "import os; print(os.getpid(), os.getuid()); open('/written', 'w')"
    with container(installed, tmp_path, "python", "-c", looks) as (process, _):
        said, _ = process.communicate(timeout=60)
    assert said.startswith(f"1 {NOBODY}\n")
    assert "Read-only file system" in said


LASTING: Final = {
    "worker": (["worker"], " ready.", 0),
    "serve": (["serve", "--port", "0"], "contact-sync serves on", 143),
    "stand-in": (["endpoint", "--port", "0"], "Ctrl-C ends it", 143),
    "relay": (["relay", "sqlite:////tmp/app.db", "--create-tables"], "relay_started", 143),
    "reconcile": (["reconcile", "/none.csv", "--every", "6h"], "none.csv", 143),
    "status --watch": (["status", "--watch"], "nothing waits", 143),
}
"""What runs until it is asked to end: what it says once it is up, and its status after SIGTERM."""


@pytest.mark.parametrize("name", LASTING)
def test_process_1_ends_soon_when_it_is_asked_to(  # noqa: PLR0913, PLR0917 - fixtures
    installed: Path, redis_server: EmbeddedRedis, namespace: str, stand_in: StandInClient, tmp_path: Path, name: str
) -> None:
    """The kernel ignores for process 1 every signal that it does not handle itself; many runtimes give no other."""
    command, says, status = LASTING[name]
    given = {
        "CONTACT_SYNC_REDIS_URL": redis_server.url,
        "CONTACT_SYNC_NAMESPACE": namespace,
        "CONTACT_SYNC_ENDPOINT_URL": stand_in.url,
        "CONTACT_SYNC_SERVER_KEY_ID": DEFAULT_KEY,
        "CONTACT_SYNC_SERVER_KEY_SECRET": DEFAULT_KEY,
    }
    with container(installed, tmp_path, "contact-sync", *command, **given) as (process, inside):
        assert process.stdout is not None
        heard = ""
        while says not in heard:
            line = process.stdout.readline()
            assert line, heard
            heard += line
        os.kill(inside, signal.SIGTERM)
        assert process.wait(30) == status
