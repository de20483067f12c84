"""The worker: boots, serves and drains in a process forked from the master."""
