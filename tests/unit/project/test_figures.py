"""The figures that the documentation names are the constants that the code runs with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from producers.contract.change import AT_AHEAD_MS, AT_MIN_MS
from producers.contract.partitions import DEFAULT_PARTITIONS
from producers.spool.store import SPOOL_BYTES
from worker.cli.reconcile import run as reconcile_run
from worker.config.settings import WorkerSettings
from worker.core.dead_letter import DEAD_CAP
from worker.core.gate import SINGLE_REJECTIONS_MAX
from worker.delivery.request import DOUBT_SECONDS, HOLD_SECONDS
from worker.delivery.tracing import LINKS_MAX
from worker.reconcile import Limits
from worker.reconcile.history import KEPT as RUNS_KEPT
from worker.serve.access import SESSION_SECONDS
from worker.serve.audit import KEPT as AUDIT_KEPT
from worker.store.refusal import OLDEST_REDIS

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[3]
DEFAULTS = {name: field.default for name, field in WorkerSettings.model_fields.items()}


class Figure(NamedTuple):
    """A figure in a document.

    Attributes:
        document: its path from the project's root.
        words: what the document says around it; its place is marked by ``{}``.
        shown: the figure as it is written there.
        constant: what the code runs with.
        value: the figure in the unit of the constant.
    """

    document: str
    words: str
    shown: str
    constant: object
    value: object


FIGURES = [
    Figure("docs/how-to/endpoint.md", "nothing goes out but a probe every {} s", "15", HOLD_SECONDS, 15.0),
    Figure("docs/how-to/endpoint.md", "a probe goes out every {} second", "half", DOUBT_SECONDS, 0.5),
    Figure("docs/how-to/endpoint.md", "{} records in a row were refused alone", "20", SINGLE_REJECTIONS_MAX, 20),
    Figure("docs/how-to/dead-letters.md", "**Cap**: {} letters a partition", "10,000", DEAD_CAP, 10_000),
    Figure("docs/explanation/design.md", "`dead` | {} letters a partition", "10,000", DEAD_CAP, 10_000),
    Figure("docs/how-to/page.md", "**A sign-in** lasts {} hours", "12", SESSION_SECONDS, 12 * 3600),
    Figure("docs/how-to/page.md", "The newest {} are kept", "10,000", AUDIT_KEPT, 10_000),
    Figure("docs/how-to/traces.md", "the entries that were read for it, {} at", "128", LINKS_MAX, 128),
    Figure("docs/reference/dead-letter-reasons.md", "more than {} minutes ahead", "5", AT_AHEAD_MS, 300_000),
    Figure("docs/reference/contract.md", "at most {} minutes ahead", "5", AT_AHEAD_MS, 300_000),
    Figure("docs/reference/contract.md", "decimal digits only, from {} on", "10^12", AT_MIN_MS, 10**12),
    Figure("docs/reference/settings.md", "takes the recorded one, or {} at first use", "64", DEFAULT_PARTITIONS, 64),
    Figure("docs/how-to/spool.md", "(SQLite, {} MiB unless", "64", SPOOL_BYTES, 64 * 2**20),
    Figure("docs/how-to/upgrade.md", "it costs its lease ({} s)", "15", DEFAULTS["lease_seconds"], 15.0),
    Figure("README.md", "must be {} or newer", "6.2", OLDEST_REDIS, (6, 2)),
    Figure("docs/how-to/reconcile.md", "More deletes than `--max-deletes` ({})", "100,000", Limits().most, 100_000),
    Figure("docs/how-to/reconcile.md", "`--max-delete-share` percent ({})", "10", Limits().share, 10.0),
    Figure("docs/how-to/reconcile.md", "Up to {} deletes", "100", Limits().floor, 100),
    Figure("docs/how-to/reconcile.md", "shows the last {} runs", "hundred", RUNS_KEPT, 100),
]


def names(figures: Iterable[Figure]) -> list[str]:
    return [figure.words.format(figure.shown) for figure in figures]


@pytest.mark.parametrize("figure", FIGURES, ids=names(FIGURES))
def test_a_figure_is_what_the_code_runs_with(figure: Figure) -> None:
    text = " ".join((ROOT / figure.document).read_text(encoding="utf-8").split())
    assert figure.words.format(figure.shown) in text, f"{figure.document} words it otherwise: mend this table"
    assert figure.constant == figure.value


def test_the_command_reconciles_within_the_documented_limits() -> None:
    defaults = {option.name: option.default for option in reconcile_run.params}
    assert defaults["max_deletes"] == Limits().most
    (share,) = [option for option in reconcile_run.params if option.name == "max_delete_share"]
    assert f"[default: {Limits().share:g}]" in str(share.to_info_dict()["help"])
