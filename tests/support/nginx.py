"""A real nginx for the tests, where it is: on PATH, or where `make nginx` puts it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

UNPACKED: Final = Path(__file__).parents[2] / ".venv" / "nginx" / "usr" / "sbin"

_CONFIGURATION: Final = """
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen unix:{directory}/socket;
    location / {{
      proxy_pass {to};
      {directives}
    }}
  }}
}}
"""


@contextmanager
def nginx(to: str, directives: str) -> Iterator[str]:
    """A proxy before a URL; gives the path of its socket. Skips the test if there is no nginx.

    Args:
        to: the URL, without a slash at its end.
        directives: what its `location` has besides `proxy_pass`.
    """
    found = shutil.which("nginx") or shutil.which("nginx", path=UNPACKED)
    if found is None:
        pytest.skip("no nginx on this machine: make nginx brings it, from Debian's packages")
    with tempfile.TemporaryDirectory(prefix="cs-nginx-") as directory:
        configuration = Path(directory, "nginx.conf")
        configuration.write_text(_CONFIGURATION.format(directory=directory, to=to, directives=directives))
        log, socket = Path(directory, "error.log"), Path(directory, "socket")
        command = [found, "-p", directory, "-e", str(log), "-c", str(configuration)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: socket.exists() or process.poll() is not None, what="nginx listens")
            assert process.poll() is None, log.read_text(encoding="utf-8")
            yield str(socket)
        finally:
            process.terminate()
            process.wait(30)
