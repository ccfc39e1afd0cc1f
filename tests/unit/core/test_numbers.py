"""A count is said in the singular or in the plural, as people say it."""

from __future__ import annotations

import pytest

from worker.core.numbers import are, many, were


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (0, "change", "0 changes"),
        (1, "change", "1 change"),
        (2, "change", "2 changes"),
        (1, "entry", "1 entry"),
        (12_000, "entry", "12,000 entries"),
        (2, "retry", "2 retries"),
        (2, "key", "2 keys"),
        (1, "process", "1 process"),
        (2, "process", "2 processes"),
        (2, "dead letter", "2 dead letters"),
    ],
)
def test_a_noun_follows_its_number(number: int, noun: str, said: str) -> None:
    assert many(number, noun) == said


def test_so_does_the_verb() -> None:
    assert [are(0), are(1), are(2)] == ["are", "is", "are"]
    assert [were(0), were(1), were(2)] == ["were", "was", "were"]
