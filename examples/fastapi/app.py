"""An address book. Each change is recorded in the outbox, in the transaction of the contact that it is about.

pip install 'contact-sync[sqlalchemy]' fastapi uvicorn
uvicorn app:app                                # the app
contact-sync relay sqlite:///book.db           # beside it, always
"""

import os
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from producers import InvalidChange
from producers.outbox import Outbox, create_tables


class Base(DeclarativeBase):
    pass


class Contact(Base):
    __tablename__ = "contact"

    owner: Mapped[str] = mapped_column(primary_key=True)
    contact: Mapped[str] = mapped_column(primary_key=True)


engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///book.db"))
Base.metadata.create_all(engine)
create_tables(engine)  # in real life by Alembic
outbox = Outbox(source="book")
app = FastAPI()


def transaction() -> Iterator[Session]:
    """A transaction of the request: committed at its end, rolled back by an error."""
    with Session(engine) as session, session.begin():
        yield session


Transaction = Annotated[Session, Depends(transaction)]


@app.put("/users/{owner}/contacts/{contact}", status_code=204)
def add(owner: str, contact: str, session: Transaction) -> None:
    session.merge(Contact(owner=owner, contact=contact))
    outbox.upsert(session, owner, contact)


@app.delete("/users/{owner}/contacts/{contact}", status_code=204)
def remove(owner: str, contact: str, session: Transaction) -> None:
    found = session.get(Contact, (owner, contact))
    if found is None:
        raise HTTPException(404)
    session.delete(found)
    outbox.delete(session, owner, contact)


@app.get("/users/{owner}/contacts")
def list_contacts(owner: str, session: Transaction) -> list[str]:
    return list(session.scalars(select(Contact.contact).where(Contact.owner == owner)))


@app.exception_handler(InvalidChange)
async def refuse(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 422)
