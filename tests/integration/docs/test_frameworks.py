"""docs/tutorials/frameworks.md: each example is an app, run as it stands there against a real Redis."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from producers.contract.change import partition_of
from producers.contract.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from worker.local.redis import EmbeddedRedis

DOCUMENT = (Path(__file__).parents[3] / "docs" / "tutorials" / "frameworks.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOCUMENT, re.DOTALL))
MODELS = """
from django.db import models


class Contact(models.Model):
    user_id = models.IntegerField()
    contact_id = models.IntegerField()
"""
SHOP = """
import django
django.setup()
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
from django.db import transaction
from shop.models import Contact
with transaction.atomic():
    Contact.objects.create(user_id=1, contact_id=2).delete()
    Contact.objects.create(user_id=1, contact_id=3)
"""


@pytest.fixture
def said(redis_client: redis.Redis) -> Callable[[str], list[tuple[str, str]]]:
    """Op and contact of what lies in the log of an owner."""

    def look(owner: str) -> list[tuple[str, str]]:
        entries: Any = redis_client.xrange(Keys("contact-sync").events(partition_of(owner, 64)))
        return [(fields[b"op"].decode(), fields[b"contact"].decode()) for _, fields in entries]

    return look


def load(name: str, directory: Path) -> Any:
    path = directory / name
    path.write_text(EXAMPLES[name], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # FastAPI looks the annotations up there
    spec.loader.exec_module(module)
    return module


def test_fastapi(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    redis_server: EmbeddedRedis,
    said: Callable[[str], list[tuple[str, str]]],
) -> None:
    monkeypatch.setenv("CONTACT_SYNC_REDIS_URL", redis_server.url)
    app = load("fastapi_app.py", tmp_path).app

    async def ask() -> list[tuple[int, Any]]:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as http,
        ):
            answers = [
                await http.put("/users/1/contacts/2"),
                await http.delete("/users/1/contacts/9"),
                await http.put(f"/users/1/contacts/{'x' * 257}"),
            ]
            return [(each.status_code, each.json()) for each in answers]

    added, removed, refused = asyncio.run(ask())
    assert (added[0], removed[0]) == (202, 202)
    assert re.fullmatch(r"\d+-\d+", added[1]["receipt"])
    assert refused[0] == 422
    assert refused[1]["detail"].startswith("contact must be")
    assert said("1") == [("upsert", "2"), ("delete", "9")]


def test_fastapi_while_redis_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTACT_SYNC_REDIS_URL", "redis://127.0.0.1:1/0")
    app = load("fastapi_app.py", tmp_path).app

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as http,
        ):
            return await http.put("/users/1/contacts/2")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_flask(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    redis_server: EmbeddedRedis,
    said: Callable[[str], list[tuple[str, str]]],
) -> None:
    monkeypatch.setenv("CONTACT_SYNC_REDIS_URL", redis_server.url)
    monkeypatch.chdir(tmp_path)
    module = load("flask_app.py", tmp_path)
    http = module.app.test_client()
    assert re.fullmatch(r"\d+-\d+", http.put("/users/1/contacts/2").json["receipt"])
    assert http.delete("/users/1/contacts/9").status_code == 202
    refused = http.put(f"/users/1/contacts/{'x' * 257}")
    assert (refused.status_code, refused.json["error"].split()[0]) == (422, "contact")
    assert said("1") == [("upsert", "2"), ("delete", "9")]
    module.contacts.close()


def test_flask_while_redis_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTACT_SYNC_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.chdir(tmp_path)
    module = load("flask_app.py", tmp_path)
    assert module.app.test_client().put("/users/1/contacts/2").json == {"receipt": "spooled"}
    module.contacts.close()


def test_django(tmp_path: Path, redis_server: EmbeddedRedis, said: Callable[[str], list[tuple[str, str]]]) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    database = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "shop.db")}}
    files = {
        "__init__.py": "",
        "models.py": MODELS,
        "apps.py": EXAMPLES["apps.py"],
        "settings.py": f"{EXAMPLES['settings.py']}DATABASES = {database!r}\n",
    }
    for name, text in files.items():
        (shop / name).write_text(text, encoding="utf-8")
    subprocess.run(
        [sys.executable, "-c", SHOP],
        cwd=tmp_path,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "shop.settings", "CONTACT_SYNC_REDIS_URL": redis_server.url},
        check=True,
    )
    assert said("1") == [("upsert", "2"), ("delete", "2"), ("upsert", "3")]


def test_every_example_is_run() -> None:
    assert set(EXAMPLES) == {"fastapi_app.py", "flask_app.py", "apps.py", "settings.py"}
    assert DOCUMENT.count("```python") == len(EXAMPLES)
