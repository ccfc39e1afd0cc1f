"""The Celery app, found by `celery -A worker`: queue, options against Celery's known traps, the flush task, the ticker.

Messages are hints. Nothing here may keep a change: no arguments, no ETA, no countdown, no result backend.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import redis
import structlog
from celery import Celery, signals
from kombu.transport.redis import Transport

from producers.contract.errors import ContactSyncError, SettingsError
from producers.settings import variable_of
from worker.config.settings import WorkerSettings, load_worker_settings
from worker.process import runtime
from worker.process.bootsteps import TickerStep
from worker.process.logs import set_up_logging
from worker.process.signals import SignalStep, end_before_start
from worker.process.stopping import sigterm_waits
from worker.process.ticker import BUDGET_SECONDS
from worker.process.watchdog import ConsumerWatchdog

FLUSH_TASK = "contact_sync.flush"
"""Name of the one task."""

_LOG = structlog.get_logger("contact_sync")


def _refuse(error: Exception) -> NoReturn:
    """One clear line on standard error and exit status 2, before anything starts."""
    print(f"contact-sync: {error}", file=sys.stderr)  # noqa: T201 - logging is not set up yet, and this is for people
    raise SystemExit(2)


def _settings() -> WorkerSettings:
    try:
        return load_worker_settings(require_credentials=False)
    except SettingsError as error:
        _refuse(error)


SETTINGS = _settings()

# Celery takes these over any app's own settings; a variable meant for another app must not send our hints elsewhere.
for _variable in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND"):
    os.environ.pop(_variable, None)

# READONLY and OOM are weather, to be waited out by connecting again; kombu takes them for the channel's own faults,
# and its consumer ends the whole process for them.
Transport.connection_errors = (*Transport.connection_errors, redis.ResponseError)

app = Celery("contact-sync")
app.contact_sync_settings = SETTINGS  # type: ignore[attr-defined] # for the bootsteps, which are given the app alone
app.conf.update(
    broker_url=SETTINGS.celery_broker_url,
    task_default_queue=SETTINGS.namespace,
    # Only JSON is taken, so that nobody who reaches the broker can run code here.
    task_serializer="json",
    accept_content=["json"],
    event_serializer="json",
    result_accept_content=["json"],
    task_ignore_result=True,
    # A hint held back by a busy process would be no hint; one lost on a crash costs nothing.
    worker_prefetch_multiplier=1,
    task_acks_late=False,
    worker_hijack_root_logger=False,
    worker_enable_remote_control=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # Children do not see SIGTERM; a flush ends by its own budget, far below this.
    worker_soft_shutdown_timeout=0.0,
    broker_transport_options={
        # A connection that has silently died is found within seconds, not with the next message.
        "socket_timeout": 10.0,
        "socket_connect_timeout": 5.0,
        "socket_keepalive": True,
        "health_check_interval": 5,
        "visibility_timeout": 60,
        # Every app has these keys in common unless it is told otherwise: in a database that another app shares, our
        # visibility timeout would put that app's tasks back into its queue while they are worked on.
        "unacked_key": f"{SETTINGS.namespace}:unacked",
        "unacked_index_key": f"{SETTINGS.namespace}:unacked_index",
        "unacked_mutex_key": f"{SETTINGS.namespace}:unacked_mutex",
        "retry_on_timeout": False,
    },
)
for _step in (SignalStep, TickerStep, ConsumerWatchdog):
    app.steps["worker"].add(_step)


@app.task(name=FLUSH_TASK, ignore_result=True, Strategy="worker.process.hint:hint_strategy")
def flush(*_args: object, **_kwargs: object) -> None:
    """Flushes what is due. Takes nothing: whatever a message carries is ignored."""
    try:
        with sigterm_waits():
            runtime.of_this_process(SETTINGS).flusher.run(BUDGET_SECONDS)
    except redis.RedisError as error:
        # Nothing is lost: what was in hand lies in the log, its leases expire, and the ticker hints again.
        _LOG.warning("flush_interrupted", error=type(error).__name__)


@signals.setup_logging.connect
def _set_up_logging(
    loglevel: int | str = "INFO",
    logfile: str | None = None,
    colorize: bool | None = None,  # noqa: FBT001 - Celery's signature
    **more: Any,
) -> None:
    try:
        root = set_up_logging(loglevel, logfile, colours=bool(colorize))
    except OSError as error:
        _refuse(SettingsError(f"--logfile: {logfile} cannot be written: {error.strerror}"))
    # Whoever extends Celery's logging does it at this signal, which Celery leaves out where somebody else sets it up.
    told = {"loglevel": loglevel, "logfile": logfile, "colorize": colorize, "format": more.get("format")}
    signals.after_setup_logger.send(sender=None, logger=root, **told)


@signals.celeryd_init.connect
def _check_before_start(**_: Any) -> None:
    """Refuses to start with settings that cannot work, or with another number of partitions than recorded."""
    end_before_start()
    try:
        load_worker_settings(require_credentials=True)
        _check_broker()
        app.contact_sync_partitions = runtime.wait_for_redis(SETTINGS)  # type: ignore[attr-defined] # for the ticker
    except ContactSyncError as error:
        _refuse(error)
    except Exception as error:  # noqa: BLE001 - Celery would log it and start all the same, unchecked
        _refuse(SettingsError(f"cannot start, for a reason that has no name yet: {type(error).__name__}"))


def _check_broker() -> None:
    """Loads what speaks to the broker, so that a missing package is one line here and no traceback later."""
    try:
        _ = app.connection_for_write().transport
    except Exception as error:  # noqa: BLE001 - each transport raises its own; their words may repeat a password
        name = variable_of("broker_url")
        raise SettingsError(f"{name}: Celery cannot use such a broker here ({type(error).__name__})") from None


@signals.worker_init.connect
def _leave_out(sender: Any, **_: Any) -> None:
    """No gossip, no mingle: nothing here needs them, and after a kill of Redis gossip has crashed workers for good."""
    sender.options["without_gossip"] = True
    sender.options["without_mingle"] = True
