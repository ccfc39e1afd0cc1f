"""Bugs in what old and new workers share during an upgrade."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch

FORM: Final = "worker/store/log_form.py"
STORE: Final = "worker/store/partitions.py"
TESTS: Final = ("tests/integration/store/test_log_form.py",)

UPGRADE: Final = (
    Mutant(
        "new_form_at_once",
        "a new worker keeps pairs where the old ones beside it do not look",
        (Patch(FORM, "(_was_read(namespace) or _older_workers(namespace))", "not namespace"),),
        integration=TESTS,
        simulated=False,
    ),
    Mutant(
        "new_form_beside_an_idle_worker",
        "a new worker does not look for older ones that have not held a partition yet",
        (Patch(FORM, " or _older_workers(namespace)", ""),),
        integration=TESTS,
        simulated=False,
    ),
    Mutant(
        "new_form_once_the_old_is_lost",
        "a worker beside older ones takes the newest form as soon as Redis has lost which one was recorded",
        (Patch(STORE, "form is None or form.one_pending", "False"),),
        integration=TESTS,
        simulated=False,
    ),
    Mutant(
        "left_in_a_class",
        "a pair that is kept in the shared hash stays in that of its class, too",
        (Patch(STORE, "[some + kept[::2] for some, kept in", "[some + kept[:0] for some, kept in"),),
        integration=TESTS,
        simulated=False,
    ),
    Mutant(
        "upgraded_beside_old_workers",
        "an upgrade does not look for workers that are too old",
        (Patch("worker/admin/upgrade.py", "each.log_format < LOG_FORMAT", "each.log_format < 0"),),
        integration=TESTS,
        simulated=False,
    ),
)
