"""gpulse as a Django app: the ``pulse`` command, a system check of ``settings.GPULSE``, and the
signals of accounts, which sockets follow."""

from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, register

from gpulse import config, site
from gpulse.errors import GpulseError


class GpulseConfig(AppConfig):
    """Registered by ``"gpulse"`` in INSTALLED_APPS."""

    name = "gpulse"
    verbose_name = "gpulse"

    def ready(self) -> None:
        register(check_settings)
        # Before the first connection is made, which it wants to hear of.
        from gpulse.django import connections  # noqa: F401

        if apps.is_installed("django.contrib.auth"):
            # Imports models, which are not there while this module is imported.
            from gpulse.django import accounts

            accounts.connect()


def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E001: ``settings.GPULSE`` has a key that is no option, or a value that is refused."""
    try:
        facts = site.describe()
    except GpulseError as error:
        return [Error(str(error), id="gpulse.E001")]
    source = config.from_settings(facts.gpulse, facts.settings or "the Django settings")
    return [Error(line, id="gpulse.E001") for line in config.problems([source])]
