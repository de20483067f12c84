"""Rooms with WebSockets; its tests are those of docs/howto/testing.rst."""
