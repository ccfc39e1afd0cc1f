"""What commands show of foreign text: no secrets of a URL, and nothing that steers a terminal."""

from __future__ import annotations

from worker.cli.session import printable, shown_url


def test_a_shown_url_holds_neither_user_nor_password_nor_options() -> None:
    assert shown_url("rediss://me:pass@redis.example:6380/1?password=secret") == "rediss://redis.example:6380/1"
    assert shown_url("unix:///run/redis.sock?db=0&password=secret") == "unix:///run/redis.sock"


def test_what_others_wrote_cannot_steer_a_terminal() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\x0ac"


def test_bytes_that_are_not_utf_8_are_shown_as_they_are() -> None:
    assert printable("/run/\udcff\udc80.sock") == "/run/\\xff\\x80.sock"
