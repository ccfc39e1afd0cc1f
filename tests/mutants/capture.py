"""Bugs in how messages of change data capture are read and moved, and in what is said again."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch

READ: Final = "worker/core/row_change.py"
INBOX: Final = "worker/store/inbox.py"
MESSAGES: Final = "tests/unit/core/test_row_change.py"
MOVED: Final = "tests/integration/store/test_row_changes.py"

CAPTURE: Final = (
    Mutant(
        "tombstone_deletes",
        "a tombstone is read as a delete of its key, as of now: a contact that came back meanwhile goes again",
        (
            Patch(
                READ,
                "    if message is None:\n",
                "    key = orjson.loads(flat[0]) if message is None and by.place == 'single' else None\n"
                "    if key is not None:\n"
                "        row = _found(key, by.root)\n"
                "        gone = RowChange(str(row[by.owner]), str(row[by.contact]), 'delete', entry_ms)\n"
                "        return RowChanges((gone,))\n"
                "    if message is None:\n",
            ),
        ),
        unit=(MESSAGES,),
        simulated=False,
    ),
    Mutant(
        "snapshot_outlives_delete",
        "what a snapshot reads counts as of now: a snapshot that is replayed brings back what was deleted since",
        (Patch(READ, "        at -= by.earlier_ms\n", "        at = entry_ms\n"),),
        unit=(MESSAGES,),
        simulated=False,
    ),
    Mutant(
        "key_change_keeps_old_pair",
        "when the key of a row changes, the old pair stays at the endpoint",
        (
            Patch(
                READ,
                '    return RowChanges((RowChange(*before, "delete", at), change))\n',
                "    return RowChanges((change,))\n",
            ),
        ),
        unit=(MESSAGES,),
        simulated=False,
    ),
    Mutant(
        "unknown_row_is_zero",
        "a delete whose old row the source does not have deletes the pair of 0 and 0, and the real one stays",
        (Patch(READ, "    if value == 0 or", "    if value is ... or"),),
        unit=(MESSAGES,),
        simulated=False,
    ),
    Mutant(
        "half_a_message_moves",
        "a message that says two changes leaves the inbox when one of them is in the log",
        (
            Patch(INBOX, "if not isinstance(reply, int)}", "if False}"),
            Patch(INBOX, "if done.issuperset(wants)", "if not wants or not done.isdisjoint(wants)"),
        ),
        integration=(MOVED,),
        simulated=False,
    ),
    Mutant(
        "misfit_without_its_message",
        "the dead letter of a message that does not fit does not hold it: a mended mapping cannot read it again",
        (Patch(INBOX, '"said": texts', '"said": None'),),
        integration=(MOVED,),
        simulated=False,
    ),
    Mutant(
        "bridge_commits_first",
        "the bridge commits an offset before Redis accepted what lies before it",
        (
            Patch(
                "examples/change-data-capture/bridge.py",
                "    pipe = inbox.pipeline(transaction=False)\n",
                "    if messages:\n"
                "        consumer.commit(asynchronous=False)\n"
                "    pipe = inbox.pipeline(transaction=False)\n",
            ),
        ),
        integration=("tests/integration/producers/test_kafka_bridge.py",),
        simulated=False,
    ),
    Mutant(
        "said_again_as_of_now",
        "what is said again of the ledger is stamped with the present: a delete that is on its way loses to it",
        (Patch("worker/reconcile/reassert.py", "changes = [(pair, at + 1) for", "changes = [(pair, now_ms) for"),),
        unit=("tests/unit/reconcile/test_reassert.py",),
        simulated=False,
    ),
)
