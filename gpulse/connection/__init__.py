"""Parked sockets: connections that hold a read watcher and a buffer, never a greenlet or a
thread."""
