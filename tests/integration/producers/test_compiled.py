"""The producers of examples for Java and Go: each vector, and a real Redis, from a program of that language."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import told
from tests.support.fleet import PARTITIONS, Fleet, T
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from worker.standin.client import StandInClient

ROOT = Path(__file__).parents[3]
VECTORS: dict[str, Any] = json.loads(
    (ROOT / "docs" / "reference" / "schemas" / "vectors.json").read_text(encoding="utf-8")
)
FIELDS = ("owner", "contact", "op", "at", "source", "traceparent")

# Both read lines of words in base64: P owner partitions; E a change; S a change to be sent at the end, in one call.
JAVA = """
import java.util.*;
import static java.nio.charset.StandardCharsets.UTF_8;

public class Says {
  static String decoded(String word) { return new String(Base64.getDecoder().decode(word), UTF_8); }
  public static void main(String[] args) throws Exception {
    var out = new java.io.PrintStream(System.out, true, UTF_8);
    var sent = new ArrayList<Map<String, ?>>();
    for (var line : new Scanner(System.in, UTF_8).useDelimiter("\\n").tokens().toList()) {
      var words = line.split(" ", -1);
      if (words[0].equals("P")) {
        out.println(Producer.partitionOf(decoded(words[1]), Integer.parseInt(decoded(words[2]))));
        continue;
      }
      var change = new HashMap<String, Object>();
      var names = List.of("owner", "contact", "op", "at", "source", "traceparent");
      for (int i = 0; i < names.size(); i++) {
        var value = decoded(words[i + 1]);
        if (i == 3 && !value.isEmpty()) change.put("at", Long.valueOf(value));
        else if (i != 3 && (i < 3 || !value.isEmpty())) change.put(names.get(i), value);
      }
      if (words[0].equals("S")) { sent.add(change); continue; }
      try {
        var parts = new ArrayList<String>();
        for (var part : Producer.entryOf(change)) parts.add(Base64.getEncoder().encodeToString(part.getBytes(UTF_8)));
        out.println(String.join(" ", parts));
      } catch (IllegalArgumentException error) { out.println("! " + error.getMessage().split(" ")[0]); }
    }
    if (args.length > 0) try (var contacts = new Producer("127.0.0.1", Integer.parseInt(args[0]), args[1])) {
      for (var id : contacts.send(sent)) out.println(id);
    }
  }
}
"""
GO = """
package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"strings"

	contactsync "example.com/contactsync"
)

func main() {
	var sent []contactsync.Change
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var words []string
		for _, word := range strings.Split(lines.Text(), " ")[1:] {
			decoded, _ := base64.StdEncoding.DecodeString(word)
			words = append(words, string(decoded))
		}
		if lines.Text()[0] == 'P' {
			partitions, _ := strconv.Atoi(words[1])
			fmt.Println(contactsync.PartitionOf(words[0], partitions))
			continue
		}
		at, _ := strconv.ParseInt(words[3], 10, 64)
		change := contactsync.Change{
			Owner: words[0], Contact: words[1], Op: words[2], At: at, Source: words[4], Traceparent: words[5],
		}
		if lines.Text()[0] == 'S' {
			sent = append(sent, change)
			continue
		}
		entry, err := contactsync.EntryOf(change)
		if err != nil {
			fmt.Println("!", strings.Fields(err.Error())[0])
			continue
		}
		for i, part := range entry {
			entry[i] = base64.StdEncoding.EncodeToString([]byte(part))
		}
		fmt.Println(strings.Join(entry, " "))
	}
	if len(os.Args) > 1 {
		contacts, err := contactsync.Dial("127.0.0.1:"+os.Args[1], os.Args[2])
		if err != nil {
			panic(err)
		}
		ids, err := contacts.Send(sent)
		if err != nil {
			panic(err)
		}
		for _, id := range ids {
			fmt.Println(id)
		}
	}
}
"""


def build(language: str, directory: Path) -> list[str]:
    """Compiles the producer with a program that says what it is told to; gives the command that runs it."""
    if language == "java":
        shutil.copy(ROOT / "examples" / "java" / "Producer.java", directory)
        (directory / "Says.java").write_text(JAVA, encoding="utf-8")
        subprocess.run(["javac", "-encoding", "UTF-8", "Producer.java", "Says.java"], cwd=directory, check=True)
        return ["java", "-cp", str(directory), "Says"]
    (directory / "contactsync").mkdir()
    shutil.copy(ROOT / "examples" / "go" / "producer.go", directory / "contactsync")
    (directory / "contactsync" / "go.mod").write_text("module example.com/contactsync\n\ngo 1.19\n", encoding="utf-8")
    (directory / "main.go").write_text(GO, encoding="utf-8")
    (directory / "go.mod").write_text(
        "module says\n\ngo 1.19\n\nrequire example.com/contactsync v0.0.0\n\n"
        "replace example.com/contactsync => ./contactsync\n",
        encoding="utf-8",
    )
    subprocess.run(["go", "build", "-mod=mod", "-o", "says", "."], cwd=directory, check=True)
    return [str(directory / "says")]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.skipif(shutil.which(tool) is None, reason=f"no {tool} on this machine"))
        for name, tool in (("java", "javac"), ("go", "go"))
    ],
)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return build(request.param, tmp_path_factory.mktemp(request.param))


def line(kind: str, *words: object) -> str:
    return " ".join([kind, *(base64.b64encode(str(word).encode()).decode() for word in words)])


def of(kind: str, change: dict[str, Any]) -> str:
    return line(kind, *(change.get(name, "") for name in FIELDS))


def run(program: list[str], lines: list[str], *words: str) -> list[str]:
    ran = subprocess.run(  # noqa: PLW1510 - asserted below, with what it said
        [*program, *words], input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_every_vector_comes_out(program: list[str]) -> None:
    partitions, entries, refused = (VECTORS[name] for name in ("partitions", "entries", "refused"))
    found = run(
        program,
        [
            *(line("P", each["owner"], each["partitions"]) for each in partitions),
            *(of("E", each["change"]) for each in (*entries, *refused)),
        ],
    )
    assert found == [
        *(str(each["partition"]) for each in partitions),
        *(" ".join(base64.b64encode(part.encode()).decode() for part in each["entry"]) for each in entries),
        *(f"! {each['field']}" for each in refused),
    ]


def test_what_it_says_conforms_and_is_delivered(program: list[str], namespace: str, stand_in: StandInClient) -> None:
    said = [{"owner": str(n), "contact": '界 "9"', "op": "delete" if n % 3 else "upsert", "at": T} for n in range(50)]
    said.append({"owner": "1", "contact": "new", "op": "upsert", "source": "crm"})  # stamped where it is said
    present = {(str(each["owner"]), str(each["contact"])) for each in said if each["op"] == "upsert"}
    with EmbeddedRedis(tcp=True) as server, Fleet(server.url, namespace, stand_in) as fleet:
        port = server.url.rpartition(":")[2].partition("/")[0]
        assert fleet.first.namespace.partitions == PARTITIONS  # recorded, and not what a producer would take by itself
        ids = run(program, [of("S", each) for each in said], port, namespace)
        assert len(ids) == len(said)
        assert told(fleet, "conform")["conform"] == len(said)
        fleet.deliver()
        assert fleet.dead_letters() == []
    assert stand_in.contacts() == present
