"""Lists, redrives and purges dead letters for the page, and lists parked pairs, a bounded number at a time."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from worker.admin.parked import find_parked
from worker.store.dead_letters import DeadLetters, Wanted

if TYPE_CHECKING:
    from worker.core.dead_letter import DeadLetter
    from worker.serve.snapshots import SnapshotCache

SHOWN_MAX: Final = 200
"""Most letters in one answer."""

MOVED_MAX: Final = 5_000
"""Most letters that one request redrives or purges. The answer says whether more match."""


class Letters:
    """The dead letters of one namespace."""

    def __init__(self, snapshots: SnapshotCache) -> None:
        self._snapshots = snapshots

    def show(self, wanted: Wanted, skip: int) -> dict[str, Any]:
        """Returns a page of dead letters with all their details.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        found = list(islice(self._letters().find(wanted), skip, skip + SHOWN_MAX + 1))
        return {"letters": [letter.as_json() for letter in found[:SHOWN_MAX]], "more": len(found) > SHOWN_MAX}

    def parked(self, skip: int) -> dict[str, Any]:
        """Returns a page of parked pairs.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        found = list(islice(find_parked(self._snapshots.namespace(), Wanted()), skip, skip + SHOWN_MAX + 1))
        return {"pairs": [each.as_json() for each in found[:SHOWN_MAX]], "more": len(found) > SHOWN_MAX}

    def redrive(self, wanted: Wanted) -> tuple[dict[str, Any], list[str]]:
        """Puts letters back into the log; returns the answer and the ids of the redriven letters.

        Raises:
            redis.RedisError: Redis does not answer, or refuses. Some of the letters may have been redriven.
        """
        letters = self._letters()
        found, more = _some(letters, wanted)
        ends = letters.redrive(found)
        done = [letter.id for letter, end in zip(found, ends, strict=True) if end == "redriven"]
        refused = [{"id": letter.id, "why": end} for letter, end in zip(found, ends, strict=True) if end != "redriven"]
        return {"redriven": len(done), "refused": refused + _missing(wanted, found), "more": more}, done

    def purge(self, wanted: Wanted) -> tuple[dict[str, Any], list[str]]:
        """Removes letters for good; returns the answer and the ids of the letters that it was to remove.

        Raises:
            redis.RedisError: Redis does not answer, or refuses. Some of the letters may have been removed.
        """
        letters = self._letters()
        found, more = _some(letters, wanted)
        purged = letters.purge(found)
        return {"purged": purged, "refused": _missing(wanted, found), "more": more}, [letter.id for letter in found]

    def _letters(self) -> DeadLetters:
        return DeadLetters(self._snapshots.namespace(), self._snapshots.settings.wait_replicas)


def _some(letters: DeadLetters, wanted: Wanted) -> tuple[list[DeadLetter], bool]:
    found = list(islice(letters.find(wanted), MOVED_MAX + 1))
    return found[:MOVED_MAX], len(found) > MOVED_MAX


def _missing(wanted: Wanted, found: list[DeadLetter]) -> list[dict[str, Any]]:
    there = {letter.id for letter in found}
    return [{"id": each, "why": "gone"} for each in wanted.ids if each not in there]
