"""What stands between gpulse and Django's own apps: accounts and sessions.

Above the worker, which serves applications that know no Django at all.
"""
