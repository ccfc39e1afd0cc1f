"""Opens a database by its SQLAlchemy URL. Each error is one line without the password."""

from __future__ import annotations

from typing import TYPE_CHECKING

from producers.contract.errors import ContactSyncError

if TYPE_CHECKING:
    from sqlalchemy import Engine


class NoDatabase(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """The URL does not name a database that can be opened here."""


def open_database(url: str, what: str) -> Engine:
    """Makes an engine; does not connect yet.

    Args:
        url: in SQLAlchemy's form.
        what: where the URL comes from, for the message.

    Raises:
        NoDatabase: the URL is invalid, its driver is for asyncio, or SQLAlchemy or the driver is not installed.
    """
    try:
        import sqlalchemy  # noqa: PLC0415 - an extra
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError  # noqa: PLC0415 - the same
    except ImportError:
        raise NoDatabase(f"{what} needs SQLAlchemy: pip install 'contact-sync[sqlalchemy]'") from None
    try:
        url.encode()
    except UnicodeEncodeError:  # a file may have any name, but this one is shown as text
        raise NoDatabase(f"{what} must be UTF-8") from None
    try:
        dialect = sqlalchemy.make_url(url).get_dialect()
        if dialect.is_async:
            raise NoDatabase(f"{what} needs a driver without asyncio, such as postgresql+psycopg, not {dialect.driver}")
        return sqlalchemy.create_engine(url)
    except NoSuchModuleError as error:
        raise NoDatabase(f"{what}: {error}") from None
    except (ArgumentError, ValueError):  # its text may repeat a password
        raise NoDatabase(f"{what} must be a database's URL as SQLAlchemy has them, such as sqlite:///file.db") from None
    except ImportError as error:
        raise NoDatabase(f"the database's driver is not installed: {error}") from None


def why(error: Exception) -> str:
    """Returns the first line of the driver's error: SQLAlchemy's own text repeats the statement and its values."""
    cause: BaseException | None = getattr(error, "orig", None)
    words = (cause.args[1:] or [cause]) if isinstance(cause, Exception) else [type(error).__name__]
    said = str(words[0]).strip()  # drivers of MySQL put a number before what they say
    if type(error).__name__ == "DataError":
        return f"a value does not fit its column's type ({type(cause).__name__})"  # the driver repeats the value, an id
    said = said.partition(" with text ")[0]  # SQLite repeats it as well
    return said.splitlines()[0][:200] if said else type(error).__name__
