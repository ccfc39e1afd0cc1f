"""pip install 'contact-sync[django]'; then migrate, runserver, and beside it, always: manage.py contact_sync_relay."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "book.settings")
    execute_from_command_line(sys.argv)
