"""The master: owns listeners, children, signals, the scoreboard and the store's process.

It stays cold (no gevent, no Django, no threads, no application code) and closed to features.
"""
