"""The id of an owner or a contact as an argument on a command line."""

from __future__ import annotations

from typing import Final

import click

from producers.contract.change import ID_MAX_BYTES, id_fault


class UserId(click.ParamType[str]):
    """Accepts what a change may have as owner or contact."""

    name = "user id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id.

        Raises:
            click.BadParameter: no change can have this id.
        """
        # Python keeps bytes that are not UTF-8 as surrogates: they encode to what is never a valid id.
        raw = value.encode("utf-8", "surrogateescape")
        if id_fault(raw) is not None:
            self.fail(f"must be 1 to {ID_MAX_BYTES} bytes of UTF-8 without control characters", param, ctx)
        return raw.decode()


USER_ID: Final = UserId()
