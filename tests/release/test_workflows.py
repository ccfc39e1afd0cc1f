"""The workflows on GitHub and the Compose file: allowed by their schemas, pinned, and in step with the project."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from typing import Any, Final

import pytest

from tests.release.tools import PROJECT, tool

WORKFLOWS: Final = PROJECT / ".github" / "workflows"
SCHEMAS: Final = [
    *(
        (f".github/workflows/{name}.yml", schema)
        for name in ("ci", "release")
        for schema in ("vendor.github-workflows", "custom.github-workflows-require-timeout")
    ),
    ("docker-compose.yml", "vendor.compose-spec"),
]


def workflow(name: str) -> dict[str, Any]:
    """A workflow as YAML has it; its `on` is YAML's word for true."""
    program = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout, default=str)"
    text = (WORKFLOWS / name).read_text(encoding="utf-8")
    ran = subprocess.run([tool("python"), "-c", program], input=text, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def steps(job: dict[str, Any]) -> str:
    return json.dumps(job["steps"])


@pytest.mark.parametrize(("name", "schema"), SCHEMAS)
def test_the_schema_allows_it(name: str, schema: str) -> None:
    ran = subprocess.run(
        [tool("check-jsonschema"), "--builtin-schema", schema, PROJECT / name],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stdout


def test_every_action_is_pinned_by_its_commit() -> None:
    uses = [line for path in WORKFLOWS.glob("*.yml") for line in path.read_text(encoding="utf-8").splitlines()]
    uses = [line.partition("uses: ")[2] for line in uses if "uses: " in line]
    assert uses
    for each in uses:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", each), each


def test_ci_does_what_the_script_does_on_every_python_that_the_project_names() -> None:
    classifiers = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]
    named = [each.rpartition(" ")[2] for each in classifiers if re.search(r"Python :: 3\.\d+$", each)]
    job = workflow("ci.yml")["jobs"]["check"]
    assert job["strategy"]["matrix"]["python"] == [*named, "3.14"]  # tried there, and not promised yet
    assert "bash .ci/run" in steps(job)


def test_a_release_is_checked_before_it_is_published_without_a_token() -> None:
    found = workflow("release.yml")
    assert found["permissions"] == {"contents": "read"}
    build, publish = found["jobs"]["build"], found["jobs"]["publish"]
    assert "make dist TAG=" in steps(build)
    assert "pytest tests/release" in steps(build)
    assert (publish["needs"], publish["environment"]) == ("build", "pypi")
    assert publish["permissions"] == {"id-token": "write"}
    assert "checkout" not in steps(publish)  # what may publish runs nothing of the project's
    assert "secrets." not in (WORKFLOWS / "release.yml").read_text(encoding="utf-8")
