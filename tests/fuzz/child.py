"""``python -m tests.fuzz.child NAME ARGUMENT…``: the process in which a target is fuzzed; libFuzzer takes the rest.

It runs until libFuzzer ends it. So it tells how far it is on its standard output, a line a second.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter

import atheris


def main() -> None:
    """Fuzzes one target."""
    name, *arguments = sys.argv[1:]
    from tests.fuzz.catalogue import load  # noqa: PLC0415 - what it loads later is instrumented

    with atheris.instrument_imports(include=["worker", "producers", "h11"]):
        target = load(name)
    run, outcomes, seen = target.run, target.outcomes, Counter[str]()
    begun = told = time.monotonic()
    inputs = 0

    def tell() -> None:
        line = {"inputs": inputs, "seconds": round(time.monotonic() - begun, 1), "outcomes": dict(seen)}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def one(data: bytes) -> None:
        nonlocal inputs, told
        inputs += 1
        outcome = run(data)
        if outcome not in outcomes:
            raise AssertionError(f"an outcome that is not defined: {outcome}")
        seen[outcome] += 1
        if not inputs & 0xFF and time.monotonic() - told > 1:
            told = time.monotonic()
            tell()

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
