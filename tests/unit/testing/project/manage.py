"""A site with tests of its own, as a user of gpulse has it: ``python manage.py test``."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rooms.settings")
    execute_from_command_line(sys.argv)
