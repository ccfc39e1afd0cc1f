"""What the tests of the stand-in send: requests spelled out, by a client that hides nothing."""

from __future__ import annotations

import base64

import httpx

from worker.standin.rules import SYNC_PATH

DEADLINE_SECONDS = 10.0


def key(text: str = "stand-in:stand-in") -> dict[str, str]:
    return {"Server-Key": base64.b64encode(text.encode()).decode()}


def upsert(owner: str, contact: str) -> dict[str, object]:
    return {"ownerXCUserID": owner, "contactXCUserID": contact}


def delete(owner: str, contact: str) -> dict[str, object]:
    return {"ownerXCUserID": owner, "contactXCUserID": contact, "isDeleted": True}


def sync(client: httpx.Client, *records: object, timeout_seconds: float = DEADLINE_SECONDS) -> httpx.Response:
    return client.post(SYNC_PATH, json={"contacts": list(records)}, timeout=timeout_seconds)


def client_of(url: str, headers: dict[str, str] | None = None) -> httpx.Client:
    return httpx.Client(base_url=url, headers=key() if headers is None else headers, trust_env=False)
