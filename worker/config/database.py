"""Opening a database that SQLAlchemy knows, by its URL: what can go wrong in one line, without its password."""

from __future__ import annotations

from typing import TYPE_CHECKING

from producers.contract.errors import ContactSyncError

if TYPE_CHECKING:
    from sqlalchemy import Engine


class NoDatabase(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """The URL names no database that can be opened here."""


def open_database(url: str, what: str) -> Engine:
    """An engine; nothing is connected yet.

    Args:
        url: as SQLAlchemy has them.
        what: what gave the URL, for the message.

    Raises:
        NoDatabase: it is no such URL, or SQLAlchemy or the database's driver is not installed.
    """
    try:
        import sqlalchemy  # noqa: PLC0415 - an extra
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError  # noqa: PLC0415 - the same
    except ImportError:
        raise NoDatabase(f"{what} needs SQLAlchemy: pip install 'contact-sync[sqlalchemy]'") from None
    try:
        return sqlalchemy.create_engine(url)
    except NoSuchModuleError as error:
        raise NoDatabase(f"{what}: {error}") from None
    except (ArgumentError, ValueError):  # whose words may repeat a password
        raise NoDatabase(f"{what} must be a database's URL as SQLAlchemy has them, such as sqlite:///file.db") from None
    except ImportError as error:
        raise NoDatabase(f"the database's driver is not installed: {error}") from None


def why(error: Exception) -> str:
    """The first line of what the driver said: SQLAlchemy's own repeats the statement and its values."""
    said = str(getattr(error, "orig", None) or type(error).__name__).strip()
    return said.splitlines()[0][:200] if said else type(error).__name__
