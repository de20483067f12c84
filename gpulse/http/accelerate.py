"""X-Sendfile and X-Accel-Redirect: a view names a file, and the server sends it.

``X-Sendfile`` names the file by its path, ``X-Accel-Redirect`` by a URL path below a prefix that
stands for a directory.  Only files below the directories of ``--sendfile-root`` are sent, after
symbolic links are followed, and only regular ones.  What a view names wrongly is its request's 404,
with one line in the log: the name often has a visitor's text in it.

A range of the file is sent if the request asks for one (RFC 9110, 14): one range, for GET, with
``If-Range`` heeded.  Several ranges are answered with the whole file, as the RFC allows.

The field is taken out of the response by :meth:`FileRoots.take`, which is pure; :func:`open_file`
waits for a disk and is called on a file thread or a thread of the pool.
"""

import os
import re
import stat
from collections.abc import Iterable
from typing import BinaryIO
from urllib.parse import unquote

from gpulse.http.response import Headers

_REPLACED = frozenset(("x-sendfile", "x-accel-redirect", "content-length"))
_RANGE = re.compile(r"bytes=([0-9]{1,18})?-([0-9]{1,18})?", re.IGNORECASE)


class FileRoots:
    """The directories whose files may be sent.

    :param roots: (prefix, directory) pairs; an empty prefix is for X-Sendfile.
    """

    __slots__ = ("_by_path", "_by_prefix")

    def __init__(self, roots: tuple[tuple[str, str], ...]) -> None:
        self._by_path = _longest_first((root, root) for prefix, root in roots if not prefix)
        self._by_prefix = _longest_first((prefix, root) for prefix, root in roots if prefix)

    def __bool__(self) -> bool:
        return bool(self._by_path or self._by_prefix)

    def take(self, headers: Headers) -> "tuple[Headers, str, str] | None":
        """The file that a response names: the other fields, a directory, and the path below it.

        The length of the body that the file replaces is no longer among the fields.

        :returns: None if it names none; the directory and the path are empty if there is no
            directory for the name.
        """
        for name, value in headers:
            lower = name.lower()
            if lower == "x-sendfile" and self._by_path:
                found = self._below(value, self._by_path)
            elif lower == "x-accel-redirect" and self._by_prefix:
                path = unquote(value.partition("?")[0], errors="surrogateescape")
                found = self._below(path, self._by_prefix)
            else:
                continue
            return [pair for pair in headers if pair[0].lower() not in _REPLACED], *found
        return None

    @staticmethod
    def _below(name: str, roots: list[tuple[str, str]]) -> tuple[str, str]:
        for prefix, directory in roots:
            if name.startswith(prefix):
                return directory, name[len(prefix) :].lstrip("/")
        return "", ""


def _longest_first(roots: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each with a slash behind its prefix: a prefix is whole segments of a path."""
    pairs = [(prefix.rstrip("/") + "/", directory) for prefix, directory in roots]
    return sorted(pairs, key=lambda pair: len(pair[0]), reverse=True)


def open_file(directory: str, path: str) -> BinaryIO:
    """Open the file; it lies below the directory when all links are followed.

    :raises OSError: it does not, or is no regular file, or may not be read.
    """
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        path = ""  # half of a surrogate pair, say
    if not path or "\0" in path:
        raise FileNotFoundError(2, "no file is named", path)
    root = os.path.realpath(directory)
    found = os.path.realpath(os.path.join(root, path))
    if os.path.commonpath([root, found]) != root:
        raise PermissionError(13, "it lies outside of its --sendfile-root", path)
    # Not blocking, in case it is a pipe; not following, in case a link came in its place.
    fd = os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise PermissionError(13, "it is no regular file", path)
    return os.fdopen(fd, "rb")


def chosen_range(text: str, size: int) -> "tuple[int, int] | None":
    """The first byte and the length that a Range field asks for of ``size`` bytes.

    :returns: None where the whole file is the answer: another unit, several ranges, no sense.
    :raises ValueError: nothing of the file lies in the range; 416 says so.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        length = min(int(found[2]), size)
        if not length:
            raise ValueError("an empty range")
        return size - length, length
    first = int(found[1])
    last = min(int(found[2]), size - 1) if found[2] else size - 1
    if found[2] and int(found[2]) < first:
        return None
    if first >= size:
        raise ValueError("a range behind the end")
    return first, last - first + 1


def range_is_wanted(fields: dict[str, str], headers: Headers) -> bool:
    """Whether the Range of a request still holds for this response: its If-Range names nothing, or
    the response's own ETag or Last-Modified (RFC 9110, 13.1.5)."""
    condition = fields.get("HTTP_IF_RANGE")
    if condition is None:
        return True
    validators = [value for name, value in headers if name.lower() in ("etag", "last-modified")]
    return condition in validators and not condition.startswith("W/")
