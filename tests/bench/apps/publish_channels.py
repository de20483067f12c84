"""Publishes through a channel layer: ``COUNT`` on standard input."""

import asyncio
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "channelsite.settings")

from channels.layers import get_channel_layer
from message import TEXT


async def main():
    layer = get_channel_layer()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := await reader.readline():
        for _ in range(int(line)):
            await layer.group_send("room.lobby", {"type": "room.message", "text": TEXT})


asyncio.run(main())
