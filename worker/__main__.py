"""``python -P -m worker``: Celery's command line, as `contact-sync worker` becomes it.

`celery -A worker` looks into the current directory first, and takes whatever is called `worker` there, or `redis`, and
it reads variables that are meant for another app. Here the app is loaded before Celery looks for it, and those
variables are gone before that.
"""

from __future__ import annotations

import os
import sys
from typing import Final

OF_OTHER_APPS: Final = ("BROKER_URL", "CONFIG_MODULE", "LOADER", "RESULT_BACKEND", "WORKDIR")
"""What Celery's command line takes from the environment for any app, each also with ``CELERY_`` before it."""


def main() -> None:
    """Runs Celery's command line on our app."""
    for name in OF_OTHER_APPS:
        os.environ.pop(name, None)
        os.environ.pop(f"CELERY_{name}", None)
    from celery.__main__ import main as celery_main  # noqa: PLC0415 - the same

    import worker.celery  # noqa: F401, PLC0415 - that it is loaded is all that is wanted, and only now

    sys.exit(celery_main())


if __name__ == "__main__":
    main()
