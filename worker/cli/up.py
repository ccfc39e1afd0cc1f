"""``contact-sync up``: runs a Redis and a worker on this machine until Ctrl-C."""

from __future__ import annotations

import shlex
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click
import redis
from pydantic import SecretStr

from producers.contract.errors import ContactSyncError
from producers.contract.partitions import agree_partitions
from producers.nodes.connect import is_cluster
from producers.settings import variable_of
from worker.cli.interrupts import EXIT_INTERRUPTED, Interrupts, noting_interrupts
from worker.cli.path import PathName
from worker.cli.session import EXIT_FAILED, EXIT_USAGE, Failure, say
from worker.cli.up_backup import back_up, restore
from worker.config.settings import load_worker_settings
from worker.local.cluster import EmbeddedCluster
from worker.local.process import ProcessStartError
from worker.local.redis import EmbeddedRedis, EmbeddedRedisError
from worker.local.redis_binary import RedisNotFoundError
from worker.local.stand_in import SupervisedStandIn
from worker.local.worker import SupervisedWorker
from worker.store.client import connect
from worker.store.gate import Gate
from worker.store.inbox import load_map
from worker.store.namespace import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.config.settings import WorkerSettings

WATCH_SECONDS: Final = 1.0
"""Time between two checks that everything still runs."""

RESTARTS_MAX: Final = 3
"""Maximum number of restarts in a row: if a worker ends more often, something is wrong with it."""

STEADY_SECONDS: Final = 60.0
"""If a worker ran this long, its end does not count as one in a row."""

_CHANGE: Final = '{"owner": "1", "contact": "2", "op": "upsert"}'

_EPILOG = """\b
Example:
  contact-sync up --stand-in
  contact-sync up --data ./contact-sync-data
  contact-sync up --data ~/contact-sync --print-unit > ~/.config/systemd/user/contact-sync.service
  contact-sync up --data ~/contact-sync --backup contact-sync.rdb
  contact-sync up --data ~/contact-sync-new --restore contact-sync.rdb
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--data",
    type=PathName(file_okay=False),
    metavar="DIR",
    help="Keep Redis' data in this directory, and use what is there.  [default: keep nothing]",
)
@click.option("--stand-in", "with_stand_in", is_flag=True, help="Also start a stand-in endpoint, and deliver to it.")
@click.option(
    "--tcp", is_flag=True, help="Let Redis also listen on 127.0.0.1, where other users of this machine can reach it."
)
@click.option("--cluster", is_flag=True, help="Start a Redis Cluster of three nodes, on 127.0.0.1; without a broker.")
@click.option("--print-unit", is_flag=True, help="Print a systemd unit that keeps this command running, and end.")
@click.option(
    "--backup",
    type=PathName(dir_okay=False),
    metavar="FILE",
    help="Write all that --data holds into this file, also while it is used, and end.",
)
@click.option(
    "--restore",
    "restored",
    type=PathName(dir_okay=False),
    metavar="FILE",
    help="Fill --data, a new or empty directory, from this backup, with deliveries paused, and end.",
)
def up(  # noqa: PLR0913 - each is an option of the command
    *,
    data: Path | None,
    with_stand_in: bool,
    tcp: bool,
    cluster: bool,
    print_unit: bool,
    backup: Path | None,
    restored: Path | None,
) -> None:
    """Run a Redis and a worker on this machine until Ctrl-C.

    Settings come from the environment or a .env file, except the Redis: it always uses the one that it starts. That
    Redis listens on a socket that only this user can reach, unless --tcp is given. With --data its URL is the same at
    every start: DIR holds the socket, or the number of the port.

    It also writes its settings to a private file that a shell can read, and prints the line for that: after it, every
    command of that shell uses what runs here. The file is gone when this command ends.
    """
    if print_unit:
        if data is None:
            raise click.UsageError("--print-unit needs --data DIR: without it every restart begins with an empty Redis")
        named = {"--stand-in": with_stand_in, "--tcp": tcp, "--cluster": cluster}
        options = [name for name, given in named.items() if given]
        click.echo(_unit(Path(sys.argv[0]).absolute(), data.absolute(), options), nl=False)
        return
    if cluster and (tcp or backup is not None or restored is not None):
        raise click.UsageError("--cluster excludes --tcp, --backup and --restore")
    copying = _copying(data, backup, restored)
    try:
        if copying is not None:
            copying()
        else:
            with noting_interrupts() as interrupts, ExitStack() as stack:
                server = EmbeddedCluster(data_dir=data) if cluster else EmbeddedRedis(data, tcp=tcp)
                _keep_up(interrupts, stack, data, server, with_stand_in=with_stand_in)
    except KeyboardInterrupt:
        click.echo("contact-sync: interrupted; everything has stopped", err=True)
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    except (RedisNotFoundError, EmbeddedRedisError, ProcessStartError) as error:
        raise Failure(str(error), EXIT_FAILED) from None
    except ContactSyncError as error:  # a setting is invalid, or the data has another number of partitions
        raise Failure(str(error), EXIT_USAGE) from None
    except redis.RedisError as error:
        raise Failure(f"the Redis that this command started went away: {type(error).__name__}", EXIT_FAILED) from None


def _copying(data: Path | None, backup: Path | None, restored: Path | None) -> Callable[[], None] | None:
    """Returns what copies the data, None if nothing is to be copied."""
    if backup is None and restored is None:
        return None
    if data is None:
        raise click.UsageError("--backup and --restore need --data DIR")
    if backup is not None and restored is not None:
        raise click.UsageError("--backup and --restore exclude each other")
    return partial(back_up, data, backup) if backup is not None else partial(restore, data, cast("Path", restored))


def _unit(program: Path, data: Path, options: list[str]) -> str:
    """Returns the unit. It is for the user's own service manager; the journal keeps and rotates what is logged."""
    line = " ".join(_quoted(each) for each in [str(program), "up", "--data", str(data), *options])
    return f"""[Unit]
Description=contact-sync: a Redis and a worker

[Service]
Type=exec
WorkingDirectory={str(Path.cwd()).replace("%", "%%")}
Environment=PYTHONUNBUFFERED=1
ExecStart={line}
KillMode=mixed
TimeoutStopSec=60
Restart=on-failure
RestartPreventExitStatus=2
SuccessExitStatus=143

[Install]
WantedBy=default.target
"""


def _quoted(word: str) -> str:
    """Returns a word as systemd reads it back: it expands % and $, and splits at blanks."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if escaped.isascii() and " " not in escaped and '"' not in escaped else f'"{escaped}"'


def _keep_up(
    interrupts: Interrupts,
    stack: ExitStack,
    data: Path | None,
    server: EmbeddedRedis | EmbeddedCluster,
    *,
    with_stand_in: bool,
) -> None:
    _settings("redis://127.0.0.1", None if not with_stand_in else "http://127.0.0.1")  # before anything starts
    stack.enter_context(server)
    endpoint = stack.enter_context(SupervisedStandIn()).url if with_stand_in else None
    settings = _settings(server.url, endpoint)
    client = stack.enter_context(connect(settings.redis_url, settings.redis_credentials))
    # A worker would report a mismatch only in its log.
    partitions = agree_partitions(client, settings.keys, settings.partitions)
    worker = Restarted(lambda: SupervisedWorker(settings))
    stack.callback(worker.close)
    if data is not None and not server.keeps_url:
        long = "contact-sync: the path of --data is too long for a socket: the URL will be different at every start"
        click.echo(long, err=True)
    shell_settings = server.private_directory / "settings.sh"
    shell_settings.touch(mode=0o600)
    shell_settings.write_text(_for_shell(settings), encoding="utf-8")
    _announce(settings, data, shell_settings, with_stand_in=with_stand_in)
    if Gate(Namespace(client, settings.keys, partitions)).snapshot().paused_ms:
        click.echo("contact-sync: deliveries are paused: contact-sync resume", err=True)
    for _ in interrupts.ticks(WATCH_SECONDS):
        client.ping()
        worker.restart_if_ended()


def _settings(redis_url: str, stand_in_url: str | None) -> WorkerSettings:
    """The worker's settings: the user's, but with the Redis that is started here as log and broker.

    Raises:
        SettingsError: a setting is invalid, or the server key is missing.
    """
    broker_url = "memory://" if is_cluster(redis_url) else None
    here: dict[str, Any] = {"redis_url": redis_url, "broker_url": broker_url, "broker_master": None}
    here["redis_credentials"] = None
    if stand_in_url is not None:
        key_id, key_secret = SecretStr(SupervisedStandIn.key_id), SecretStr(SupervisedStandIn.key_secret)
        here |= {"endpoint_url": stand_in_url, "server_key_id": key_id, "server_key_secret": key_secret}
        here |= {"server_key_id_file": None, "server_key_secret_file": None}
    settings = load_worker_settings(require_credentials=stand_in_url is None, **here)
    load_map(settings.inbox_map)
    return settings


def _for_shell(settings: WorkerSettings) -> str:
    """Returns what a shell must read for its commands to use what runs here.

    All that the worker was told is in it, so that `check` sees what the worker sees. What it was not told is unset,
    because another broker, namespace or file with a key would count in that shell.
    """
    lines = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is None or name not in settings.model_fields_set:
            lines.append(f"unset {variable_of(name)}")
        else:
            if isinstance(value, Path):
                value = value.absolute()  # that shell may be in another directory
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            lines.append(f"export {variable_of(name)}={shlex.quote(text)}")
    return "\n".join(lines) + "\n"


def _announce(settings: WorkerSettings, data: Path | None, shell_settings: Path, *, with_stand_in: bool) -> None:
    """Prints what runs, and how to use it."""
    variables = f"{variable_of('redis_url')}={shlex.quote(settings.redis_url)}"
    if settings.namespace != "contact-sync":
        variables += f" {variable_of('namespace')}={shlex.quote(settings.namespace)}"
    click.echo(f"Redis     {settings.redis_url}  {f'data in {data}' if data else 'keeps no data'}")
    click.echo(f"endpoint  {settings.endpoint_url}{'  (stand-in)' if with_stand_in else ''}")
    click.echo("worker    one process; its log follows here")
    click.echo()
    click.echo(f"produce:  echo '{_CHANGE}' | {variables} contact-sync emit")
    click.echo(f"status:   {variables} contact-sync status --watch")
    if with_stand_in:
        click.echo(f"contacts: curl -s {settings.endpoint_url}/_stand-in/contacts")
    click.echo(f"settings: . {shlex.quote(str(shell_settings))}")
    click.echo("          Run that line in another shell: all commands there then use what runs here.")
    click.echo("Ctrl-C ends all of it.")


class Restarted:
    """A worker that is started again when it ends. One that stops consuming ends itself to be started again."""

    def __init__(self, start: Callable[[], SupervisedWorker], clock: Callable[[], float] = time.monotonic) -> None:
        self._start = start
        self._clock = clock
        self._worker = start()
        self._started = clock()
        self._restarts = 0

    def restart_if_ended(self) -> None:
        """Starts another worker if this one ended.

        Raises:
            Failure: it ended too many times in a row.
        """
        status = self._worker.poll()
        if status is None:
            return
        self._restarts = 0 if self._clock() - self._started > STEADY_SECONDS else self._restarts + 1
        if self._restarts > RESTARTS_MAX:
            raise Failure(f"the worker ended with status {status}, {self._restarts} times in a row", EXIT_FAILED)
        say(f"contact-sync: the worker ended with status {status}; starting another")
        self.close()
        self._worker, self._started = self._start(), self._clock()

    def close(self) -> None:
        """Stops the worker after its current requests, and waits until it has ended."""
        self._worker.close()
