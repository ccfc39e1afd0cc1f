"""``python -m tests.servers.run``: a slice of the suite with each other server that `make servers` brought.

The suite itself runs with the server on PATH, or the one of the extra ``embedded``, which is Redis 8.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

SERVERS: Final = Path(__file__).parents[2] / ".venv" / "servers"

KINDS: Final = {"redis6": "Redis 6.2", "redis7": "Redis 7.0", "valkey": "Valkey"}

SLICE: Final = (
    "tests/integration/store/test_claim_and_settle.py",
    "tests/integration/store/test_settle_keeps.py",
    "tests/integration/redis/test_arguments.py::test_a_large_batch_is_confirmed",
    "tests/integration/redis/test_arguments.py::test_a_large_batch_without_an_answer_is_marked_late",
    "tests/integration/redis/test_cluster_commands.py::test_what_a_redis_before_7_refuses_is_found_on_the_nodes",
    "tests/security/test_access_rules.py",
    "tests/integration/redis/test_cluster_workers.py::test_slots_move_under_load",
    "tests/integration/worker/test_waiting_is_useless.py::test_a_plain_url_to_a_node_of_a_cluster_is_one_line_and_status_2",
    "tests/integration/commands/test_up_backup.py::test_a_backup_of_data_that_nobody_uses_is_the_same",
)
"""What differs between servers if anything does: scripts, arguments that are packed, access rules, a cluster whose
slots move, how a server says what it is, the form of its files."""


def main() -> int:
    """Runs it; returns 1 if a test failed with one of them."""
    failed = 0
    for directory, name in KINDS.items():
        program = SERVERS / directory / "redis-server"
        if not program.exists():
            print(f"{name} is not to be had here: nothing was run with it", flush=True)  # noqa: T201 - for people
            continue
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split(
            " sha"
        )[0]
        print(f"with {version}:", flush=True)  # noqa: T201 - the same
        environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
        asked = [sys.executable, "-m", "pytest", "-q", "-n", "4", *SLICE]
        failed |= subprocess.run(asked, env=environment, check=False).returncode
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
