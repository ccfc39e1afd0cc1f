"""What a target of the fuzzing is, and the helpers that several of them share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T: Final = 1_795_460_847_757
"""A moment of these tests (Unix ms)."""


SECRET: Final = "s3cr3t"
"""Stands for a password in an input. No message may show it."""

_HIDDEN: Final = re.compile(rf":{SECRET}|sentinel_password={SECRET}")


class Target(NamedTuple):
    """One kind of input.

    Attributes:
        name: of it, and of its corpus.
        says: what the input is, in a few words.
        run: takes an input and returns its outcome, one of `outcomes`; whatever it raises is a finding.
        outcomes: every outcome that is defined.
        seeds: inputs to begin with.
        words: what often stands in an input.
        most_bytes: longest input.
    """

    name: str
    says: str
    run: Callable[[bytes], str]
    outcomes: frozenset[str]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()
    most_bytes: int = 512


def in_twos(lines: Sequence[bytes]) -> list[bytes]:
    """Fields and values in turn, as Redis replies: never an odd number."""
    return [*lines, b""] if len(lines) % 2 else [*lines]


def entry_ms_of(line: bytes) -> int:
    """The time of an entry's id: Redis lets only digits through, below 2 to the 64th."""
    head = line.partition(b"-")[0]
    return int(head) if head.isdigit() and len(head) <= 20 and int(head) < 1 << 64 else T


def shows_secret(error: BaseException, *given: str) -> bool:
    """Whether a message shows the secret, although all these texts hold it as a password alone."""
    hidden = [len(_HIDDEN.findall(each)) for each in given]
    alone = any(hidden) and hidden == [each.count(SECRET) for each in given]
    return alone and SECRET in str(error)


def one_line(error: BaseException | str) -> None:
    """Checks that a message for people is one line."""
    assert str(error), "an error says nothing"
    assert len(str(error).splitlines()) == 1, "an error has several lines"
