"""A site for the tests of the client in a browser."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "clientsite.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
