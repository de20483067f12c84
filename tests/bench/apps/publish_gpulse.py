"""Publishes through gpulse from outside its workers: ``COUNT [CHANNEL]`` on standard input."""

import sys

from message import TEXT

import gpulse
from gpulse import store

store.current()
sys.stdout.write("ready\n")
sys.stdout.flush()
for line in sys.stdin:
    count, *channel = line.split()
    for _ in range(int(count)):
        gpulse.publish(channel[0] if channel else "room:lobby", TEXT)
