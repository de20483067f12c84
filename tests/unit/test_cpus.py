"""What ``--workers auto`` counts, from the texts of the kernel's files."""

from pathlib import Path

import pytest

from gpulse import cpus


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2.0),
        ("50000 100000", 0.5),
        ("150000", 1.5),
        ("", None),
        ("rubbish 100000", None),
        ("100000 0", None),
    ],
)
def test_quota_v2(text: str, expected: float | None) -> None:
    assert cpus.quota_v2(text) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [
        ("-1\n", "100000\n", None),
        ("400000\n", "100000\n", 4.0),
        ("", "", None),
        ("100000", "0", None),
    ],
)
def test_quota_v1(quota: str, period: str, expected: float | None) -> None:
    assert cpus.quota_v1(quota, period) == expected


def test_groups_of_both_versions() -> None:
    text = "4:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n0::/system.slice/a:b.service\n"
    found = cpus.groups(text)
    assert found["cpu"] == found["cpuacct"] == "/docker/abc"
    assert found[""] == "/system.slice/a:b.service"


@pytest.mark.parametrize(
    ("affinity", "quotas", "expected"),
    [
        (8, [], 8),
        (8, [None, 2.0], 2),
        (8, [2.5], 3),
        (8, [0.1], 1),
        (2, [64.0], 2),
    ],
)
def test_the_smallest_limit_counts_and_is_rounded_up(
    affinity: int, quotas: list[float | None], expected: int
) -> None:
    assert cpus.count(affinity, quotas) == expected


def test_a_parent_group_limits_its_children(tmp_path: Path) -> None:
    child = tmp_path / "site.slice" / "web.service"
    child.mkdir(parents=True)
    (child / "cpu.max").write_text("max 100000\n")
    (child.parent / "cpu.max").write_text("100000 100000\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/site.slice/web.service\n")
    assert cpus.available(tmp_path, membership) == 1


def test_a_path_outside_the_namespace_does_not_leave_the_root(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/../../elsewhere\n")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert cpus.available(tmp_path, membership) == 1


def test_no_cgroup_at_all_leaves_the_affinity(tmp_path: Path) -> None:
    assert cpus.available(tmp_path / "none", tmp_path / "none") >= 1
