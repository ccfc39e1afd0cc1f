"""What a connection says of the library that made it."""

from __future__ import annotations

# getaddrinfo imports it at the first connection otherwise: see below.
import encodings.idna  # noqa: F401
from typing import Final

import redis
from redis.driver_info import DriverInfo

DRIVER: Final = DriverInfo(lib_version=redis.__version__)
"""redis-py and its version.

Without it redis-py reads its own version from the installed package for each connection, and imports modules for that.
While a thread imports a module, a fork gives the child a lock of that module which nobody releases.
"""
