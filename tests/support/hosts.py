"""Hosts of their own on this machine: network namespaces joined by two switches, whose links can be cut and healed.

Each host has one address for Redis and one for the endpoint, so that either can be out of its reach. The switches are
in a namespace of their own, too, and so is whoever is `outside`: nothing of this machine's own network is touched. No
namespace has a name, so all are gone with their last process, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self

import pytest

from worker.local.process import ProcessStartError, SupervisedProcess
from worker.standin.client import StandInClient

if TYPE_CHECKING:
    from collections.abc import Iterator

UNPACKED: Final = Path(__file__).parents[2] / ".venv" / "iproute2"
"""Where `make iproute2` puts it."""

_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET
_NETWORKS: Final = {"redis": "10.77.0", "endpoint": "10.78.0"}
_SWITCH: Final = 254

Network = Literal["redis", "endpoint"]

_SERVES: Final = (
    "from worker.standin.server import serve\n"
    f"serve('{_NETWORKS['endpoint']}.{_SWITCH}', 0, announce=lambda url: print(url, flush=True))"
)


class Namespace:
    """One network namespace, and who lives in it.

    Args:
        process: keeps it.
    """

    def __init__(self, process: SupervisedProcess) -> None:
        self._process = process

    @property
    def path(self) -> str:
        """Where the kernel shows it."""
        return f"/proc/{self._process.pid}/ns/net"

    @property
    def pid(self) -> int:
        """Of the process that keeps it."""
        return self._process.pid

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread opens and starts meanwhile is in this namespace, and stays there."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _enter(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(before)


class Hosts:
    """Started on entry, gone on exit. Skips the test where there is no right to network namespaces.

    Args:
        count: how many hosts.

    Attributes:
        hosts: in their order.
        outside: where the switches are: whoever is there reaches every host whose links are whole.
    """

    def __init__(self, count: int = 3) -> None:
        self._count = count
        self._open = ExitStack()
        self.hosts: list[Namespace] = []

    def __enter__(self) -> Self:
        self._ip = _program()
        with ExitStack() as undo:
            self.outside = _namespace(undo)
            lines = ["link set lo up"]
            for network, prefix in _NETWORKS.items():
                lines += [f"link add {network} type bridge", f"addr add {prefix}.{_SWITCH}/24 dev {network}"]
                lines += [f"link set {network} up"]
            self._run(self.outside, lines)
            for i in range(self._count):
                host = _namespace(undo)
                self.hosts.append(host)
                for network in _NETWORKS:
                    port = _port(network, i)
                    lines = [f"link add {port} type veth peer name {network} netns {host.pid}"]
                    self._run(self.outside, [*lines, f"link set {port} master {network}", f"link set {port} up"])
                lines = ["link set lo up"]
                for network in _NETWORKS:
                    lines += [f"addr add {self.address(i, network)}/24 dev {network}", f"link set {network} up"]
                self._run(host, lines)
            self._open = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @staticmethod
    def address(host: int, network: str = "redis") -> str:
        """A host's address in a network."""
        return f"{_NETWORKS[network]}.{host + 1}"

    def cut(self, host: int, network: Network = "redis") -> None:
        """Pulls a host's plug: what is sent is gone, and nobody is told."""
        self._run(self.outside, [f"link set {_port(network, host)} down"])

    def heal(self, host: int, network: Network = "redis") -> None:
        """Puts it back."""
        self._run(self.outside, [f"link set {_port(network, host)} up"])

    @contextmanager
    def stand_in(self) -> Iterator[StandInClient]:
        """The endpoint, outside, reached by every host over its second network; use the client outside."""
        with self.outside.inside(), tempfile.TemporaryFile() as log:
            process = SupervisedProcess([sys.executable, "-c", _SERVES], stdout=subprocess.PIPE, stderr=log)
            with process:
                assert process.stdout is not None
                client = StandInClient(process.stdout.readline().decode().strip())
                try:
                    yield client
                finally:
                    client.close()

    def _run(self, namespace: Namespace, lines: list[str]) -> None:
        with namespace.inside():
            ran = subprocess.run(
                [self._ip, "-batch", "-"], input="\n".join(lines) + "\n", check=False, capture_output=True, text=True
            )
        if ran.returncode:
            if "Unknown device type" in ran.stderr or "not supported" in ran.stderr:
                pytest.skip(f"this machine's kernel makes no bridges or pairs of links: {ran.stderr.splitlines()[0]}")
            raise AssertionError(f"ip: {lines}: {ran.stderr}")


def _port(network: str, host: int) -> str:
    return f"{network[:5]}-{host}"


def _program() -> str:
    """The command `ip`, from the machine or as it was unpacked; skips the test without it."""
    if os.geteuid():
        pytest.skip("only root makes network namespaces")
    found = shutil.which("ip") or shutil.which("ip", path=f"/sbin:/usr/sbin:{UNPACKED}")
    if found is None:
        pytest.skip("no ip on this machine: make iproute2 brings it, from Debian's packages")
    return found


def _namespace(undo: ExitStack) -> Namespace:
    command = [shutil.which("unshare") or "unshare", "--net", "sleep", "infinity"]
    own = Path("/proc/self/ns/net").stat().st_ino
    try:
        process = undo.enter_context(SupervisedProcess(command, stderr=subprocess.DEVNULL))
    except ProcessStartError as error:
        pytest.skip(f"network namespaces are not to be had here: {error}")
    made = Namespace(process)
    for _ in range(2_000):
        if process.poll() is not None:
            pytest.skip("network namespaces are not allowed here")
        if Path(made.path).stat().st_ino != own:  # it has begun
            return made
        os.sched_yield()
    raise AssertionError("no namespace was made")


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _NEW_NETWORK):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
