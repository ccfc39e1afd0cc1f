"""Dead letters as the page shows and moves them: some at a time, and each move noted in the audit trail."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from worker.store.dead_letters import DeadLetters, Wanted

if TYPE_CHECKING:
    from worker.core.dead_letter import DeadLetter
    from worker.serve.snapshots import SnapshotCache

SHOWN_MAX: Final = 200
"""Most letters of one answer."""

MOVED_MAX: Final = 5_000
"""Most letters that one request moves; the answer says whether there are more."""


class Letters:
    """The dead letters of one namespace."""

    def __init__(self, looks: SnapshotCache) -> None:
        self._looks = looks

    def show(self, wanted: Wanted, skip: int) -> dict[str, Any]:
        """A page of them, with all that is known of each.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        found = list(islice(self._letters().find(wanted), skip, skip + SHOWN_MAX + 1))
        return {"letters": [letter.as_json() for letter in found[:SHOWN_MAX]], "more": len(found) > SHOWN_MAX}

    def redrive(self, wanted: Wanted) -> tuple[dict[str, Any], list[str]]:
        """Puts letters back into the log; returns the answer, and the ids of those that were put back.

        Raises:
            redis.RedisError: Redis does not answer, or refuses; what was not said yet may or may not have moved.
        """
        letters = self._letters()
        found, more = _some(letters, wanted)
        ends = letters.redrive(found, self._looks.settings.ledger_seconds)
        done = [letter.id for letter, end in zip(found, ends, strict=True) if end == "redriven"]
        refused = [{"id": letter.id, "why": end} for letter, end in zip(found, ends, strict=True) if end != "redriven"]
        return {"redriven": len(done), "refused": refused + _missing(wanted, found), "more": more}, done

    def purge(self, wanted: Wanted) -> tuple[dict[str, Any], list[str]]:
        """Removes letters for good; returns the answer, and the ids of those that were to be removed.

        Raises:
            redis.RedisError: Redis does not answer, or refuses; what was not said yet may or may not be gone.
        """
        letters = self._letters()
        found, more = _some(letters, wanted)
        purged = letters.purge(found)
        return {"purged": purged, "refused": _missing(wanted, found), "more": more}, [letter.id for letter in found]

    def _letters(self) -> DeadLetters:
        return DeadLetters(self._looks.client, self._looks.keys, self._looks.partitions())


def _some(letters: DeadLetters, wanted: Wanted) -> tuple[list[DeadLetter], bool]:
    found = list(islice(letters.find(wanted), MOVED_MAX + 1))
    return found[:MOVED_MAX], len(found) > MOVED_MAX


def _missing(wanted: Wanted, found: list[DeadLetter]) -> list[dict[str, Any]]:
    there = {letter.id for letter in found}
    return [{"id": each, "why": "gone"} for each in wanted.ids if each not in there]
