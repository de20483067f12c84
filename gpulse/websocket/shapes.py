"""How an event goes to a client that gets it without a handler: its payload's shape.  Pure.

A shape is a function; all sockets with one shape share what it makes of an event.  None is for an
event that says nothing to such a client.
"""

import base64
import json
from collections.abc import Callable

from gpulse.store.message import BINARY as BINARY_EVENT
from gpulse.store.message import GAP, PRESENCE, Event
from gpulse.store.message import TEXT as TEXT_EVENT
from gpulse.websocket.frames import BINARY, TEXT

Shape = Callable[[Event], tuple[int, bytes] | None]
"""Event -> opcode and payload of the one message that tells of it."""


def plain(event: Event) -> tuple[int, bytes] | None:
    """The message as it was published; nothing of presence and gaps."""
    if event.kind in (PRESENCE, GAP):
        return None
    return (BINARY if event.kind == BINARY_EVENT else TEXT), event.data


def enveloped(event: Event) -> tuple[int, bytes] | None:
    """The message in the frame of ``gpulse.v1``, which names its channel and position."""
    channel = json.dumps(event.channel, ensure_ascii=False).encode()
    if event.kind == PRESENCE:
        kind = b"join" if event.data[:1] == b"+" else b"leave"
        member = json.dumps(event.data[1:].decode(), ensure_ascii=False).encode()
        return TEXT, b'{"type":"%s","channel":%s,"member":%s}' % (kind, channel, member)
    position = b'"%s"' % event.position.encode() if event.position else b"null"
    if event.kind == GAP:
        return TEXT, b'{"type":"gap","channel":%s,"position":%s}' % (channel, position)
    if event.kind == BINARY_EVENT:
        name, data = b"base64", b'"%s"' % base64.b64encode(event.data)
    elif event.kind == TEXT_EVENT:
        name, data = b"data", json.dumps(event.text, ensure_ascii=False).encode()
    else:
        name, data = b"data", event.data  # it is JSON already
    return TEXT, b'{"type":"event","channel":%s,"position":%s,"%s":%s}' % (
        channel,
        position,
        name,
        data,
    )
