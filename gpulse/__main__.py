"""``python -m gpulse``: the same as the ``gpulse`` command."""

import sys

from gpulse.cli import main

if __name__ == "__main__":
    sys.exit(main())
