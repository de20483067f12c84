"""The error tree of gpulse and the exit statuses of its commands.

::

    GpulseError                     1   something failed that none of the rows below names
    |-- UsageError                  2   an option, variable, settings key or file line is wrong
    |-- BootError                   3   no worker became ready at first boot
    |-- ApplicationError            4   the WSGI application cannot be imported or called
    |-- ListenError                 5   an address is in use, not allowed or not an address
    |-- StoreError                  6   the data store cannot be reached or found
    |   |-- PublishError                a message could not be handed to the store
    |   `-- SubscribeError              a channel could not be subscribed
    |-- FileError                   7   a file or directory is missing or may not be read or written
    `-- PrivilegeError              8   the user or group does not exist or may not be assumed

Status 0 is an ordinary stop (TERM, INT, QUIT).  Every message is one line for the person who
reads it: what happened, what it means, what to do.  The commands print it without a traceback.
"""


class GpulseError(Exception):
    """Base of all errors that gpulse raises on purpose; ``exit_status`` is what a command exits
    with."""

    exit_status = 1


class UsageError(GpulseError):
    """A value given by the user is wrong; the message names the value and where it came from."""

    exit_status = 2


class BootError(GpulseError):
    """No worker became ready at first boot."""

    exit_status = 3


class ApplicationError(GpulseError):
    """The WSGI application cannot be imported or is not callable."""

    exit_status = 4


class ListenError(GpulseError):
    """A listener cannot be opened."""

    exit_status = 5


class StoreError(GpulseError):
    """The data store is missing, misconfigured or does not answer."""

    exit_status = 6


class PublishError(StoreError):
    """A message could not be handed to the store within the deadline; it was not delivered."""


class SubscribeError(StoreError):
    """The store did not confirm a subscription within the deadline."""


class SubscribeTimeoutError(SubscribeError):
    """The store did not answer at all: the next one need not wait as long."""


class FileError(GpulseError):
    """A file or directory is missing or may not be read or written."""

    exit_status = 7


class PrivilegeError(GpulseError):
    """The user or group does not exist or may not be assumed."""

    exit_status = 8
