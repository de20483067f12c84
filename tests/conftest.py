"""Fixtures of more than one kind of test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from pulse import Pulse, start_chat

# Time says nothing on a machine that does other things, too.
settings.register_profile("gpulse", deadline=None)
settings.load_profile("gpulse")


@pytest.fixture
def chat_server(tmp_path: Path) -> Iterator[Pulse]:
    """The chat on two workers with the embedded store; it has ``url``."""
    pulse = start_chat(tmp_path, "-w", "2", "--greenlet", "50")
    yield pulse
    try:
        assert pulse.stop() == 0
    finally:
        pulse.close()
