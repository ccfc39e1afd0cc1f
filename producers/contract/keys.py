"""Every Redis key there is, spelled once.

All keys of one partition share the hash tag ``{<partition>}``, so that one script may touch
them together, in a Redis Cluster too (CONTRACT section 2, DESIGN "State").
"""

from __future__ import annotations

from dataclasses import dataclass

PAIR_SEPARATOR = b"\x1f"
"""Stands between owner and contact in a pair's hash field; ids hold no control characters, so it is unambiguous."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one namespace.

    Attributes:
        namespace: prefix of every key, and the name of the Celery queue.
    """

    namespace: str

    def events(self, partition: int) -> str:
        """Stream of changes not yet settled."""
        return f"{self.namespace}:{{{partition}}}:events"

    def pending(self, partition: int) -> str:
        """Hash of pairs that were read but are not confirmed: pair -> joined state."""
        return f"{self.namespace}:{{{partition}}}:pending"

    def ledger_new(self, partition: int) -> str:
        """Hash of outcomes confirmed since the last rotation: pair -> confirmed."""
        return f"{self.namespace}:{{{partition}}}:ledger:new"

    def ledger_old(self, partition: int) -> str:
        """Hash of outcomes confirmed before the last rotation: pair -> confirmed."""
        return f"{self.namespace}:{{{partition}}}:ledger:old"

    def late(self, partition: int) -> str:
        """Hash of pairs that an unanswered request may still change: pair -> mark."""
        return f"{self.namespace}:{{{partition}}}:late"

    def lease(self, partition: int) -> str:
        """String with a time to live: the token of the holder."""
        return f"{self.namespace}:{{{partition}}}:lease"

    def partition(self, partition: int) -> str:
        """Hash of the partition itself: position in the log, last token, oldest pending, what may still act."""
        return f"{self.namespace}:{{{partition}}}:partition"

    def dead(self, partition: int) -> str:
        """Hash of dead letters: id -> letter."""
        return f"{self.namespace}:{{{partition}}}:dead"

    def dead_pairs(self, partition: int) -> str:
        """Hash of pairs that have dead letters: pair -> how many, and what was confirmed since."""
        return f"{self.namespace}:{{{partition}}}:dead:pairs"

    def totals(self, partition: int) -> str:
        """Hash of counters, moved by the scripts that move the state they count."""
        return f"{self.namespace}:{{{partition}}}:totals"

    @property
    def inbox(self) -> str:
        """Stream of changes from those who cannot compute a partition; the workers move them on into the log."""
        return f"{self.namespace}:inbox"

    @property
    def gate(self) -> str:
        """Hash of the endpoint's state as the whole fleet sees it."""
        return f"{self.namespace}:gate"

    @property
    def ticker(self) -> str:
        """String with a time to live: the token of the process whose ticker wakes the fleet."""
        return f"{self.namespace}:ticker"

    @property
    def deletes(self) -> str:
        """String with a time to live: the oldest delete in each log that lingers, as far as the ticker found one."""
        return f"{self.namespace}:deletes"

    @property
    def last_consumer(self) -> str:
        """String with a time to live: the name of the worker process that consumed a hint last."""
        return f"{self.namespace}:last_consumer"

    @property
    def audit(self) -> str:
        """Stream of what operators did with ``serve``: who, when, to which letters; no owner's or contact's id."""
        return f"{self.namespace}:audit"

    @property
    def workers(self) -> str:
        """Hash of worker processes: name -> since when, when it was seen last, and what it is. For people alone."""
        return f"{self.namespace}:workers"

    @property
    def config(self) -> str:
        """Hash of what may not change under a running log: number of partitions, format version."""
        return f"{self.namespace}:config"

    @property
    def reconcile(self) -> str:
        """Hash of reconciliations that have not come to their end: name of the source -> how far it came."""
        return f"{self.namespace}:reconcile"

    @property
    def reconcile_history(self) -> str:
        """Stream of reconciliations that have ended, the last hundred."""
        return f"{self.namespace}:reconcile:history"

    @property
    def reconcile_lease(self) -> str:
        """String with a time to live: the token of the process that reconciles."""
        return f"{self.namespace}:reconcile:lease"
