"""Dead letters: what could not be delivered, which of it newer knowledge outdates, and back into the log with it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import batched
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson
from redis.exceptions import ResponseError

from producers.change import AT_MIN_MS, OPS, id_fault, partition_of, source_fits
from worker import scripts
from worker.entry import pair_of
from worker.join import join_remembered, state_of, verdict
from worker.stored import decode_dead_pair, decode_remembered
from worker.times import iso_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import redis

    from producers.change import Op
    from producers.keys import Keys
    from worker.join import Remembered

REFUSED: Final = "refused"
"""The endpoint refuses the record; every other reason is the rule of CONTRACT section 2 that the entry breaks."""

WRONG_PARTITION: Final = "wrong_partition"
"""The one malformed entry that states a change all the same: it only lies in the wrong log."""

_PAGE: Final = 500  # letters read, judged or moved in one round trip

Redriven = Literal["redriven", "outdated", "forgotten", "malformed", "gone"]
"""What became of a letter that was to go back into the log."""
