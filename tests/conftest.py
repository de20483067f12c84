"""Fixtures of more than one kind of test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pulse import Pulse, start_chat


@pytest.fixture
def chat_server(tmp_path: Path) -> Iterator[Pulse]:
    """The chat on two workers with the embedded store; it has ``url``."""
    pulse = start_chat(tmp_path, "-w", "2", "--greenlet", "50")
    yield pulse
    try:
        assert pulse.stop() == 0
    finally:
        pulse.close()
