"""Every kept input has a defined outcome, and so have inputs made of them: what CI runs of the fuzzing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import kept
from tests.fuzz.catalogue import NAMES, load

if TYPE_CHECKING:
    from pathlib import Path

_INPUTS = 300


@pytest.mark.parametrize("name", NAMES)
def test_every_kept_input_has_a_defined_outcome_and_each_outcome_is_reached(name: str) -> None:
    target = load(name)
    reached = {target.run(data) for data in (*target.seeds, *kept.read(name), *kept.read(name, kept.FOUND))}
    assert reached == target.outcomes


@pytest.mark.parametrize("name", NAMES)
def test_what_is_made_of_kept_inputs_has_a_defined_outcome(name: str) -> None:
    target = load(name)
    inputs = st.sampled_from([*target.seeds, *kept.read(name)])
    pieces = inputs | st.sampled_from([*target.words]) | st.binary(max_size=8)

    @st.composite
    def spliced(draw: st.DrawFn) -> bytes:
        """A kept input with a piece in the place of some of its bytes; now and then the head of one on another."""
        data, piece = draw(inputs), draw(pieces)
        at = draw(st.integers(0, len(data)))
        made: bytes = data[:at] + piece + data[at + draw(st.integers(0, 8)) :]
        return made[: target.most_bytes]

    @settings(max_examples=_INPUTS, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(spliced())
    def has_one(data: bytes) -> None:
        assert target.run(data) in target.outcomes

    has_one()


def test_a_line_of_a_corpus_is_any_input(tmp_path: Path) -> None:
    inputs = [b"", b"a", bytes(range(256)), b"\n\r\\n'\"", "\u20ac\U0001f600".encode()]
    kept.write("any", inputs, tmp_path)
    assert sorted(kept.read("any", tmp_path)) == sorted(inputs)
    assert kept.read("none", tmp_path) == []


def test_the_corpora_are_small() -> None:
    assert sum(path.stat().st_size for path in kept.CORPUS.glob("*.txt")) < 400_000
