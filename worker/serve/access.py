"""Who may look and who may act: tokens, the cookie that stands for one, and where a request may come from (pure)."""

from __future__ import annotations

import hmac
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.config.serve import Tokens

Role = Literal["operator", "reader"]
"""An operator looks and acts, a reader looks."""

COOKIE: Final = "contact_sync_session"

SESSION_SECONDS: Final = 12 * 3600
"""How long a sign-in lasts: a shift."""

HEADER: Final = "x-contact-sync"
"""Every request that acts carries it: no form and no foreign page can, without asking first and being refused."""

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_MAC_DIGITS: Final = 64


class Access:
    """Judges requests.

    Args:
        tokens: what opens; without any everybody is an operator, which is why only this machine is let in then.
        host: the address that is listened on.
        loopback: whether that is this machine alone.
    """

    def __init__(self, tokens: Tokens, host: str, *, loopback: bool) -> None:
        self._tokens: dict[Role, str] = {}
        if tokens.operator is not None:
            self._tokens["operator"] = tokens.operator
        if tokens.reader is not None:
            self._tokens["reader"] = tokens.reader
        self._hosts = {*_LOOPBACK_NAMES, host.lower()} if loopback else None

    @property
    def needed(self) -> bool:
        """Whether anybody has to sign in."""
        return bool(self._tokens)

    def knows(self, token: str) -> Role | None:
        """The role that a token opens. It is compared in a time that says nothing of how much of it was right.

        A wrong one is refused and no more: with 16 characters at least nobody guesses one, and to lock out whoever
        tries would be to lock out the operators.
        """
        found: Role | None = None
        for role, known in self._tokens.items():
            if hmac.compare_digest(_digest(known), _digest(token)):
                found = role
        return found

    def role(self, headers: Mapping[str, str], now_seconds: float) -> Role | None:
        """The role of a request, by its bearer token or its cookie; None where it has none."""
        if not self._tokens:
            return "operator"
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.knows(token.strip())
        return self._of_cookie(headers.get("cookie", ""), now_seconds)

    def session(self, role: Role, now_seconds: float) -> str:
        """The cookie's value for a role. It holds with every process that has the token, and ends with the token."""
        said = f"{role}.{int(now_seconds) + SESSION_SECONDS}"
        return f"{said}.{self._mac(role, said)}"

    def names_us(self, host: str) -> bool:
        """Whether a Host header names this machine, where only this machine is listened to.

        A page of somebody else's whose name begins to mean 127.0.0.1 would else be read as ours (DNS rebinding). Any
        port will do: a tunnel has another one.
        """
        return self._hosts is None or _hostname(host) in self._hosts

    @staticmethod
    def is_ours(headers: Mapping[str, str]) -> bool:
        """Whether a request that acts comes from our own page, or from no page at all."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        if HEADER not in headers or site not in {"same-origin", "none"}:
            return False
        return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()

    def _of_cookie(self, cookie: str, now_seconds: float) -> Role | None:
        try:
            morsel = SimpleCookie(cookie).get(COOKIE)
        except CookieError:
            return None
        said, _, mac = (morsel.value if morsel is not None else "").rpartition(".")
        name, _, until = said.partition(".")
        if len(mac) != _MAC_DIGITS or not (until.isascii() and until.isdecimal() and len(until) < 12):
            return None
        for role in self._tokens:
            right = hmac.compare_digest(self._mac(role, said).encode(), mac.encode("ascii", "replace"))
            if role == name and right and int(until) > now_seconds:
                return role
        return None

    def _mac(self, role: Role, said: str) -> str:
        return hmac.new(b"contact-sync session\0" + self._tokens[role].encode(), said.encode(), sha256).hexdigest()


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
