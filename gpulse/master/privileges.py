"""Users and groups: resolved in the master before anything is opened, assumed in each child.

The master itself keeps its privileges: it needs them to open listeners and pid files and to start
children again.  Refused: a user or group that does not exist, and, for a master that is not root,
any other than its own.  See setuid(2), initgroups(3).
"""

import grp
import os
import pwd
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from gpulse.errors import PrivilegeError


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the children are to be; made by :func:`resolve`."""

    uid: int
    gid: int
    user: str = ""
    """Empty for a numeric user that no database knows."""
    home: str = ""
    is_other: bool = False
    """Whether it differs from the master's, so that there is something to drop."""

    def own(self, path: str) -> None:
        """Give a file or directory to this identity."""
        if self.is_other:
            os.chown(path, self.uid, self.gid)

    def assume(self) -> None:
        """Become this identity for good; called in a child, after the fork.

        :raises OSError: if the kernel refuses.
        """
        if not self.is_other:
            return
        # Group first: once the user is dropped, the right to change groups is gone.
        if self.user:
            os.initgroups(self.user, self.gid)
        else:
            os.setgroups([self.gid])
        os.setgid(self.gid)
        os.setuid(self.uid)
        # libpq reads $HOME/.postgresql and fails where HOME is still root's.
        os.environ.update(self.environment())

    def environment(self) -> dict[str, str]:
        """What login(1) would set."""
        if not (self.is_other and self.user):
            return {}
        return {"USER": self.user, "LOGNAME": self.user, "HOME": self.home}


def resolve(user: str | None, group: str | None) -> Identity:
    """Look up ``--user`` and ``--group``, names or numbers; None keeps the master's.

    A user without a group gets that user's own group.

    :raises PrivilegeError: in one line, if one does not exist or may not be assumed.
    """
    uid, gid = os.geteuid(), os.getegid()
    entry = _find_user(user) if user is not None else None
    name = home = ""
    if user is not None:
        if entry is not None:
            uid, gid, name, home = entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir
        else:
            uid = int(user)
    if group is not None:
        gid = _find_group(group)
    is_other = (uid, gid) != (os.geteuid(), os.getegid())
    if is_other and os.geteuid() != 0:
        wanted = f"--user {user}" if user is not None else f"--group {group}"
        raise PrivilegeError(
            f"{wanted} needs a master that runs as root; leave it out, or let the service manager "
            "choose the user"
        )
    return Identity(uid, gid, name, home, is_other)


def check_reach() -> None:
    """Look whether this process, which may have changed its user, can go on importing.

    What it may not read looks to an import like what is not there.

    :raises PrivilegeError: in one line.
    """
    for what, path in (
        ("Python's library", Path(os.__file__).parent),
        ("gpulse", Path(__file__).parent),
        ("the site", Path(sys.path[0])),
    ):
        if not _is_readable(path):
            raise PrivilegeError(
                f"user {_name(os.getuid())} may not read {path}, where {what} is; give it access "
                "to this and all directories above it, or name another with --user"
            )


def _is_readable(path: Path) -> bool:
    """Whether an import may look there; what does not exist is for the import to complain of."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return False
    except OSError:
        return True
    return os.access(path, os.R_OK | os.X_OK if stat.S_ISDIR(mode) else os.R_OK)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _find_user(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        if user.isdecimal():
            return None
        raise PrivilegeError(
            f"user {user!r} does not exist; create it or name another with --user"
        ) from None


def _find_group(group: str) -> int:
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise PrivilegeError(
            f"group {group!r} does not exist; create it or name another with --group"
        ) from None
