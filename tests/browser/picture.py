"""Makes docs/images/page.png and page-dark.png, the pictures of the page: ``python -m tests.browser.picture``."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.browser.chromium import launched
from tests.support.commands import dead_letter
from tests.support.fleet import Fleet
from tests.support.serving import serving
from worker.local.redis import EmbeddedRedis
from worker.process.logs import set_up_logging
from worker.standin.server import StandInThread
from worker.store.presence import Presence

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "page.png"
SECONDS = 90.0


def main(picture: Path = PICTURE, **options: Any) -> None:
    """Lets changes flow for a minute, some of which wait, and takes the picture."""
    set_up_logging("ERROR")
    chance = random.Random(0)
    with ExitStack() as undo:
        server = undo.enter_context(EmbeddedRedis())
        stand_in = undo.enter_context(StandInThread())
        fleet = undo.enter_context(Fleet(server.url, "contact-sync", stand_in, partitions=64))
        fleet.client.config_set("maxmemory", 512 << 20)
        fleet.client.set(fleet.keys.ticker, "picture")
        presence = Presence(fleet.namespace, "worker@app1 4711", 4, "prefork", time.monotonic)
        page = undo.enter_context(launched(undo.enter_context(sync_playwright()))).new_page(
            viewport={"width": 1100, "height": 1180}, **options
        )
        for owner in ("1", "42"):
            dead_letter(fleet, owner=owner)
        client = undo.enter_context(serving(fleet))
        page.goto(str(client.base_url))
        ends, n = time.monotonic() + SECONDS, 0
        while time.monotonic() < ends:
            n += 1
            presence.beat()
            some = chance.randint(100, 600)
            changes = [
                (str(chance.randint(1, 400)), f"{n}-{i}", chance.choice(("upsert",) * 5 + ("delete",)), None)
                for i in range(some)
            ]
            fleet.append_many(changes)
            if n % 9 < 6:
                fleet.flush(0.3)
            page.wait_for_timeout(500)
        fleet.flush(1.0)
        fleet.append_many([(str(n), "2", "upsert", None) for n in range(40)])
        page.wait_for_timeout(2500)
        page.screenshot(path=picture)
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=picture.with_stem(f"{picture.stem}-dark"))


if __name__ == "__main__":
    main()
