"""``python -P -m worker``: Celery's command line, which `contact-sync worker` runs.

`celery -A worker` searches the current directory first and imports any `worker` or `redis` it finds there. It also
reads variables that may be meant for another app. Here those variables are removed first, and our app is loaded before
Celery searches for it.
"""

from __future__ import annotations

import os
import sys
from typing import Final

OF_OTHER_APPS: Final = ("BROKER_URL", "CONFIG_MODULE", "LOADER", "RESULT_BACKEND", "WORKDIR")
"""Variables that Celery's command line reads for any app, each also with the prefix ``CELERY_``."""


def main() -> None:
    """Runs Celery's command line on our app."""
    for name in OF_OTHER_APPS:
        os.environ.pop(name, None)
        os.environ.pop(f"CELERY_{name}", None)
    from celery.__main__ import main as celery_main  # noqa: PLC0415 - the same

    import worker.celery  # noqa: F401, PLC0415 - only has to be loaded, and only now

    sys.exit(celery_main())


if __name__ == "__main__":
    main()
