"""The page of `serve` as people use it, in a real browser: read, typed into, clicked, and with the keyboard alone."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.support.commands import dead_letter
from tests.support.fleet import PARTITIONS, Fleet, T
from tests.support.serving import OPERATOR, READER, TOKENS
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.browser.conftest import Opened
    from worker.standin.client import StandInClient

WILD = ['"><img src=x onerror=alert(1)>', "<script>alert(1)</script>", "<b>bold</b>", "&lt;&amp;", "名前", "x" * 256]

PHONE = {"width": 360, "height": 740}

pytestmark = pytest.mark.timeout(180)


def test_it_tells_whether_contacts_flow_and_goes_on_doing_so(opened: Opened, fleet: Fleet) -> None:
    for n in range(20):
        fleet.append("1", str(n), "upsert")
    fleet.deliver()
    with opened() as page:
        expect(page.locator("#verdict")).to_have_text("All changes are delivered")
        expect(page.locator("#verdict")).to_have_class("verdict good")
        expect(page.locator("#done")).to_contain_text("20: 20 upserts, 0 deletes")
        expect(page.locator("#parts li")).to_have_count(PARTITIONS)
        expect(page.locator("#rates svg")).to_have_count(1)
        expect(page.locator("#letters")).to_have_text("There are no dead letters.")
        expect(page.locator("#lanes")).to_contain_text("nothing is waiting")
        fleet.append("1", "another", "delete")
        fleet.append("1", "imported", "upsert", T, lane="bulk")
        expect(page.locator("#verdict")).to_contain_text("No worker is running; the oldest change has waited for")
        expect(page.locator("#waiting")).to_contain_text("2")
        expect(page.locator("#lanes dd").nth(1)).to_contain_text("1 entry, 0 pairs pending, oldest")
        fleet.deliver()
        expect(page.locator("#done")).to_contain_text("22: 21 upserts, 1 delete")


def test_an_outage_is_told_with_its_reason_and_the_next_try(opened: Opened, fleet: Fleet) -> None:
    fleet.stand_in.settings(key_id="another")
    fleet.append("1", "2", "upsert")
    fleet.flush_once()
    with opened() as page:
        expect(page.locator("#verdict")).to_contain_text("The endpoint is held (credentials)")
        expect(page.locator("#verdict")).to_have_class("verdict bad")
        expect(page.locator("#gate")).to_contain_text("next try")
        expect(page.locator("#gate")).to_contain_text("HTTP 401")


@pytest.mark.parametrize("wild", WILD)
def test_what_others_wrote_is_text_and_nothing_else(wild: str, opened: Opened, fleet: Fleet) -> None:
    dead_letter(fleet, owner=wild)
    fleet.append_raw(0, {"op": wild, "owner": wild, "contact": wild, "source": wild[:64]})
    fleet.deliver()
    with opened() as page:
        expect(page.locator("#letters li")).to_have_count(2)
        for row in page.locator("#letters li").all():
            row.locator("summary").click()
        assert wild in (page.locator("#letters").text_content() or "")
        page.fill("#explain input[name=owner]", wild)
        page.fill("#explain input[name=contact]", "9")
        page.click("#explain button")
        expect(page.locator("#explained li").first).to_contain_text("dead:")
        assert page.locator("img, #letters b, #explained b, body script").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_letters_are_filtered_shown_and_redriven(opened: Opened, fleet: Fleet) -> None:
    dead_letter(fleet, owner="1")
    dead_letter(fleet, owner="2")
    with opened() as page:
        expect(page.locator("#letters li")).to_have_count(2)
        page.fill("#filter input[name=owner]", "2")
        page.click("#filter button")
        expect(page.locator("#letters li")).to_have_count(1)
        page.click("#letters summary")
        expect(page.locator("#letters dl")).to_contain_text("is not a known user")
        page.click("#redrive")
        expect(page.locator("#letters-said")).to_have_text("Select letters first.")
        page.check("#letters input")
        page.click("#redrive")
        expect(page.locator("#letters-said")).to_have_text("1 redriven")
        expect(page.locator("#letters")).to_have_text("No dead letters match.")
        expect(page.locator("#audit li").first).to_contain_text("redrive 1 letter:")
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("2", "9")}


def test_what_cannot_be_redriven_says_why(opened: Opened, fleet: Fleet) -> None:
    dead_letter(fleet, at=T)
    fleet.append("1", "9", "delete", T + 5)
    fleet.deliver()
    with opened() as page:
        expect(page.locator("#letters summary")).to_contain_text("outdated")
        page.click("#redrive-all")
        expect(page.locator("#letters-said")).to_contain_text("0 redriven; 1 refused: a newer change of the pair")


def test_a_purge_asks_first_and_no_is_the_answer_that_is_offered(opened: Opened, fleet: Fleet) -> None:
    dead_letter(fleet)
    with opened() as page:
        page.check("#every")
        page.click("#purge")
        expect(page.locator("#sure")).to_be_visible()
        expect(page.locator("#sure button[value=no]")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#sure")).to_be_hidden()
        page.click("#purge")
        page.keyboard.press("Escape")
        expect(page.locator("#sure")).to_be_hidden()
        assert len(fleet.dead_letters()) == 1
        page.click("#purge")
        page.click("#sure button[value=yes]")
        expect(page.locator("#letters-said")).to_have_text("1 purged")
        assert fleet.dead_letters() == []


def test_all_of_it_can_be_done_with_the_keyboard(opened: Opened, fleet: Fleet) -> None:
    dead_letter(fleet)
    with opened() as page:
        expect(page.locator("#letters li")).to_have_count(1)
        seen = []
        for _ in range(PARTITIONS + 30):
            page.keyboard.press("Tab")
            seen.append(
                page.evaluate(
                    "document.activeElement.id || document.activeElement.name || document.activeElement.tagName"
                )
            )
            width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
            assert width == "3px" or seen[-1] == "BODY", (seen[-1], width)
            if seen[-1] == "purge":
                break
        assert {"owner", "contact", "reason", "every", "redrive", "purge"} <= set(seen)
        page.locator("#every").focus()
        page.keyboard.press("Space")
        page.locator("#purge").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#letters-said")).to_have_text("1 purged")


def test_a_partition_tells_more_when_it_is_asked(opened: Opened, fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert")
    number = fleet.partition("1")
    with opened() as page:
        page.click(f"#parts button[data-number='{number}']")
        expect(page.locator("#part")).to_contain_text(f"partition {number}: 1 entry, 0 pairs pending")


# Who is there


def test_a_token_signs_in_and_a_wrong_one_does_not(opened: Opened, fleet: Fleet) -> None:
    dead_letter(fleet)
    with opened(TOKENS) as page:
        expect(page.locator("#token")).to_be_focused()
        expect(page.locator("#main")).to_be_hidden()
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#sign-in-said")).to_have_text("invalid token")
        page.fill("#token", OPERATOR)
        page.keyboard.press("Enter")
        expect(page.locator("#redrive")).to_be_visible()
        assert page.evaluate("document.cookie") == ""
        page.reload()
        expect(page.locator("#redrive")).to_be_visible()
        page.click("#sign-out")
        expect(page.locator("#sign-in")).to_be_visible()
        expect(page.locator("#main")).to_be_hidden()


def test_a_reader_is_offered_nothing_that_changes_anything(opened: Opened, fleet: Fleet) -> None:
    dead_letter(fleet)
    with opened(TOKENS) as page:
        page.fill("#token", READER)
        page.keyboard.press("Enter")
        expect(page.locator("#letters li")).to_have_count(1)
        expect(page.locator("#role")).to_have_text("read-only")
        expect(page.locator("#acts")).to_be_hidden()


# Redis away


def test_while_redis_is_away_it_says_so_and_goes_on_by_itself(
    opened: Opened, namespace: str, stand_in: StandInClient, tmp_path: Path
) -> None:
    with ExitStack() as undo:
        with EmbeddedRedis(tmp_path, tcp=True) as server:
            fleet = undo.enter_context(Fleet(server.url, namespace, stand_in))
            fleet.append("1", "2", "upsert")
            page = undo.enter_context(opened(of=fleet, away=True))
            expect(page.locator("#verdict")).to_contain_text("the oldest change has waited")
            expect(page.locator("#trouble")).to_be_hidden()
        expect(page.locator("#trouble")).to_contain_text("Redis does not answer, or refuses")
        expect(page.locator("#trouble")).to_contain_text("This page shows the state at")
        undo.enter_context(EmbeddedRedis(tmp_path, tcp=True))
        expect(page.locator("#trouble")).to_be_hidden()
        expect(page.locator("#verdict")).to_contain_text("the oldest change has waited")


# Looks


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [PHONE, {"width": 1280, "height": 800}], ids=["phone", "desk"])
def test_it_can_be_read_in_dark_and_light_and_on_a_phone(
    scheme: str, size: dict[str, int], opened: Opened, fleet: Fleet
) -> None:
    dead_letter(fleet, owner="x" * 200)
    fleet.append("1", "2", "upsert")
    with opened(color_scheme=scheme, viewport=size) as page:
        expect(page.locator("#letters li")).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for selector in (
            "#verdict",
            "#advice",
            "#oldest",
            ".tiles dt",
            "#gate dd",
            ".hint",
            "#purge",
            "#letters summary",
        ):
            assert contrast(page, selector) >= 4.5, selector
        text, back = (page.evaluate(f"getComputedStyle(document.body).{each}") for each in ("color", "backgroundColor"))
        assert (luminance(text) > luminance(back)) is (scheme == "dark")


def contrast(page: Page, selector: str) -> float:
    """WCAG's contrast between an element's text and what lies behind it."""
    text = page.locator(selector).first.evaluate("element => getComputedStyle(element).color")
    back = page.locator(selector).first.evaluate(
        """element => {
            let each = element;
            while (getComputedStyle(each).backgroundColor === "rgba(0, 0, 0, 0)") each = each.parentElement;
            return getComputedStyle(each).backgroundColor;
        }"""
    )
    light, dark = sorted((luminance(text), luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """WCAG's relative luminance of `rgb(r, g, b)`."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_parked_pairs_are_counted_and_listed_and_all_the_rest_is_delivered(opened: Opened, fleet: Fleet) -> None:
    fleet.stand_in.settings(poisoned=["9"], poison_code="40401")
    fleet.append("1", "9", "upsert", T)
    fleet.append("1", "8", "upsert", T)
    fleet.deliver()
    with opened() as page:
        expect(page.locator("#verdict")).to_have_text("All changes are delivered except 1 parked pair")
        expect(page.locator("#parked")).to_have_text("1")
        expect(page.locator("#parked-list li")).to_contain_text(
            "40401: upsert of contact 9 by owner 1; refused once since"
        )
        fleet.stand_in.settings(poisoned=[])
        fleet.append("1", "9", "upsert", T + 1)
        fleet.deliver()
        expect(page.locator("#parked")).to_have_text("0")
        expect(page.locator("#verdict")).to_have_text("All changes are delivered")
        expect(page.locator("#parked-pairs")).to_be_hidden()
