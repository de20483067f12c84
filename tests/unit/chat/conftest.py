"""Makes the example project importable: ``chat`` is the package inside the directory chat/."""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3] / "chat"

sys.path.insert(0, str(PROJECT))
