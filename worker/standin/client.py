"""A client that controls a running stand-in endpoint and reads its contents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, cast

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from worker.standin.rules import Pair
    from worker.standin.views import AppliedView, Counts, RequestView

_TIMEOUT_SECONDS = 30.0
"""Timeout for each step of a control request; long, because the list of all contacts may be long."""


StandInAway: Final = httpx.HTTPError
"""What every method raises if the stand-in does not answer."""


class StandInControlError(Exception):
    """The stand-in refused a control request. The text is one line that names field and rule."""


class StandInClient:
    """Controls one stand-in endpoint over HTTP.

    Attributes:
        url: base URL of the endpoint, for CONTACT_SYNC_ENDPOINT_URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # The environment's proxies are not used: the stand-in is on this machine or close by.
        self._http = httpx.Client(base_url=f"{url}/_stand-in/", timeout=_TIMEOUT_SECONDS, trust_env=False)

    def contacts(self, owner: str | None = None) -> set[Pair]:
        """Returns the contacts as pairs (owner, contact): all, or those of one owner."""
        query = {} if owner is None else {"owner": owner}
        return {(of, to) for of, to in self._call("GET", "contacts", query=query)}

    def counts(self) -> Counts:
        """Returns the counters since the last reset."""
        return cast("Counts", self._call("GET", "counts"))

    def requests(self, since: int = 0) -> list[RequestView]:
        """Returns the remembered requests with a number above `since`, the oldest first."""
        return cast("list[RequestView]", self._call("GET", "requests", query={"since": str(since)}))

    def applied(self, since: int = 0) -> list[AppliedView]:
        """Returns the remembered applied records with a sequence number above `since`, in that order."""
        return cast("list[AppliedView]", self._call("GET", "applied", query={"since": str(since)}))

    def clear_history(self) -> None:
        """Clears the remembered requests and applied records; contacts, counts and numbering stay."""
        self._call("DELETE", "history")

    def faults(self, *orders: Mapping[str, object]) -> list[dict[str, Any]]:
        """Queues faults and returns them as queued; without arguments, returns the queue.

        Raises:
            StandInControlError: a fault is invalid; none was queued.
        """
        body = orders[0] if len(orders) == 1 else orders
        answer = self._call("POST", "faults", body) if orders else self._call("GET", "faults")
        return cast("list[dict[str, Any]]", answer["faults"])

    def remove_faults(self, number: int | None = None) -> int:
        """Removes one fault by its `id`, or all, releases the requests that hang on them, and returns their number."""
        query = {} if number is None else {"id": str(number)}
        return cast("int", self._call("DELETE", "faults", query=query)["removed"])

    def settings(self, **changes: object) -> dict[str, Any]:
        """Changes the named settings, and returns all settings; the key's secret is masked.

        Raises:
            StandInControlError: a value is invalid; nothing was changed.
        """
        answer = self._call("POST", "settings", changes) if changes else self._call("GET", "settings")
        return cast("dict[str, Any]", answer)

    def reset(self) -> None:
        """Resets the stand-in: no contacts, no history, no faults, its first settings."""
        self._call("POST", "reset")

    def close(self) -> None:
        """Closes this client's connections; the stand-in keeps running."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, name: str, body: object = None, *, query: Mapping[str, str] | None = None) -> Any:
        answer = self._http.request(method, name, json=body, params=query)
        if answer.status_code == httpx.codes.BAD_REQUEST:
            raise StandInControlError(answer.json()["error"])
        return answer.raise_for_status().json()
