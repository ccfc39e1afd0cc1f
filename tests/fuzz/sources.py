"""Files that people and other programs write for us: rows to reconcile with, and the `.env` file."""

from __future__ import annotations

import io
import logging
from typing import Final

from producers.contract.change import OPS, id_fault
from producers.contract.errors import SettingsError
from producers.settings import ProducerSettings, load_settings
from tests.fuzz.place import PLACE
from tests.fuzz.target import T, Target, one_line
from worker.core.entry import split_pair
from worker.reconcile.csv_rows import csv_rows
from worker.reconcile.json_rows import json_rows
from worker.reconcile.lines import Lines
from worker.reconcile.rows import Reject, SourceBroken

logging.getLogger("dotenv").setLevel(logging.CRITICAL)  # it tells of each line that it cannot read


def run_rows(data: bytes) -> str:
    """The bytes of the file."""
    rows = rejects = 0
    try:
        lines = Lines(io.BytesIO(data))
        read = json_rows if lines.peek() in {b"{", b"["} else csv_rows
        for each in read(lines):
            if isinstance(each, Reject):
                rejects += 1
                one_line(each.rule)
                continue
            rows += 1
            owner, contact = split_pair(each.pair)
            assert id_fault(owner) is id_fault(contact) is None
            assert each.op in OPS
    except SourceBroken as error:
        one_line(error)
        return "broken"
    return "rejects" if rejects else "rows" if rows else "no rows"


def run_dotenv(data: bytes) -> str:
    """The bytes of the file."""
    path = PLACE.fresh() / ".env"
    path.write_bytes(data)
    try:
        load_settings(ProducerSettings, {}, path)
    except SettingsError as error:
        one_line(error)
        return "refused"
    return "settings"


_GZIP: Final = bytes.fromhex("1f8b08000000000002ff")

ROWS: Final = Target(
    "source_rows",
    "a file of rows to reconcile with: CSV or JSON lines, perhaps gzipped",
    run_rows,
    frozenset({"rows", "rejects", "no rows", "broken"}),
    [
        b"owner,contact,op\n1,2,upsert\n1,3,delete\n",
        b'owner;contact;note\n1;2;"a\n""b"\n',
        b'{"owner":"1","contact":"2"}\n{"owner":1,"contact":"\xc3\xa9","op":"delete","at":%d}\n' % T,
        b"owner,contact\n",
        b"owner,contact\n1\n",
        b"\xef\xbb\xbfcontact\towner\n1\t2\n",
        _GZIP + b"\0" * 8,
        b"",
    ],
    [
        b"owner",
        b"contact",
        b"op",
        b"upsert",
        b"delete",
        b'"',
        b'""',
        b"\r\n",
        b",",
        b";",
        b"\t",
        b"{",
        b"}",
        _GZIP,
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\\ud800",
        b"null",
        b"[",
        b'"owner":',
        b'"contact":',
        b"1e999",
        b"\x00",
    ],
    1024,
)
DOTENV: Final = Target(
    "dotenvs",
    "a .env file",
    run_dotenv,
    frozenset({"settings", "refused"}),
    [
        b"CONTACT_SYNC_NAMESPACE=x\n# a comment\nexport CONTACT_SYNC_PARTITIONS='8'\n",
        b'CONTACT_SYNC_REDIS_URL="redis://a\\n"\n',
        b"\xff",
        b"CONTACT_SYNC_PARTITIONS\n=\n'",
    ],
    [
        b"CONTACT_SYNC_",
        b"NAMESPACE=",
        b"PARTITIONS=",
        b"REDIS_URL=",
        b"WAIT_REPLICAS=",
        b"export ",
        b"#",
        b"'",
        b'"',
        b"\\n",
        b"${HOME}",
        b"redis://",
        b"\r",
        b"\x00",
        b"\xc2\xa0",
        b"\xe2\x80\xa8",
    ],
)
