"""A broker behind sentinels, as kombu takes it."""

from __future__ import annotations

import pytest

from producers.contract.errors import SettingsError
from worker.config.settings import WorkerSettings

OURS = "redis+sentinel://me:pass@one,two:26380/main/2"


@pytest.mark.parametrize("given", [{"redis_url": OURS}, {"broker_url": OURS}])
def test_a_url_of_ours_becomes_one_for_each_sentinel(given: dict[str, object]) -> None:
    settings = WorkerSettings.model_validate(given)
    assert settings.celery_broker_url == "sentinel://me:pass@one:26379/2;sentinel://two:26380"
    assert settings.broker_sentinel_options["master_name"] == "main"
    assert settings.broker_tls is None


def test_with_tls_the_sentinels_are_verified_too() -> None:
    settings = WorkerSettings(broker_url="rediss+sentinel://one/main?ssl_check_hostname=true")
    expected = {"ssl_check_hostname": True, "ssl_cert_reqs": "required"}
    assert settings.broker_tls == expected
    asking = settings.broker_sentinel_options["sentinel_kwargs"]
    assert asking.items() >= {"ssl": True, **expected}.items()


def test_sentinels_may_have_a_password_of_their_own() -> None:
    settings = WorkerSettings(redis_url=f"{OURS}?sentinel_username=watcher&sentinel_password=s%23cret")
    asking = settings.broker_sentinel_options["sentinel_kwargs"]
    assert asking.items() >= {"username": "watcher", "password": "s#cret"}.items()
    assert settings.celery_broker_url == "sentinel://me:pass@one:26379/2;sentinel://two:26380"


def test_a_url_of_celerys_needs_the_name_of_the_master() -> None:
    settings = WorkerSettings(broker_url="sentinel://one;sentinel://two/0", broker_master="main")
    assert settings.celery_broker_url == "sentinel://one;sentinel://two/0"
    assert settings.broker_sentinel_options["master_name"] == "main"
    with pytest.raises(SettingsError, match=r"^CONTACT_SYNC_BROKER_MASTER must name the master[^\n]+$"):
        WorkerSettings(broker_url="sentinel://one;sentinel://two/0")
    with pytest.raises(SettingsError, match=r"^CONTACT_SYNC_BROKER_MASTER needs a CONTACT_SYNC_BROKER_URL with sent"):
        WorkerSettings(broker_master="main")


@pytest.mark.parametrize("url", ["redis+sentinel://one,two", f"{OURS};{OURS}", "redis+sentinel://one:x/main"])
def test_a_wrong_url_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^CONTACT_SYNC_BROKER_URL must be [^\n]+$"):
        WorkerSettings(broker_url=url)
