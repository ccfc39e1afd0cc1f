"""What a process that forks must renew in its child: locks and connections that other threads may have been using.

A child has only the thread that forked. A lock that another thread held at that moment is never released there, and a
connection that the parent goes on using must not be used twice.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """An object that a child process must renew before it uses it."""

    def renew_after_fork(self) -> None:
        """Replaces locks and connections; called in the child, where no other thread runs."""


_RENEWABLE: WeakSet[Renewable] = WeakSet()


def renew_in_children(renewable: Renewable) -> None:
    """Lets every child process renew the object as long as it lives."""
    _RENEWABLE.add(renewable)


def _renew() -> None:
    for each in list(_RENEWABLE):
        each.renew_after_fork()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_renew)
