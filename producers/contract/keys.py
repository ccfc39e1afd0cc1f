"""The names of all Redis keys.

All keys of one partition share the hash tag ``{<partition>}``, so that one script can use them together, in a Redis
Cluster too (docs/reference/contract.md, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass

PAIR_SEPARATOR = b"\x1f"
"""Separates owner and contact in a pair's hash field; ids contain no control characters, so it is unambiguous."""


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

    def bulk(self, partition: int) -> str:
        """Stream of changes not yet settled that nobody waits for: imports, reconciliation, backfills."""
        return f"{self.namespace}:{{{partition}}}:bulk"

    def pending(self, partition: int) -> str:
        """Hash of live pairs to be upserted that were read but are not confirmed: pair -> joined state."""
        return f"{self.namespace}:{{{partition}}}:pending"

    def pending_classes(self, partition: int) -> tuple[str, ...]:
        """Hashes of pairs that wait, in the order of sending: live deletes, live upserts, and the same of bulk.

        Behind each of these is the one of owners that have very many such pairs.
        """
        live = self.pending(partition)
        classes = f"{live}:deletes", live, f"{live}:bulk:deletes", f"{live}:bulk"
        return tuple(key for each in classes for key in (each, f"{each}:heavy"))

    def ledger_new(self, partition: int) -> str:
        """Hash of outcomes confirmed since the last rotation: pair -> confirmed."""
        return f"{self.namespace}:{{{partition}}}:ledger:new"

    def ledger_old(self, partition: int) -> str:
        """Hash of outcomes confirmed before the last rotation: pair -> confirmed."""
        return f"{self.namespace}:{{{partition}}}:ledger:old"

    def late(self, partition: int) -> str:
        """Hash of pairs that an unanswered request may still change: pair -> mark."""
        return f"{self.namespace}:{{{partition}}}:late"

    def parked(self, partition: int) -> str:
        """Hash of pairs whose record was refused with an unknown code: pair -> when it is tried next, and its state."""
        return f"{self.namespace}:{{{partition}}}:parked"

    def lease(self, partition: int) -> str:
        """String with a time to live: the token of the holder."""
        return f"{self.namespace}:{{{partition}}}:lease"

    def partition(self, partition: int) -> str:
        """Hash of the partition itself: position in the log, last token, oldest pending, requests still open."""
        return f"{self.namespace}:{{{partition}}}:partition"

    def dead(self, partition: int) -> str:
        """Hash of dead letters: id -> letter."""
        return f"{self.namespace}:{{{partition}}}:dead"

    def dead_pairs(self, partition: int) -> str:
        """Hash of pairs that have dead letters: pair -> their number, and what was confirmed since."""
        return f"{self.namespace}:{{{partition}}}:dead:pairs"

    def totals(self, partition: int) -> str:
        """Hash of counters; the scripts that change the counted state also change these."""
        return f"{self.namespace}:{{{partition}}}:totals"

    @property
    def inbox(self) -> str:
        """Stream of changes from clients that cannot compute a partition; the workers move them into the log."""
        return f"{self.namespace}:inbox"

    @property
    def gate(self) -> str:
        """Hash of the endpoint's state, shared by the whole fleet."""
        return f"{self.namespace}:gate"

    @property
    def suppressed(self) -> str:
        """Hash of the people who were erased: keyed hash of the id -> until when upserts are refused, and a tag."""
        return f"{self.namespace}:suppressed"

    @property
    def ticker(self) -> str:
        """String with a time to live: the token of the process whose ticker wakes the fleet."""
        return f"{self.namespace}:ticker"

    @property
    def deletes(self) -> str:
        """String with a time to live: the oldest delete that the ticker found in each lingering log."""
        return f"{self.namespace}:deletes"

    @property
    def last_consumer(self) -> str:
        """String with a time to live: the name of the worker process that consumed a hint last."""
        return f"{self.namespace}:last_consumer"

    @property
    def audit(self) -> str:
        """Stream of operators' actions in ``serve``: who, when, on which dead letters; without owner or contact ids."""
        return f"{self.namespace}:audit"

    @property
    def workers(self) -> str:
        """Hash of workers: name -> when it started, when it was last seen, and what it is. Display only."""
        return f"{self.namespace}:workers"

    @property
    def config(self) -> str:
        """Hash of what must not change while a log is in use: number of partitions, format version."""
        return f"{self.namespace}:config"

    @property
    def scaling(self) -> str:
        """Hash of how many workers are wanted, and what the next decision follows from."""
        return f"{self.namespace}:scaling"

    @property
    def reconcile(self) -> str:
        """Hash of unfinished reconciliations: name of the source -> progress."""
        return f"{self.namespace}:reconcile"

    @property
    def reconcile_history(self) -> str:
        """Stream of the last hundred finished reconciliations."""
        return f"{self.namespace}:reconcile:history"

    @property
    def reconcile_lease(self) -> str:
        """String with a time to live: the token of the process that reconciles."""
        return f"{self.namespace}:reconcile:lease"
