"""The transactional outbox for SQLAlchemy 2: records a change in the app's own transaction, and sends it after commit.

::

    from producers.outbox import Outbox, metadata

    outbox = Outbox()
    with Session(engine) as session, session.begin():
        session.delete(contact)
        outbox.delete(session, owner="1", contact="9")   # committed with the rest, or not at all

`contact-sync relay URL`, or `Relay` inside the app, forwards committed changes. Needs the extra ``sqlalchemy``.
"""

try:
    import sqlalchemy as _  # noqa: F401 - an extra: imported here, so that one line says what is missing
except ImportError:
    raise ImportError("producers.outbox needs SQLAlchemy: pip install 'contact-sync[sqlalchemy]'") from None

from producers.outbox.recording import Outbox
from producers.outbox.relay import NoOutbox, Relay
from producers.outbox.tables import create_tables, metadata
from producers.relay.forward import Relayed, Waiting

__all__ = ["NoOutbox", "Outbox", "Relay", "Relayed", "Waiting", "create_tables", "metadata"]
