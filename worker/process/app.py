"""Makes the Celery app: queue, options against Celery's known traps, the flush task, the ticker, the checks at start.

Messages are hints. Nothing here may keep a change: no arguments, no ETA, no countdown, no result backend.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import redis
import structlog
from celery import Celery, signals
from kombu.exceptions import OperationalError
from kombu.transport.redis import Channel, Transport
from kombu.transport.virtual import QoS

from producers.contract.errors import ContactSyncError, SettingsError
from producers.settings import variable_of
from worker.config.broker import BrokerCredentials
from worker.config.settings import load_worker_settings
from worker.core.codec import Unreadable
from worker.core.timing import FLUSH_BUDGET_SECONDS
from worker.process import runtime
from worker.process.bootsteps import TickerStep, quick_options
from worker.process.hint import FLUSH_TASK
from worker.process.logs import set_up_logging
from worker.process.signals import (
    SignalStep,
    end_before_start,
    end_without_pause,
    leave_hangup_to_parent,
    leave_results_unread,
)
from worker.process.stopping import sigterm_waits
from worker.process.watchdog import ConsumerWatchdog
from worker.store.client import LEASE_PATH_SECONDS
from worker.store.inbox import load_map
from worker.store.refusal import cluster_fault, refusal

if TYPE_CHECKING:
    from kombu.transport.virtual import Channel as AnyChannel

    from worker.config.settings import WorkerSettings

_FOREIGN_VARIABLES: Final = (
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
)
"""Celery prefers these to an app's own settings; if they are meant for another app, our hints would go there."""

_MEMORY_POLL_SECONDS: Final = 0.05
"""How often a process without a broker looks for its own hints. By default kombu looks once a second."""

_LOG = structlog.get_logger("contact_sync")


def create_app() -> Celery:
    """Makes the app from the settings in the environment; to be called once in a process.

    Raises:
        SystemExit: the settings are wrong. Standard error has one line that says why; the status is 2.
    """
    settings = _load_settings_or_exit()
    for variable in _FOREIGN_VARIABLES:
        os.environ.pop(variable, None)
    _reconnect_on_refused_commands()
    _keep_consuming_whatever_becomes_of_hints()
    BrokerCredentials.function = settings.redis_credentials or ""
    # Without fixups: Celery's own one loads the Django settings of whatever app shares our environment.
    app = Celery("contact-sync", fixups=[])
    app.contact_sync_settings = settings  # type: ignore[attr-defined] # bootsteps are given nothing but the app
    app.conf.update(_options(settings))
    _add_flush_task(app, settings)
    for step in (SignalStep, TickerStep, ConsumerWatchdog):
        app.steps["worker"].add(step)
    signals.setup_logging.connect(_set_up_logging)
    signals.celeryd_init.connect(_check_before_start)
    signals.worker_init.connect(_leave_out_talk)
    signals.worker_init.connect(_keep_what_is_loaded)
    signals.worker_process_init.connect(leave_hangup_to_parent)
    signals.worker_process_init.connect(leave_results_unread)
    signals.worker_process_shutdown.connect(end_without_pause)
    return app


def _load_settings_or_exit() -> WorkerSettings:
    try:
        settings = load_worker_settings(require_credentials=False)
        settings.check_broker_given()
    except SettingsError as error:
        _refuse(error)
    return settings


def _refuse(error: Exception) -> NoReturn:
    """Ends the process with status 2 and one line on standard error, before anything starts."""
    print(f"contact-sync: {error}", file=sys.stderr)  # noqa: T201 - logging is not set up yet, and this is for people
    raise SystemExit(2)


def _reconnect_on_refused_commands() -> None:
    """Makes kombu connect again if Redis answers READONLY or OOM.

    Both pass. kombu takes them for faults of the channel, and its consumer then ends the whole process.
    """
    if redis.ResponseError not in Transport.connection_errors:
        Transport.connection_errors = (*Transport.connection_errors, redis.ResponseError)


def _keep_consuming_whatever_becomes_of_hints() -> None:
    """Stops kombu from giving back, or acknowledging, the hints that a worker held as its connection was lost.

    For either, kombu asks the closed connection for the broker's address, and the whole worker ends. They are given
    back after the visibility timeout, and the ticker has left others long before. So is a hint whose acknowledgement
    Redis refuses, and its place is free all the same: kombu takes no further hint while all places are taken.
    """
    Channel.do_restore = False
    Channel.basic_ack = _acknowledge  # type: ignore[assignment, method-assign] # kombu has no option


def _acknowledge(channel: AnyChannel, delivery_tag: str, multiple: bool = False) -> None:  # noqa: FBT001, FBT002 - as kombu calls it
    if channel.closed:
        return
    try:
        _BASIC_ACK(channel, delivery_tag, multiple)
    except redis.ResponseError:
        QoS.ack(channel.qos, delivery_tag)
        raise


_BASIC_ACK: Final = Channel.basic_ack


def _options(settings: WorkerSettings) -> dict[str, Any]:
    """Celery's settings."""
    return {
        "broker_url": settings.celery_broker_url,
        "broker_use_ssl": settings.broker_tls,
        "task_default_queue": settings.namespace,
        # Only JSON is accepted, so that nobody who reaches the broker can run code here.
        "task_serializer": "json",
        "accept_content": ["json"],
        "event_serializer": "json",
        "result_accept_content": ["json"],
        "task_ignore_result": True,
        # A hint that a busy process holds back wakes nobody; a hint lost in a crash costs nothing.
        "worker_prefetch_multiplier": 1,
        "task_acks_late": False,
        "worker_hijack_root_logger": False,
        "worker_enable_remote_control": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Children do not see SIGTERM. A flush ends when its time budget is spent, long before any stop grace.
        "worker_soft_shutdown_timeout": 0.0,
        "broker_transport_options": {}
        if settings.broker_is_database
        else {
            # A connection that died silently is found within seconds, not at the next message.
            "socket_timeout": 10.0,
            "socket_connect_timeout": 5.0,
            "socket_keepalive": True,
            "health_check_interval": settings.broker_health_check_seconds,
            "visibility_timeout": 60,
            # By default all apps share these keys. In a database that another app uses too, our visibility timeout
            # would put that app's tasks back into its queue while they run.
            "unacked_key": f"{settings.namespace}:unacked",
            "unacked_index_key": f"{settings.namespace}:unacked_index",
            "unacked_mutex_key": f"{settings.namespace}:unacked_mutex",
            "retry_on_timeout": False,
            **settings.broker_sentinel_options,
            **({"polling_interval": _MEMORY_POLL_SECONDS} if settings.broker_is_memory else {}),
        },
    }


def _add_flush_task(app: Celery, settings: WorkerSettings) -> None:
    @app.task(name=FLUSH_TASK, ignore_result=True, Strategy="worker.process.hint:hint_strategy")
    def flush(*_args: object, **_kwargs: object) -> None:
        """Flushes what is due. Ignores whatever the message carries."""
        try:
            with sigterm_waits():
                runtime.of_this_process(settings).flush(FLUSH_BUDGET_SECONDS)
        except redis.RedisError as error:
            # Nothing is lost: the changes are still in the log, the leases expire, and the ticker hints again.
            _LOG.warning("flush_interrupted", error=refusal(error) or type(error).__name__)
        except Unreadable as error:  # something else wrote into a key of ours; what it says is one line
            _LOG.error("state_unreadable", error=str(error))


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
    # Extensions of Celery's logging wait for this signal, which Celery does not send if an app sets up its own logs.
    given = {"loglevel": loglevel, "logfile": logfile, "colorize": colorize, "format": more.get("format")}
    signals.after_setup_logger.send(sender=None, logger=root, **given)


def _check_before_start(instance: Any, **_: Any) -> None:
    """Refuses to start with settings that cannot work, or with another number of partitions than recorded."""
    app = instance.app
    end_before_start()
    try:
        load_worker_settings(require_credentials=True)
        load_map(runtime.settings_of(app).inbox_map)
        _check_broker(app, runtime.settings_of(app))
        app.contact_sync_partitions = runtime.wait_for_redis(runtime.settings_of(app))
    except ContactSyncError as error:
        _refuse(error)
    except Exception as error:  # noqa: BLE001 - Celery would log it and start anyway, unchecked
        _refuse(SettingsError(f"cannot start: unexpected {type(error).__name__}"))


def _check_broker(app: Any, settings: WorkerSettings) -> None:
    """Connects to the broker once, so that what waiting cannot fix is one line now and not a traceback later.

    Raises:
        SettingsError: no worker can use this broker. One that is away is awaited.
    """
    name = variable_of("redis_url" if settings.broker_url is None else "broker_url")
    try:
        with app.connection_for_write(transport_options=quick_options(settings)) as connection:
            away = connection.transport.connection_errors
            try:
                connection.ensure_connection(max_retries=1, timeout=LEASE_PATH_SECONDS)
                client = getattr(connection.default_channel, "client", None)
                fault = cluster_fault(client.info("server")) if isinstance(client, redis.Redis) else None
            except (OperationalError, OSError, *away) as error:
                fault = refusal(error) or refusal(error.__cause__)
    except SettingsError:
        raise
    except Exception as error:  # noqa: BLE001 - each transport raises its own; their words may repeat a password
        raise SettingsError(f"{name}: Celery cannot use such a broker here ({type(error).__name__})") from None
    if fault:
        raise SettingsError(f"{name}: workers cannot use this broker: {fault}")


def _leave_out_talk(sender: Any, **_: Any) -> None:
    """Turns off what workers tell each other through Celery: none of ours reads it.

    After a kill of Redis gossip has crashed workers for good; and while the broker hangs, the loop that sends an event
    each two seconds stands still. Whoever asks for events, as a monitor's users do, gets the heartbeats too.
    """
    sender.options["without_gossip"] = True
    sender.options["without_mingle"] = True
    if not sender.task_events:
        sender.options["without_heartbeat"] = True


def _keep_what_is_loaded(**_: Any) -> None:
    """Stops the garbage collector from going through what is loaded, all of which stays.

    It would do so in each child, which would copy it all, and once more as the process ends, for most of a second.
    """
    gc.freeze()
