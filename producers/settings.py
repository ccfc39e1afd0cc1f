"""Reads settings from the environment or a ``.env`` file (contract, section 5); and the producers' settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeVar
from urllib.parse import parse_qsl

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from producers.contract.change import ID_MAX_BYTES
from producers.contract.errors import SettingsError
from producers.contract.keys import Keys
from producers.contract.partitions import MAX_PARTITIONS
from producers.contract.redis_url import read_options, split_url
from producers.nodes.url import parse_redis_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PREFIX: Final = "CONTACT_SYNC_"
"""Prefix of every variable's name; the rest is the field's name in capitals."""

_REDIS_URL_RULE: Final = (
    "a URL such as redis://host:6379/0, unix:///path?db=0, redis+sentinel://host:26379,host2:26379/master/0 or "
    "redis+cluster://host:6379,host2:6379"
)

Settings = TypeVar("Settings", bound="CheckedSettings")


def variable_of(field: str) -> str:
    """Returns the environment variable that sets a field."""
    return PREFIX + field.upper()


def setting(default: Any, *, description: str, rule: str, shown: bool = True, **constraints: Any) -> Any:
    """Returns a field of a settings model.

    Args:
        default: its value if the variable is unset or empty.
        description: what it is for; the comment in ``.env.example``.
        rule: what a value must be; the end of the sentence "VARIABLE must be ...".
        shown: whether an error may repeat the value; False if the value may contain a secret.
        constraints: pydantic's own, such as ``ge``.
    """
    return Field(default, description=description, json_schema_extra={"rule": rule, "shown": shown}, **constraints)


def check_redis_url(url: str, name: str) -> str:
    """Returns the URL if every part of this project can connect with it.

    Args:
        url: of Redis.
        name: the variable or argument that holds it, for the message.

    Raises:
        ValueError: it is not a Redis URL.
        SettingsError: it does not verify certificates; or an option is unknown or invalid.
    """
    check_verifies(url, name)
    parse_redis_url(url)
    read_options(url, name)
    return url


def check_verifies(url: str, name: str) -> None:
    """Checks that a URL does not switch off verification: a secret would then go to any server that answers.

    The URL may name the authority to trust.

    Args:
        url: of Redis or of a broker.
        name: the variable or argument that holds it, for the message.

    Raises:
        SettingsError: the URL switches the verification of certificates or host names off.
    """
    for option, value in parse_qsl(split_url(url).query, keep_blank_values=True):
        reqs_off = option == "ssl_cert_reqs" and value not in {"required", "CERT_REQUIRED"}
        if reqs_off or (option == "ssl_check_hostname" and value.lower() not in {"true", "1"}):
            raise SettingsError(
                f"{name} must not switch off the verification of certificates ({option}): "
                "ssl_ca_certs names the authority to trust"
            )


def _check_redis_url_variable(value: str) -> str:
    return check_redis_url(value, variable_of("redis_url"))


class CheckedSettings(BaseModel):
    """Settings whose errors are one line. Immutable.

    Raises:
        SettingsError: a value is invalid; one line names the variable and the rule.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    if not TYPE_CHECKING:  # for the type checker the fields themselves are the signature

        def __init__(self, /, **fields: Any) -> None:
            """Checks the fields. An error is one line; pydantic's own takes several and may show a password."""
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise SettingsError("; ".join(_lines(type(self), fields, error))) from None


def _id_max_characters() -> Any:
    return setting(
        None,
        description="Most characters in an id; unset, only the limit of 256 bytes counts. The platform may allow 50.",
        rule=f"a whole number from 1 to {ID_MAX_BYTES}",
        ge=1,
        le=ID_MAX_BYTES,
    )


class RecorderSettings(CheckedSettings):
    """The settings that an outbox needs to record a change.

    Attributes:
        id_max_characters: most characters in an id; None for no such limit (CONTACT_SYNC_ID_MAX_CHARACTERS).
    """

    id_max_characters: int | None = _id_max_characters()

    @property
    def id_max(self) -> int:
        """Most characters in an id: there are never more than bytes."""
        return self.id_max_characters or ID_MAX_BYTES


_Replicas = Annotated[int, Field(ge=0, le=100)]


def _check_replicas(value: object) -> object:
    return value if value == "all" else int(str(value))


class ProducerSettings(CheckedSettings):
    """The settings of a producer. Immutable.

    Attributes:
        redis_url: Redis with the event log: ``redis://``, ``unix://``, ``redis+sentinel://`` or ``redis+cluster://``;
            with TLS ``rediss://``, ``rediss+sentinel://`` or ``rediss+cluster://`` (CONTACT_SYNC_REDIS_URL).
        redis_credentials: a function, ``package.module:function``, that returns a password, or user and password, for
            each new connection to Redis (CONTACT_SYNC_REDIS_CREDENTIALS).
        namespace: prefix of every key in Redis (CONTACT_SYNC_NAMESPACE).
        wait_replicas: how many replicas must have a change before it counts as accepted, or ``all``; commands that
            change something wait for them, too (CONTACT_SYNC_WAIT_REPLICAS).
        partitions: how many partitions the log must have; None for the recorded number, 64 at first use
            (CONTACT_SYNC_PARTITIONS).
        id_max_characters: most characters in an id; None for no such limit (CONTACT_SYNC_ID_MAX_CHARACTERS).

    Raises:
        SettingsError: a value is invalid; one line names the variable and the rule.
    """

    redis_url: Annotated[str, AfterValidator(_check_redis_url_variable)] = setting(
        "redis://localhost:6379/0",
        description="Event log and state: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://.",
        rule=_REDIS_URL_RULE,
        shown=False,
    )
    redis_credentials: str | None = setting(
        None,
        description="Function that returns user and password for each new connection to Redis, for tokens that expire.",
        rule="package.module:function",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$",
    )
    namespace: str = setting(
        "contact-sync",
        description="Prefix of every key in Redis, and the name of the Celery queue.",
        rule="1 to 64 letters, digits and -_.:",
        # Braces would move the hash tag. The allowed characters need no quoting in shells, ACL patterns, queue names.
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
    )
    partitions: int | None = setting(
        None,
        description="Number of partitions; unset takes the recorded one, or 64 at first use. `repartition` changes it.",
        rule=f"a whole number from 1 to {MAX_PARTITIONS}",
        ge=1,
        le=MAX_PARTITIONS,
    )

    id_max_characters: int | None = _id_max_characters()

    @property
    def id_max(self) -> int:
        """Most characters in an id: there are never more than bytes."""
        return self.id_max_characters or ID_MAX_BYTES

    wait_replicas: Annotated[Literal["all"] | _Replicas, BeforeValidator(_check_replicas)] = setting(
        0,
        description="How many replicas must have a change, or what a command wrote, before it counts; or all.",
        rule="'all', or a whole number from 0 to 100",
    )

    @model_validator(mode="after")
    def _check_credentials(self) -> Self:
        if self.redis_credentials is not None and "@" in split_url(self.redis_url).netloc:
            name = variable_of("redis_credentials")
            raise SettingsError(f"{variable_of('redis_url')} must have no user or password if {name} is set")
        return self

    @property
    def keys(self) -> Keys:
        """The names of the namespace's keys."""
        return Keys(self.namespace)


def load_settings(
    model: type[Settings],
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = Path(".env"),
    **given: object,
) -> Settings:
    """Reads settings. The environment takes precedence over the ``.env`` file, and that over the defaults.

    An empty value counts as unset in both. Variables without the prefix are ignored.

    Args:
        model: which settings to read.
        environ: the environment; None for the process's own.
        dotenv: the ``.env`` file, which need not exist; None to read no file.
        given: fields that the caller sets; they take precedence over all of these.

    Raises:
        SettingsError: a value is invalid; one line names the variable and the rule.
    """
    variables = {**_non_empty(read_dotenv(dotenv)), **_non_empty(os.environ if environ is None else environ)}
    found = {name: variables[variable_of(name)] for name in model.model_fields if variable_of(name) in variables}
    fields: dict[str, Any] = {**found, **given}
    return model(**fields)


def producer_settings(url: str | None, settings: ProducerSettings | None) -> ProducerSettings:
    """Returns the given settings; else those of the environment, with ``url`` for Redis if it is given.

    Raises:
        SettingsError: a setting is invalid, or both arguments are given.
    """
    if url is None:
        return settings or load_settings(ProducerSettings)
    if settings is not None:
        raise SettingsError("a producer takes a url or settings, not both")
    try:
        check_redis_url(url, "the argument url")
    except (ValueError, TypeError, AttributeError):  # the last two: it is not text
        raise SettingsError(f"the argument url must be {_REDIS_URL_RULE}") from None
    return load_settings(ProducerSettings, redis_url=url)


def _non_empty(variables: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if value and name.startswith(PREFIX)}


def read_dotenv(dotenv: Path | None = Path(".env")) -> Mapping[str, str | None]:
    """Returns the variables in a ``.env`` file; nothing if there is no such file, or its directory cannot be entered.

    An app that changed its user after its start may well stand in a directory that is not its own.

    Raises:
        SettingsError: the file cannot be read, or a line that names a setting of ours: it would be missing.
            Or a value of ours has a NUL.
    """
    try:
        if dotenv is None or not dotenv.is_file():
            return {}
    except OSError:
        return {}
    from dotenv.parser import parse_stream  # noqa: PLC0415 - loaded only if there is a .env file

    try:
        # By its parser, which does not interpolate: a secret may contain a dollar sign.
        with dotenv.open(encoding="utf-8") as file:
            found = list(parse_stream(file))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{dotenv} cannot be read: {reason}") from None
    # Other lines may be for other programs, which read such a file in other ways.
    if wrong := [each.original.line for each in found if each.error and PREFIX in each.original.string]:
        raise SettingsError(f"{dotenv}, line {wrong[0]}: it must be NAME=value; a quote that opens must close")
    values = {each.key: each.value for each in found if each.key is not None}
    for name, value in values.items():
        if name.startswith(PREFIX) and "\0" in (value or ""):  # no variable can have one, and so no path
            raise SettingsError(f"{dotenv}: {name} must have no NUL")
    return values


def _lines(model: type[BaseModel], given: Mapping[str, Any], error: ValidationError) -> Iterator[str]:
    """One line for each field with a fault: one that may be of several types has a fault for each of them."""
    for name in dict.fromkeys(str(fault["loc"][0]) for fault in error.errors(include_url=False)):
        extra = model.model_fields[name].json_schema_extra
        rule, shown = (extra["rule"], extra["shown"]) if isinstance(extra, dict) else ("valid", False)
        yield f"{variable_of(name)} must be {rule}" + (f", not {given[name]!r}" if shown else "")
