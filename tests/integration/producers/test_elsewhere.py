"""The producers in examples, run by their own languages against a real Redis."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fleet import PARTITIONS, Fleet, T
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from worker.standin.client import StandInClient

ROOT = Path(__file__).parents[3]
VECTORS_FILE = ROOT / "docs" / "reference" / "schemas" / "vectors.json"
VECTORS: dict[str, Any] = json.loads(VECTORS_FILE.read_text(encoding="utf-8"))
NODE = pytest.mark.skipif(shutil.which("npm") is None, reason="it is of Node.js, which is not on this machine")

COMPARES = """
import { readFileSync } from "node:fs";
import { entryOf, partitionOf, streamOf } from "./producer.mjs";
const { partitions, entries, streams, refused } = JSON.parse(readFileSync("vectors.json"));
const refusal = (change) => { try { entryOf(change); } catch (error) { return error.message.split(" ")[0]; } };
console.log(JSON.stringify({
  partitions: partitions.map((each) => ({ ...each, partition: partitionOf(each.owner, each.partitions) })),
  entries: entries.map(({ change }) => ({ change, entry: Object.entries(entryOf(change)).flat() })),
  streams: streams.map((each) => ({ ...each, stream: streamOf(each, each.partitions) })),
  refused: refused.map(({ change }) => ({ change, field: refusal(change) })),
}));
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the producer and its client."""
    directory = tmp_path_factory.mktemp("node")
    for path in (ROOT / "examples" / "node" / "producer.mjs", VECTORS_FILE):
        shutil.copy(path, directory)
    npm = shutil.which("npm") or ""
    subprocess.run([npm, "install", "--silent", "--no-audit", "redis@5.12.1"], cwd=directory, check=True, timeout=120)
    return directory


def run(directory: Path, *words: str, given: str = "") -> str:
    program = shutil.which("node") or ""
    ran = subprocess.run([program, *words], cwd=directory, input=given, capture_output=True, text=True, timeout=60)  # noqa: PLW1510 - asserted below, with what it said
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@NODE
def test_in_node_every_vector_comes_out(node: Path) -> None:
    (node / "compares.mjs").write_text(COMPARES, encoding="utf-8")
    assert json.loads(run(node, "compares.mjs")) == VECTORS


@NODE
def test_what_node_says_is_delivered(node: Path, namespace: str, stand_in: StandInClient) -> None:
    said = [{"owner": str(n), "contact": '界 "9"', "op": "delete" if n % 3 else "upsert", "at": T} for n in range(50)]
    lines = "".join(json.dumps(each) + "\n" for each in said) + '{"owner": "1", "contact": "new", "op": "upsert"}\n'
    present = {(each["owner"], each["contact"]) for each in said if each["op"] == "upsert"} | {("1", "new")}
    # Its client takes no URL of a socket.
    with EmbeddedRedis(tcp=True) as server, Fleet(server.url, namespace, stand_in) as fleet:
        assert fleet.first.namespace.partitions == PARTITIONS  # recorded, and not what a producer would take by itself
        run(node, "producer.mjs", server.url, namespace, given=lines)
        fleet.deliver()
        assert fleet.dead_letters() == []
    assert stand_in.contacts() == present
