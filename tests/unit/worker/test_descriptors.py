"""gpulse/worker/descriptors.py: room for descriptors before they are needed."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gpulse.worker.descriptors import SPARE, make_room

PROGRAM = """
import os
from pathlib import Path
from gpulse.worker.descriptors import make_room
make_room(3000)
status = Path("/proc/self/status").read_text()
print(next(line for line in status.splitlines() if line.startswith("FDSize")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the table's size")
def test_the_table_is_large_before_it_is_needed() -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    found = re.fullmatch(r"FDSize:\s+(\d+)\n", told.stdout)
    assert found is not None, told.stderr
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert int(found[1]) >= min(3000 + SPARE, most)


@pytest.mark.parametrize("connections", [1, 100_000])
def test_it_leaves_no_descriptor_open(connections: int) -> None:
    def opened() -> set[str]:
        return {path.name for path in Path("/dev/fd").iterdir()}

    before = opened()
    make_room(connections)
    assert opened() == before
