"""A stack as text, for the log line about a request that takes too long.

Formatted as a traceback is, the innermost call last.  Without local variables, for these hold what
no log may have.  Bounded in frames and in the length of a line, so that it fits the log's own
bound.  Source lines come from ``linecache`` and are not checked against the disk again: what a
worker runs is what it imported, and the hub, which calls this, is not to wait for a disk.
"""

import linecache
from types import FrameType

FRAMES = 50
"""Frames of a stack that are logged: the innermost, where the application is."""
SOURCE_LINE = 120
"""Characters of a source line that are logged."""


def format_stack(frame: FrameType | None) -> str:
    """Lines without a last newline; empty without a frame.

    :param frame: the innermost one, of a greenlet that is suspended or a thread that may run on
        meanwhile: then the stack is one that it had.
    """
    frames = []
    while frame is not None:
        frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    lines = []
    if len(frames) > FRAMES:
        lines.append(f"  ... {len(frames) - FRAMES} outer frames")
    for each, number in reversed(frames[:FRAMES]):
        code = each.f_code
        lines.append(f'  File "{code.co_filename}", line {number}, in {code.co_qualname}')
        # The line number is None where a thread is between two lines.
        source = linecache.getline(code.co_filename, number or 0, each.f_globals).strip()
        if source:
            lines.append(f"    {source[:SOURCE_LINE]}")
    return "\n".join(lines)
