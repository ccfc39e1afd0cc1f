"""Writes the reference pages that say what the code says: ``python -m tests.docs.generate``.

A test compares what it would write with what is in the repository.
"""
# ruff: noqa: E501 - sentences of the pages stand here as they stand there

from __future__ import annotations

import inspect
import json
import re
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

import producers
from producers.contract.change import ID_MAX_BYTES, SOURCE_MAX_BYTES
from producers.contract.keys import Keys
from producers.contract.partitions import DEFAULT_PARTITIONS, MAX_PARTITIONS
from producers.contract.schema import entry_schema, vectors
from producers.settings import ProducerSettings, variable_of
from tests.docs.outage import told
from tests.support.snapshot import gate_of, snapshot
from worker.cli.main import COMMANDS, main
from worker.config.serve import ServeSettings
from worker.config.settings import WorkerSettings
from worker.serve.metrics import families

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
_NOTE: Final = "<!-- Written by `python -m tests.docs.generate`: change the code, not this page. -->\n\n"
_REGION: Final = re.compile(r"(<!-- table from the code -->\n\n).*?(\n\n<!-- end of it -->)", re.DOTALL)


def pages() -> dict[str, str]:
    """Returns the text of every generated page, by its path below `docs`."""
    metrics = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    return {
        "reference/settings.md": _settings(),
        "reference/commands.md": _commands(),
        "reference/redis-keys.md": _redis_keys(),
        "reference/wire-format.md": _wire_format(),
        "reference/python.md": _python(),
        "explanation/outage.md": told(json.loads((DOCS / "images" / "outage.json").read_text(encoding="utf-8"))),
        "index.md": _REGION.sub(
            lambda found: found[1] + "\n".join(_site()) + found[2], (DOCS / "index.md").read_text(encoding="utf-8")
        ),
        "reference/metrics.md": _REGION.sub(lambda found: found[1] + "\n".join(_metrics()) + found[2], metrics),
    }


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *(list(row) for row in rows)]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


# Every page


def _site() -> Iterator[str]:
    """The pages of the site by section, as `mkdocs.yml` has them."""
    _, nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")
    for section in re.split(r"^  - ", nav, flags=re.MULTILINE):
        title, _, rest = section.partition(":\n")
        found = re.findall(r"^      - \"?(.+?)\"?: (\S+\.md)$", rest, re.MULTILINE)
        if found:
            yield f"- **{title}**: " + " · ".join(f"[{name}]({path})" for name, path in found)


# Settings


def _settings() -> str:
    groups = (
        ("Producers, workers and all commands", ProducerSettings, set[str]()),
        ("Workers", WorkerSettings, set(ProducerSettings.model_fields)),
        ("`contact-sync serve`", ServeSettings, set(WorkerSettings.model_fields)),
    )
    text = (
        "# Settings\n\n"
        + _NOTE
        + "From the environment, or from a file `.env` in the current directory; the environment wins. A variable that is\n"
        "unset or empty takes its default. An invalid value is one line on standard error and exit status 2, before\n"
        "anything starts. Secrets never appear in logs, errors, `status`, process arguments or Celery messages.\n\n"
        "[.env.example](../../.env.example) has all of them in a form to copy. Which options a Redis URL may have:\n"
        "[Redis, the broker, TLS and access rules](../how-to/redis.md#options-of-a-redis-url).\n"
    )
    for heading, model, above in groups:
        rows = []
        for name, field in model.model_fields.items():
            if name in above:
                continue
            extra = field.json_schema_extra
            assert isinstance(extra, dict)
            rows.append(
                (f"`{variable_of(name)}`", _default(field.default), field.description or "", str(extra["rule"]))
            )
        text += f"\n## {heading}\n\n" + _table(("variable", "default", "what it is", "valid values"), rows)
    return text


def _default(value: object) -> str:
    if value is None or value == "":
        return "none"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


# Commands


def _commands() -> str:
    context = click.Context(main, info_name="contact-sync")
    text = (
        "# Commands\n\n"
        + _NOTE
        + "Data goes to standard output, messages to standard error. Colours are for terminals, and there are none if\n"
        "`NO_COLOR` is set. Every command has `--help`. [Exit statuses](exit-statuses.md) has what each status means, and\n"
        "[section 6 of the contract](contract.md#6-commands) what programs may rely on.\n\n"
    )
    text += _table(
        ("command", "what it does"),
        ((f"[`contact-sync {name}`](#contact-sync-{name})", place.summary) for name, place in COMMANDS.items()),
    )
    text += (
        "\n## Completion in a shell\n\n"
        "The shell completes commands and options after one of these, in its startup file:\n\n"
        "```sh\n"
        'eval "$(_CONTACT_SYNC_COMPLETE=bash_source contact-sync)"     # ~/.bashrc\n'
        "```\n\n"
        "<!-- not run: zsh and fish need not be on this machine; tests/integration/docs/test_blocks.py asks for both scripts -->\n"
        "```sh\n"
        'eval "$(_CONTACT_SYNC_COMPLETE=zsh_source contact-sync)"      # ~/.zshrc\n'
        "_CONTACT_SYNC_COMPLETE=fish_source contact-sync | source      # ~/.config/fish/config.fish\n"
        "```\n"
    )
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        text += "".join(_command(command, click.Context(command, info_name=name, parent=context), 2))
    return text


def _command(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    path = context.command_path
    below = command.commands if isinstance(command, click.Group) else {}
    shown = below.get("run", command)  # of a group that is a command too
    yield f"\n{'#' * level} {path}\n\n"
    yield f"`{' '.join([path, *shown.collect_usage_pieces(context)])}`\n"
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(shown.help or "")):
        yield "\n" + _escaped(" ".join(paragraph.replace("\b", "").split())) + "\n"
    rows = []
    for option in shown.get_params(context):
        record = option.get_help_record(context)
        if record is not None and record[1] and "--help" not in option.opts:
            rows.append((f"`{record[0]}`", _escaped(" ".join(record[1].split()))))
    if rows:
        yield "\n" + _table(("option", "what it does"), rows)
    example = re.search(r"Example:\n((?:  .*\n?)+)", inspect.cleandoc((shown.epilog or "").replace("\b", "")))
    if example is not None:
        yield "\n```text\n" + re.sub(r"^  ", "", example[1].rstrip(), flags=re.MULTILINE) + "\n```\n"
    for name, each in sorted(below.items()):
        if not each.hidden and each is not shown:
            yield from _command(each, click.Context(each, info_name=name, parent=context), level + 1)


def _escaped(text: str) -> str:
    """Keeps what is in braces, brackets or angles as it stands."""
    text = re.sub(r'(\{"[^}]*\})', r"`\1`", text)
    return re.sub(r"(?<!`)\[((?:default|required)[^\]]*|[^\]]*<=[^\]]*|x>=?\d+)\](?!`)", r"*(\1)*", text)


# Redis


def _redis_keys() -> str:
    keys = Keys("NAMESPACE")
    rows: dict[str, tuple[str, str, str]] = {}
    for name, member in vars(Keys).items():
        if name.startswith("_") or not (isinstance(member, property) or inspect.isfunction(member)):
            continue
        told = inspect.cleandoc(member.__doc__ or "")
        kind, _, rest = " ".join(told.split()).partition(" ")
        value: Any = getattr(keys, name)
        shown = value if isinstance(member, property) else value(0)
        for each in (shown,) if isinstance(shown, str) else shown:
            key = each.replace("{0}", "{P}")
            what = rest.removeprefix("of ").rstrip(".") if isinstance(shown, str) else _waiting(key)
            rows.setdefault(key, (f"`{key}`", kind.lower().removesuffix("es"), what))
    return (
        "# Redis keys\n\n"
        + _NOTE
        + "`NAMESPACE` is `CONTACT_SYNC_NAMESPACE`, and `{P}` the number of a partition with the braces around it, a Redis\n"
        "Cluster hash tag: all keys of one partition are in one slot. Only the streams of changes and the inbox are for\n"
        "programs of your own. All else may change in any release.\n\n"
        + _table(("key", "type", "what it holds"), rows.values())
        + "\n[Design](../explanation/design.md#what-grows) says what each of them is bounded by. Celery's own keys begin with\n"
        "the namespace too.\n"
    )


def _waiting(key: str) -> str:
    """What a class of waiting pairs holds, by its key."""
    lane, op = "bulk" if ":bulk" in key else "live", "deleted" if ":deletes" in key else "upserted"
    heavy = ", of owners that have very many of them" if key.endswith(":heavy") else ""
    return f"{lane} pairs to be {op}{heavy}: pair -> joined state"


# The wire format


def _wire_format() -> str:
    schema = entry_schema()
    keys = Keys("NAMESPACE")
    rows = [
        (f"`{name}`", "yes" if name in schema["required"] else "no", str(field.get("description", "")))
        for name, field in schema["properties"].items()
    ]
    found = [each for each in vectors()["partitions"] if each["partitions"] == DEFAULT_PARTITIONS][:6]
    return (
        "# Wire format of the log\n\n"
        + _NOTE
        + "What a program of any language writes. [Section 2 of the contract](contract.md#2-the-event-log-any-language-can-produce)\n"
        "has the rules; [AsyncAPI 3](schemas/asyncapi.json), [JSON Schema](schemas/change.schema.json) and\n"
        "[vectors](schemas/vectors.json) say the same to machines.\n\n"
        "## Streams\n\n"
        + _table(
            ("stream", "for"),
            (
                (f"`{keys.events(0).replace('{0}', '{P}')}`", "changes that somebody waits for"),
                (f"`{keys.bulk(0).replace('{0}', '{P}')}`", "imports and other mass changes; `at` is required here"),
                (
                    f"`{keys.inbox}`",
                    "clients that cannot compute a partition; one field `data` may hold the change in JSON",
                ),
            ),
        )
        + f"\n`P` is the CRC-32 (IEEE, as in zlib) of the owner's UTF-8 bytes, as an unsigned number, modulo the number of\n"
        f"partitions. That number is the field `partitions` of the hash `{keys.config}`: {DEFAULT_PARTITIONS} unless configured,\n"
        f"at most {MAX_PARTITIONS}.\n\n"
        + _table(
            ("owner", f"P of {DEFAULT_PARTITIONS}"), ((f"`{each['owner']}`", str(each["partition"])) for each in found)
        )
        + "\n## Fields of an entry\n\n"
        + _table(("field", "required", "meaning"), rows)
        + f"\nIds have at most {ID_MAX_BYTES} bytes of UTF-8, a source at most {SOURCE_MAX_BYTES}. Unknown fields are ignored.\n"
    )


# Python


def _python() -> str:
    text = (
        "# Python API\n\n"
        + _NOTE
        + "Everything that `producers` exports, from its docstrings; `python -m pydoc producers` shows the same in a terminal.\n"
        "[Section 7 of the contract](contract.md#7-python) says what of it stays.\n"
    )
    own = [name for name in producers.__all__ if inspect.isclass(getattr(producers, name))]
    functions = [name for name in producers.__all__ if inspect.isfunction(getattr(producers, name))]
    values = [name for name in producers.__all__ if name not in {*own, *functions}]
    errors = [name for name in own if issubclass(getattr(producers, name), Exception)]
    for heading, names in (
        ("Producers and changes", [name for name in own if name not in errors]),
        ("Functions", functions),
        ("Errors", errors),
    ):
        text += f"\n## {heading}\n" + "".join(f"\n::: {_place(name)}\n" for name in names)
    text += "\n## Types\n\n" + _table(
        ("type", "values"), ((f"`{name}`", _values(getattr(producers, name))) for name in values)
    )
    return text


def _place(name: str) -> str:
    member = getattr(producers, name)
    return f"{member.__module__}.{member.__qualname__}"


def _values(alias: Any) -> str:
    return ", ".join(f"`{each}`" for each in getattr(alias, "__args__", ())) or f"`{alias}`"


# Metrics


def _metrics() -> Iterator[str]:
    yield "| metric | type | labels | meaning |"
    yield "| --- | --- | --- | --- |"
    for family in families(snapshot(gate_of("held", reason="credentials", wait_ms=1500)), inf):
        labels = sorted({label for each in family.samples for label in each.labels} - {"le"})
        name = family.name + ("_total" if family.type == "counter" else "")
        told = ", ".join(f"`{label}`" for label in labels) or "–"  # noqa: RUF001 - as the table shows it
        yield f"| `{name}` | {family.type} | {told} | {family.documentation.removesuffix('.')} |"


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
