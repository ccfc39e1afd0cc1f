"""Decides who may read and who may act: tokens, the session cookie, and where a request may come from (pure)."""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.config.serve import Tokens

Role = Literal["operator", "reader"]
"""An operator may read and act; a reader may only read."""

COOKIE: Final = "contact_sync_session"

SESSION_SECONDS: Final = 12 * 3600
"""How long a sign-in lasts: one shift."""

HEADER: Final = "x-contact-sync"
"""Header of every request that acts. No HTML form can send it, and a page of another site needs a CORS preflight,
which is refused."""

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_MAC_DIGITS: Final = 64


class Access:
    """Decides which role a request has.

    Args:
        tokens: the accepted tokens. If there is none, everybody is an operator; the command then listens on this
            machine only.
        host: the address that the server listens on.
        loopback: whether only this machine can reach that address.
        proxied: names, in lower case, by which people reach it through a proxy.
    """

    def __init__(self, tokens: Tokens, host: str, *, loopback: bool, proxied: frozenset[str] = frozenset()) -> None:
        self._tokens: dict[Role, str] = {}
        if tokens.operator is not None:
            self._tokens["operator"] = tokens.operator
        if tokens.reader is not None:
            self._tokens["reader"] = tokens.reader
        self._hosts = {*_LOOPBACK_NAMES, *proxied, host.lower()} if loopback else None
        self._proxied = proxied

    @property
    def needed(self) -> bool:
        """Whether users must sign in."""
        return bool(self._tokens)

    def role_of_token(self, token: str) -> Role | None:
        """Returns the role of a token, None if it is invalid. The comparison takes constant time.

        There is no lockout after failed attempts: a token has at least 16 characters, so nobody can guess it, and a
        lockout could keep the operators out.
        """
        found: Role | None = None
        for role, known in self._tokens.items():
            if hmac.compare_digest(_digest(known), _digest(token)):
                found = role
        return found

    def role(self, headers: Mapping[str, str], now_seconds: float) -> Role | None:
        """Returns the role of a request from its bearer token or its cookie; None if it has no role."""
        if not self._tokens:
            return "operator"
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.role_of_token(token.strip())
        return self._of_cookie(headers.get("cookie", ""), now_seconds)

    def session_cookie(self, role: Role, now_seconds: float) -> str:
        """Returns the cookie's value for a role. It is valid in every process that has the same token."""
        claim = f"{role}.{int(now_seconds) + SESSION_SECONDS}"
        return f"{claim}.{self._mac(role, claim)}"

    def is_known_host(self, host: str) -> bool:
        """Whether a Host header names this machine or a proxy's name for it; always true if other machines may connect.

        This stops DNS rebinding: a page of another site whose name starts to resolve to 127.0.0.1 would otherwise
        count as ours. Any port is accepted, because a tunnel has its own.
        """
        return self._hosts is None or _hostname(host) in self._hosts

    def is_same_origin(self, headers: Mapping[str, str]) -> bool:
        """Whether a request that acts comes from our own page, or from a program that is not a browser.

        A proxy may replace the Host header or drop its port. So a page under a proxy's name counts as ours, too.
        """
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        if HEADER not in headers or site not in {"same-origin", "none"}:
            return False
        if origin is None:
            return True
        scheme, _, netloc = origin.lower().partition("://")
        if scheme not in {"http", "https"} or not netloc:
            return False  # a file, an extension or a sandboxed frame
        return netloc == headers.get("host", "").lower() or _hostname(netloc) in self._proxied

    def _of_cookie(self, cookie: str, now_seconds: float) -> Role | None:
        claim, _, mac = _value_of(cookie).rpartition(".")
        name, _, until = claim.partition(".")
        if len(mac) != _MAC_DIGITS or not (until.isascii() and until.isdecimal() and len(until) < 12):
            return None
        for role in self._tokens:
            right = hmac.compare_digest(self._mac(role, claim).encode(), mac.encode("ascii", "replace"))
            if role == name and right and int(until) > now_seconds:
                return role
        return None

    def _mac(self, role: Role, claim: str) -> str:
        return hmac.new(b"contact-sync session\0" + self._tokens[role].encode(), claim.encode(), sha256).hexdigest()


def _value_of(cookie: str) -> str:
    """The last value of our cookie in a Cookie header. Not by `http.cookies`, whose time is quadratic in the length."""
    _, found, rest = f"; {cookie}".rpartition(f"; {COOKIE}=")
    return rest.partition(";")[0].strip().strip('"') if found else ""


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
