"""How many processors this process may use: what ``--workers auto`` means.

The smallest of three counts: the processors that the scheduler lets the process run on
(sched_getaffinity(2)), and the processor time that its cgroup and each cgroup above it may use: a
container with two CPUs' worth of time on a 64-core machine wants two workers, not 64.

``quota_v2``, ``quota_v1`` and ``groups`` are pure functions over the texts of the kernel's files;
``available`` reads the files.  A file that is missing or unreadable sets no limit.  Runs in the
master, before the first fork.

Source: cgroups(7), the kernel's cgroup-v2.rst (``cpu.max``) and sched-bwc.rst (``cpu.cfs_*``).
"""

import math
import os
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")


def quota_v2(cpu_max: str) -> float | None:
    """CPUs allowed by a ``cpu.max`` text ("QUOTA PERIOD" in microseconds), None for no limit."""
    fields = cpu_max.split()
    if not fields or fields[0] == "max":
        return None
    return _ratio(fields[0], fields[1] if len(fields) > 1 else "100000")


def quota_v1(cfs_quota_us: str, cfs_period_us: str) -> float | None:
    """CPUs allowed by the two ``cpu.cfs_*`` texts, None for no limit (a quota of -1)."""
    return _ratio(cfs_quota_us.strip(), cfs_period_us.strip())


def _ratio(quota: str, period: str) -> float | None:
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cpus if cpus > 0 else None


def groups(proc_self_cgroup: str) -> dict[str, str]:
    """Controller -> path of this process's cgroup, from ``/proc/self/cgroup``.

    The key of the version 2 hierarchy is the empty string.
    """
    found: dict[str, str] = {}
    for line in proc_self_cgroup.splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon:
            for controller in controllers.split(","):
                found[controller] = path
    return found


def count(affinity: int, quotas: list[float | None]) -> int:
    """Whole processors, at least 1: a part of a processor still wants a worker of its own."""
    limits = [float(affinity), *(quota for quota in quotas if quota is not None)]
    return max(1, math.ceil(min(limits)))


def available(root: Path = ROOT, proc_self_cgroup: Path = Path("/proc/self/cgroup")) -> int:
    """The processors that this process may use now, 1 or more."""
    if hasattr(os, "sched_getaffinity"):
        affinity = len(os.sched_getaffinity(0))
    else:  # macOS
        affinity = os.cpu_count() or 1
    own = groups(_read(proc_self_cgroup))
    quotas: list[float | None] = []
    for directory in _upward(root, own.get("", "/")):
        quotas.append(quota_v2(_read(directory / "cpu.max")))
    for directory in _upward(root / "cpu", own.get("cpu", "/")):
        quotas.append(
            quota_v1(_read(directory / "cpu.cfs_quota_us"), _read(directory / "cpu.cfs_period_us"))
        )
    return count(affinity, quotas)


def _upward(root: Path, group: str) -> list[Path]:
    """The directory of ``group`` under ``root`` and of every group above it, root included."""
    # A cgroup namespace may show a path that leads outside it ("/../..").
    names = [name for name in PurePosixPath(group).parts if name not in ("/", "..")]
    return [root.joinpath(*names[:depth]) for depth in range(len(names), -1, -1)]


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
