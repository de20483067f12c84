"""Makes the database of ``accountsite``: ``python accounts.py COUNT`` prints COUNT session keys.

Each session is that of an account of its own that is logged in.
"""

import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "accountsite.settings")

import django

BACKEND = "django.contrib.auth.backends.ModelBackend"


def main():
    django.setup()
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session
    from django.core.management import call_command
    from django.utils.crypto import get_random_string

    call_command("migrate", verbosity=0)
    users = [
        User(username=f"user{n}", password=UNUSABLE_PASSWORD_PREFIX + get_random_string(40))
        for n in range(int(sys.argv[1]))
    ]
    User.objects.bulk_create(users, batch_size=500)
    sessions = []
    for user in User.objects.all():
        store = SessionStore()
        store[SESSION_KEY] = str(user.pk)
        store[BACKEND_SESSION_KEY] = BACKEND
        store[HASH_SESSION_KEY] = user.get_session_auth_hash()
        store._session_key = store._get_new_session_key()
        sessions.append(store.create_model_instance(dict(store.items())))
    Session.objects.bulk_create(sessions, batch_size=500)
    sys.stdout.write("\n".join(session.session_key for session in sessions) + "\n")


if __name__ == "__main__":
    main()
