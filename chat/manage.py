#!/usr/bin/env python3
"""The chat's management commands: ``migrate``, ``createsuperuser``, ``test``, ``pulse``."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat.settings")
    # Imported only now, since the import may look at the settings.
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
