"""What a benchmark has to show: one line each as the last of its output, and its exit status."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A number and its bound.

    :param what: begins the line: "null WSGI".
    :param bound: ends the sentence: ">= 8.0 x gunicorn gevent".
    :param found: the measured value as text; None: it was left out on request.
    """

    what: str
    bound: str
    found: str | None
    met: bool

    def __str__(self) -> str:
        if self.found is None:
            return f"target: {self.what} {self.bound}: not measured"
        return f"target: {self.what} {self.bound}: {self.found}: {'met' if self.met else 'missed'}"


def at_least(what: str, least: float, peer: str, found: float | None) -> Target:
    """A ratio of gpulse to ``peer``: more is better."""
    bound = f">= {least:.2f} x {peer}"
    if found is None:
        return Target(what, bound, None, met=True)
    return Target(what, bound, f"{found:.2f}", met=found >= least)


def below(what: str, limit: float | None, unit: str, found: float, whose: str = "") -> Target:
    """A number that must be smaller than a limit.

    :param limit: None: what it is to be compared with was left out.
    :param whose: limit it is: "granian's".
    """
    if limit is None:
        return Target(what, f"< {whose}", None, met=True)
    bound = f"< {whose + ' ' if whose else ''}{limit:,.2f} {unit}"
    return Target(what, bound, f"{found:,.2f} {unit}", met=found < limit)


def finish(targets: Sequence[Target]) -> None:
    """Print the lines; exit with 1 if a target is missed."""
    for target in targets:
        print(target, flush=True)  # noqa: T201
    if not all(target.met for target in targets):
        sys.exit(1)
