"""A compiled core: the worker in plain Python, and with modules of the core compiled by mypyc.

Two copies of the tree are measured in turn, each in processes of its own: what reading, joining and encoding cost
alone, and a drain. In one copy the modules are compiled. Nobody runs it so: this shows what it would gain.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from tests.bench.changes import changes
from tests.bench.drain import drain
from tests.bench.floor import read_join_and_encode
from tests.bench.processes import PROJECT
from tests.bench.systems import append_all, ours, packed_log
from worker.core import slice as core_slice
from worker.local.redis import EmbeddedRedis
from worker.store.client import connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.changes import Change, Kind
    from tests.bench.processes import Endpoint
    from tests.bench.run import Traffic

MODULES: Final = ("slice", "fast_path", "entry", "pair", "codec", "settlement", "batch")
"""What is compiled of `worker/core`: what runs for each change. Not `counters`: mypyc's module of it fails to load."""

_COPIED: Final = ("producers", "worker", "tests")
"""Without pyproject.toml, which would make mypyc read the whole project."""

_TIMES: Final = 3
"""How often a process reads the log: the fastest counts."""


class Lacking(Exception):  # noqa: N818 - a name that says what happened needs no suffix
    """A tool that a part needs is not there."""


def compiled(at: Endpoint, traffic: Sequence[Traffic], count: int, rounds: int) -> dict[str, Any]:
    """Both copies by traffic, with an endpoint that answers at once.

    Raises:
        Lacking: there is nothing to compile with.
    """
    if lacking := _lacking():
        raise Lacking(f"there is no {', no '.join(lacking)}")
    with tempfile.TemporaryDirectory(prefix="contact-sync-compiled-") as directory:
        pure, fast = (copy(Path(directory) / name) for name in ("pure", "compiled"))
        _compile(fast)
        found = {}
        for each in traffic:
            runs = [
                _compare(at, each.kind, changes(count, each.kind, seed, each.stamped), pure, fast)
                for seed in range(rounds)
            ]
            found[each.name] = _medians(runs) | {"runs": runs}
    return {"mypyc": version("mypy"), "by_traffic": found}


def _lacking() -> list[str]:
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    there = {
        "setuptools": importlib.util.find_spec("setuptools") is not None,
        "C compiler": shutil.which(compiler) is not None,
        "Python.h": Path(sysconfig.get_path("include"), "Python.h").exists(),
    }
    return [name for name, is_there in there.items() if not is_there]


def copy(root: Path) -> Path:
    """Copies what runs there."""
    for name in _COPIED:
        shutil.copytree(PROJECT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def _compile(root: Path) -> None:
    _python(root, "mypyc", *(f"worker/core/{name}.py" for name in MODULES))


def _compare(at: Endpoint, kind: Kind, given: Sequence[Change], pure: Path, fast: Path) -> dict[str, float]:
    with EmbeddedRedis(tcp=True) as server:
        append_all(server.url, packed_log(given))
        plain, quick = steps(pure, server.url), steps(fast, server.url)
    assert (plain["compiled"], quick["compiled"]) == (False, True)
    assert plain["body"] == quick["body"], "the copies write different bodies"
    drained, faster = (drain(ours(PYTHONPATH=str(root)), at, kind, 0, given) for root in (pure, fast))
    return {
        "pure_us": plain["seconds"] / len(given) * 1e6,
        "compiled_us": quick["seconds"] / len(given) * 1e6,
        "pure_rate": drained.rate,
        "compiled_rate": faster.rate,
    }


def _medians(runs: Sequence[dict[str, float]]) -> dict[str, Any]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]} | {
        "ratio": statistics.median(run["pure_us"] / run["compiled_us"] for run in runs),
        "drain_ratio": statistics.median(run["compiled_rate"] / run["pure_rate"] for run in runs),
    }


def steps(root: Path, url: str) -> dict[str, Any]:
    """Reads, joins and encodes the log of that Redis by the code of a copy: the processor time, and what ran."""
    found: dict[str, Any] = json.loads(_python(root, "tests.bench.compiled", url))
    if not Path(found["code"]).is_relative_to(root):
        raise RuntimeError(f"{found['code']} ran, not the copy in {root}")
    return found


def _python(root: Path, module: str, *arguments: str) -> str:
    """Runs a module of a copy. PYTHONPATH alone says where the code is, as it does for the worker."""
    command = [sys.executable, "-P", "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module}: {(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def _steps(url: str) -> dict[str, Any]:
    client = connect(url)
    took, body = [], b""
    for _ in range(_TIMES):
        begun = time.process_time()
        body = read_join_and_encode(client)
        took.append(time.process_time() - begun)
    client.close()
    code = core_slice.__file__
    return {"code": code, "compiled": not code.endswith(".py"), "seconds": min(took), "body": crc32(body)}


if __name__ == "__main__":
    print(json.dumps(_steps(sys.argv[1])))  # noqa: T201 - the process that asked reads it
