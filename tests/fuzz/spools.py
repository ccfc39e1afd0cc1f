"""Spool files: whole files, byte by byte, and rows that some other program wrote into one."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

from producers.contract.change import ContactChange
from producers.contract.errors import SettingsError, SpoolError
from producers.spool.store import Spool
from tests.fuzz.place import PLACE
from tests.fuzz.target import T, Target, one_line

if TYPE_CHECKING:
    from pathlib import Path

_NAMESPACE: Final = "contact-sync"


def _drained(path: Path, *, damaged: bool) -> str:
    """Opens a spool, and takes all that it holds, as a producer does; the index of a damaged one may hold more."""
    try:
        spool = Spool(path, _NAMESPACE)
    except SettingsError as error:
        one_line(error)
        return "refused"
    try:
        found = 0
        last = -(1 << 63)
        while some := spool.after(last, 2):
            assert all(each.seq > last for each in some)
            last = some[-1].seq
            found += len(some)
            spool.remove([each.seq for each in some])
        assert not spool.holds_any() or damaged, "what is left is neither sent nor set aside"
        set_aside = spool.set_aside()
    except SpoolError as error:
        one_line(error)
        return "cannot be read"
    finally:
        spool.close()
    return "set aside" if set_aside else "changes" if found else "empty"


def _spool_bytes(*, lane: bool) -> bytes:
    """A small spool of this version, or of the one before lanes."""
    path = PLACE.fresh() / "seed.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript("PRAGMA page_size = 512; VACUUM")
    connection.close()
    Spool(path, _NAMESPACE).close()
    spool = Spool(path, _NAMESPACE)
    spool.append([ContactChange(owner="1", contact="2", op="upsert", at=T, source="crm")])
    spool.close()
    if not lane:
        with sqlite3.connect(path) as connection:
            connection.execute("ALTER TABLE changes DROP COLUMN lane")
    connection.close()
    return path.read_bytes()


def run_file(data: bytes) -> str:
    """The bytes of the file."""
    path = PLACE.fresh() / "spool.sqlite"
    path.write_bytes(data)
    return _drained(path, damaged=True)


def _value(raw: bytes) -> object:
    """A value of any kind that SQLite has."""
    kind, rest = raw[:1], raw[1:]
    if kind == b"i":
        return int(rest) if rest.lstrip(b"-").isdigit() and len(rest) < 18 else T
    if kind == b"b":
        return rest
    return None if kind == b"n" else 1.5 if kind == b"r" else rest.decode("utf-8", "replace")


def run_rows(data: bytes) -> str:
    """A line for each value, seven a row; one that begins with `x` is text that is not UTF-8."""
    path = PLACE.fresh() / "spool.sqlite"
    Spool(path, _NAMESPACE).close()
    lines = data.split(b"\n")[:35]
    with sqlite3.connect(path) as connection:
        for at in range(0, len(lines), 7):
            row = [*lines[at : at + 7], *[b"n"] * 7][:7]
            words = ("CAST(? AS TEXT)" if each[:1] == b"x" else "?" for each in row)
            values = [each[1:] if each[:1] == b"x" else _value(each) for each in row]
            names = "owner, contact, op, at, source, traceparent, lane"
            try:
                connection.execute(f"INSERT INTO changes ({names}) VALUES ({', '.join(words)})", values)  # noqa: S608 - our words
            except sqlite3.IntegrityError:
                continue  # the table has rules of its own
    connection.close()
    return _drained(path, damaged=False)


_SPOOL: Final = _spool_bytes(lane=True)

FILES: Final = Target(
    "spool_files",
    "the bytes of a spool file",
    run_file,
    frozenset({"refused", "cannot be read", "set aside", "changes", "empty"}),
    [
        b"",
        b"SQLite format 3\0",
        _SPOOL,
        _spool_bytes(lane=False),
        _SPOOL.replace(b"12upsert", b"12upsezt"),
        _SPOOL[:512] + b"\0" * 64 + _SPOOL[576:],
    ],
    [b"contact-sync", b"upsert", b"delete", b"lane TEXT", b"CREATE TABLE ", b"log", b"changes", b"invalid"],
    4096,
)
ROWS: Final = Target(
    "spool_rows",
    "rows of a spool that another program wrote",
    run_rows,
    frozenset({"set aside", "changes", "empty"}),
    [
        b"t1\nt2\ntupsert\ni%d\ntcrm\nn\ntbulk" % T,
        b"t1\nb2\ntupsert\ni1\nn\nn\nn",
        b"x\xff\nt2\ntdelete\ni%d" % T,
        b"n",
    ],
    [b"tupsert\n", b"tdelete\n", b"i%d\n" % T, b"n\n", b"x\xff\n", b"t00-", b"tbulk", b"tlive", b"r\n", b"b\n"],
)
