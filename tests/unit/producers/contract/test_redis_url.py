"""The options of a Redis URL: one list for every part, and one line for any other option or value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trustme

from producers.contract.errors import SettingsError
from producers.contract.redis_url import OPTIONS, read_options

if TYPE_CHECKING:
    from pathlib import Path

NAME = "CONTACT_SYNC_REDIS_URL"
KNOWN = (
    "db, health_check_interval, sentinel_password, sentinel_username, "
    "ssl_ca_certs, ssl_cert_reqs, ssl_certfile, ssl_check_hostname, ssl_keyfile"
)

LOCKED = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAg=
-----END ENCRYPTED PRIVATE KEY-----
"""


def refusal(url: str) -> str:
    with pytest.raises(SettingsError) as refused:
        read_options(url, NAME)
    line = str(refused.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://h/1", {}),
        ("redis://h/1?", {}),
        ("redis://h?db=0", {"db": 0}),
        ("redis://h/1?db=2", {"db": 2}),
        ("redis://h?d%62=3", {"db": 3}),
        ("unix:///run/r.sock?db=15&health_check_interval=30", {"db": 15, "health_check_interval": 30}),
        (
            "rediss://h?ssl_cert_reqs=required&ssl_check_hostname=true",
            {"ssl_cert_reqs": "required", "ssl_check_hostname": True},
        ),
    ],
)
def test_known_options_are_read(url: str, options: dict[str, object]) -> None:
    assert read_options(url, NAME) == options


@pytest.mark.parametrize(
    "option",
    ["protocol=3", "decode_responses=true", "socket_timeout=1", "password=hunter2", "virtual_host=1", "DB=1", "ssl=1"],
)
@pytest.mark.parametrize("url", ["redis://h", "rediss://h", "unix:///r"])
def test_any_other_option_is_named_with_the_known_ones(url: str, option: str) -> None:
    name = option.partition("=")[0]
    assert refusal(f"{url}?{option}") == f"{NAME} has an unknown option {name}: known are {KNOWN}"


@pytest.mark.parametrize(
    "url", ["redis://:hun?ter2=x@h/0", "redis://h?hunter2", "redis://h?hunter2%0a=1", "redis://h?=hunter2"]
)
def test_what_is_not_the_name_of_an_option_is_not_repeated(url: str) -> None:
    assert refusal(url) == f"{NAME} has an unknown option: known are {KNOWN}; a ? in a user or password is written %3F"


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("db=", "db must be a whole number from 0 to 2147483647"),
        ("db", "db must be a whole number from 0 to 2147483647"),
        ("db=-1", "db must be a whole number from 0 to 2147483647"),
        ("db=first", "db must be a whole number from 0 to 2147483647"),
        ("db=٣", "db must be a whole number from 0 to 2147483647"),
        ("db=2147483648", "db must be a whole number from 0 to 2147483647"),
        ("health_check_interval=0", "health_check_interval must be a whole number of seconds from 1 to 86400"),
        ("health_check_interval=1.5", "health_check_interval must be a whole number of seconds from 1 to 86400"),
        ("db=1&db=1", "db must be given once"),
        ("ssl_ca_certs=/x", "ssl_ca_certs needs a rediss:// URL"),
    ],
)
def test_a_value_that_is_invalid_is_one_line_with_the_option_and_its_rule(query: str, rule: str) -> None:
    assert refusal(f"redis://h?{query}") == f"{NAME}: the option {rule}"


@pytest.mark.parametrize("query", ["ssl_check_hostname=yes", "ssl_check_hostname=false"])
def test_host_names_are_checked_or_the_option_is_left_out(query: str) -> None:
    assert refusal(f"rediss://h?{query}") == f"{NAME}: the option ssl_check_hostname must be true"


# Files of certificates


@pytest.fixture
def files(tmp_path: Path) -> Path:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours = authority.issue_cert("client.example")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.issue_cert("other.example").private_key_pem.write_to_path(tmp_path / "other.pem")
    (tmp_path / "text.pem").write_text("nothing")
    (tmp_path / "locked.pem").write_text(LOCKED)
    return tmp_path


def test_certificates_are_read_from_files(files: Path) -> None:
    query = f"ssl_ca_certs={files}/ca.pem&ssl_certfile={files}/cert.pem&ssl_keyfile={files}/key.pem"
    assert read_options(f"rediss://h?{query}", NAME) == {
        "ssl_ca_certs": f"{files}/ca.pem",
        "ssl_certfile": f"{files}/cert.pem",
        "ssl_keyfile": f"{files}/key.pem",
    }


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("ssl_ca_certs=", "ssl_ca_certs must be a readable file of certificates in PEM form"),
        ("ssl_ca_certs={}/missing", "ssl_ca_certs must be a readable file of certificates in PEM form"),
        ("ssl_ca_certs={}", "ssl_ca_certs must be a readable file of certificates in PEM form"),
        ("ssl_ca_certs={}/text.pem", "ssl_ca_certs must be a readable file of certificates in PEM form"),
        (
            "ssl_certfile={}/missing&ssl_keyfile={}/key.pem",
            "ssl_certfile must be a readable certificate in PEM form, with its key in it or in ssl_keyfile",
        ),
        (
            "ssl_certfile={}/cert.pem",
            "ssl_certfile must be a readable certificate in PEM form, with its key in it or in ssl_keyfile",
        ),
        (
            "ssl_certfile={}/cert.pem&ssl_keyfile={}/other.pem",
            "ssl_certfile must be a readable certificate in PEM form, with its key in it or in ssl_keyfile",
        ),
        (
            "ssl_certfile={}/cert.pem&ssl_keyfile={}/locked.pem",
            "ssl_certfile must be a readable certificate in PEM form, with its key in it or in ssl_keyfile",
        ),
        ("ssl_keyfile={}/key.pem", "ssl_keyfile needs ssl_certfile"),
    ],
)
def test_files_that_cannot_be_used_are_refused_before_anything_connects(files: Path, query: str, rule: str) -> None:
    assert refusal(f"rediss://h?{query.replace('{}', str(files))}") == f"{NAME}: the option {rule}"


def test_every_option_is_documented() -> None:
    assert ", ".join(sorted(OPTIONS)) == KNOWN
