"""The pytest plugin, as an upstream app's tests use it: each in a pytest run of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.pytester import Pytester

pytest_plugins = ("pytester",)

DOCUMENT = (Path(__file__).parents[3] / "docs" / "tutorials" / "testing.md").read_text(encoding="utf-8")

APP = """
from producers import ContactProducer, NotAccepted

early = ContactProducer("redis://127.0.0.1:1/0")

def befriend(one, other, contacts=None):
    contacts = contacts or ContactProducer()
    contacts.send([{"owner": one, "contact": other, "op": "upsert"}, {"owner": other, "contact": one, "op": "upsert"}])
"""


@pytest.fixture
def app(pytester: Pytester) -> Pytester:
    pytester.makepyfile(app=APP)
    return pytester


def test_what_an_app_emits_is_recorded_in_order_and_reaches_no_redis(app: Pytester) -> None:
    app.makepyfile(
        """
        import asyncio
        import pytest
        import app
        from producers import AsyncContactProducer, ContactProducer, NotAccepted

        def test_changes_are_there_in_order(contact_changes):
            app.befriend("1", "2")
            app.befriend("3", "1", app.early)
            said = [("upsert", "1", "2"), ("upsert", "2", "1"), ("upsert", "3", "1"), ("upsert", "1", "3")]
            assert contact_changes == said
            assert contact_changes.upserted == {pair for _, *rest in said for pair in [tuple(rest)]}
            assert contact_changes[0].at > 10**12
            assert len(contact_changes.of("1")) == 2
            contact_changes.assert_emitted("upsert", "1", "2", times=1)

        def test_each_test_begins_anew(contact_changes):
            assert contact_changes == []
            app.early.delete("1", "9", source="crm")
            assert contact_changes.deleted == {("1", "9")}
            assert contact_changes.of("1", "9")[0].source == "crm"

        def test_asyncio_is_recorded_too(contact_changes):
            async def say():
                async with AsyncContactProducer() as contacts:
                    await asyncio.gather(*(contacts.upsert("1", str(n)) for n in range(5)))
            asyncio.run(say())
            assert contact_changes == [("upsert", "1", str(n)) for n in range(5)]

        def test_redis_may_be_away(contact_changes):
            with contact_changes.redis_away(), pytest.raises(NotAccepted):
                app.befriend("1", "2")
            assert contact_changes == []

        def test_outside_of_the_fixture_it_is_the_real_one_again():
            with pytest.raises(NotAccepted):
                app.early.upsert("1", "2")
        """
    )
    app.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=5)


def test_a_failure_says_what_is_missing_and_what_was_not_expected(app: Pytester) -> None:
    app.makepyfile(
        """
        import app

        def test_equal(contact_changes):
            app.befriend("1", "2")
            assert contact_changes == [("upsert", "1", "2"), ("delete", "1", "9")]

        def test_order(contact_changes):
            app.befriend("1", "2")
            assert contact_changes == [("upsert", "2", "1"), ("upsert", "1", "2")]

        def test_emitted(contact_changes):
            app.befriend("1", "2")
            contact_changes.assert_emitted("delete", "1", "2")
        """
    )
    ran = app.runpytest_subprocess("-p", "no:cacheprovider")
    ran.assert_outcomes(failed=3)
    for line in (
        "*missing:    delete '1' -> '9'",
        "*unexpected: upsert '2' -> '1'",
        "*in another order:",
        "*not emitted: delete '1' -> '2'",
        "*1. upsert '1' -> '2'",
    ):
        ran.stdout.fnmatch_lines([line])


def test_a_pair_is_waited_for_until_the_endpoint_has_it(app: Pytester) -> None:
    app.makepyfile(
        """
        import pytest
        import app
        from producers import ContactProducer

        def test_synced(wait_until_synced, contact_sync_endpoint):
            contact_sync_endpoint.faults({"kind": "status", "status": 503, "times": 1})
            app.befriend("1", "2")
            assert wait_until_synced("1", "2")
            assert contact_sync_endpoint.contacts() == {("1", "2"), ("2", "1")}
            ContactProducer().delete("1", "2")
            assert not wait_until_synced("1", "2")

        def test_said_by_nobody(wait_until_synced):
            with pytest.raises(AssertionError, match="no change of this pair was emitted"):
                wait_until_synced("1", "2")

        def test_not_in_time(wait_until_synced, contact_sync_endpoint):
            contact_sync_endpoint.faults({"kind": "status", "status": 503})
            app.befriend("1", "2")
            with pytest.raises(AssertionError, match="not synced within 0.5 s.*backing off.*503"):
                wait_until_synced("1", "2", seconds=0.5)

        def test_dead(wait_until_synced, contact_sync_endpoint):
            contact_sync_endpoint.settings(poisoned=["13"])
            app.befriend("1", "13")
            with pytest.raises(AssertionError, match="dead letter: refused"):
                wait_until_synced("1", "13")

        def test_not_both(wait_until_synced, contact_changes):
            pass
        """
    )
    ran = app.runpytest_subprocess("-p", "no:cacheprovider")
    ran.assert_outcomes(passed=4, errors=1)
    ran.stdout.fnmatch_lines(["*use only one of them*"])


def test_a_suite_that_turns_warnings_into_errors_passes(app: Pytester) -> None:
    app.makepyfile(
        """
        import gc
        from producers import ContactProducer

        def emit():
            with ContactProducer() as contacts:
                contacts.upsert("1", "2")

        def test_synced(wait_until_synced):
            emit()
            assert wait_until_synced("1", "2")

        def test_again(wait_until_synced, contact_sync_endpoint):
            contact_sync_endpoint.faults({"kind": "status", "status": 503, "times": 1})
            emit()
            assert wait_until_synced("1", "2")

        def test_recorded(contact_changes):
            emit()
            contact_changes.assert_emitted("upsert", "1", "2")

        def test_nothing_is_left_open():
            gc.collect()
        """
    )
    app.makeini("[pytest]\nfilterwarnings = error")
    app.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error").assert_outcomes(passed=4)


def test_a_run_that_does_not_use_it_loads_pytest_alone(pytester: Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            assert "contact_sync_pytest" in sys.modules
            assert not {"producers", "worker", "redis", "pydantic", "fakeredis", "httpx"} & set(sys.modules)
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_an_app_with_a_package_worker_of_its_own_can_record(app: Pytester) -> None:
    app.makepyfile(worker="mine = True")
    app.makepyfile("import app, worker\ndef test(contact_changes):\n    app.befriend('1', '2')\n    assert worker.mine")
    app.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_the_documents_examples_run_as_they_stand(tmp_path: Path) -> None:
    files = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in files] == ["app.py", "test_emits.py", "test_delivery.py"]
    for name, text in files:
        (tmp_path / name).write_text(text, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
