"""Limits of containers are read in fake trees of control groups, as the kernel shows them."""

from __future__ import annotations

import resource

import pytest

from anarch_core import machine
from anarch_core.limits import allowed_bytes, allowed_cores

MB = 10**6
V1 = (
    "30 20 0:27 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "31 20 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup c rw,cpu,cpuacct\n"
)
V2 = "25 20 0:22 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"


@pytest.fixture
def system(tmp_path):
    """Writes files of a system, by path."""

    def write(files):
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(text) + "\n")
        return tmp_path

    return write


def v2(root="/", own="/job/step"):
    return {"proc/self/mountinfo": V2.format(root=root), "proc/self/cgroup": f"0::{own}"}


def v1(root="/", own="/job/step"):
    return {"proc/self/mountinfo": V1.format(root=root), "proc/self/cgroup": f"4:memory:{own}\n3:cpu,cpuacct:/\n0::/"}


def test_nothing_limits_where_there_are_no_groups(system):
    assert allowed_bytes(system({})) is None
    assert allowed_cores(system({})) is None
    assert allowed_bytes(system(v2())) is None


def test_a_group_leaves_its_limit_less_what_is_used_and_cannot_be_reclaimed(system):
    group = "sys/fs/cgroup/job/step/memory"
    files = {
        f"{group}.max": 1000 * MB,
        f"{group}.high": "max",
        f"{group}.current": 700 * MB,
        f"{group}.stat": f"anon 1\ninactive_file {50 * MB}",
    }
    assert allowed_bytes(system(v2() | files)) == 350 * MB
    assert allowed_bytes(system({f"{group}.high": 800 * MB})) == 150 * MB  # beyond it the kernel makes the process crawl
    assert allowed_bytes(system({f"{group}.current": 2000 * MB})) == 0


def test_groups_around_the_own_one_count(system):
    inner, outer = "sys/fs/cgroup/job/step/memory", "sys/fs/cgroup/job/memory"
    files = {f"{inner}.max": "max", f"{inner}.current": 10 * MB, f"{outer}.max": 500 * MB, f"{outer}.current": 400 * MB}
    assert allowed_bytes(system(v2() | files)) == 100 * MB


def test_groups_of_version_1(system):
    group = "sys/fs/cgroup/memory/job/memory"
    inner = "sys/fs/cgroup/memory/job/step/memory"
    files = {
        f"{inner}.limit_in_bytes": 9223372036854771712,  # as the kernel writes that there is none
        f"{inner}.usage_in_bytes": 5 * MB,
        f"{group}.limit_in_bytes": 1000 * MB,
        f"{group}.usage_in_bytes": 600 * MB,
        f"{group}.stat": f"inactive_file 1\ntotal_inactive_file {100 * MB}",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": 150000,
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": 100000,
    }
    root = system(v1() | files)
    assert allowed_bytes(root) == 500 * MB
    assert allowed_cores(root) == 2


@pytest.mark.parametrize("where", [{"root": "/docker/1f", "own": "/docker/1f"}, {"root": "/docker/1f", "own": "/"}, {"own": "/"}])
@pytest.mark.parametrize("version", [v1, v2])
def test_a_container_sees_its_group_as_the_root(system, version, where):
    folder = "sys/fs/cgroup/memory" if version is v1 else "sys/fs/cgroup"
    limit, used = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version is v1 else ("memory.max", "memory.current")
    assert allowed_bytes(system(version(**where) | {f"{folder}/{limit}": 300 * MB, f"{folder}/{used}": 100 * MB})) == 200 * MB


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", None), ("250000 100000", 3), ("1000 100000", 1)])
def test_processor_time_of_version_2(system, quota, cores):
    assert allowed_cores(system(v2() | {"sys/fs/cgroup/job/cpu.max": quota})) == cores


@pytest.mark.parametrize("text", ["", "nonsense", "max", "1e9", "\0", "0::/../..", "a:b"])
def test_files_of_another_kind_limit_nothing(system, text):
    group = "sys/fs/cgroup/job/step/memory"
    assert allowed_bytes(system(v2() | {f"{group}.max": text, f"{group}.current": text})) is None
    assert allowed_bytes(system({"proc/self/cgroup": text})) is None
    assert allowed_bytes(system({"proc/self/mountinfo": text})) is None


def test_limits_of_the_process_itself_count(system, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (800 * MB if limit == resource.RLIMIT_DATA else resource.RLIM_INFINITY,) * 2)
    assert (
        allowed_bytes(system({"proc/self/status": f"VmSize: 9000000 kB\nVmData:\t {300 * MB // 1024} kB"}))
        == 800 * MB - 300 * MB // 1024 * 1024
    )


def test_the_machine_has_no_more_than_a_container_allows(monkeypatch):
    monkeypatch.setattr(machine, "allowed_bytes", lambda: 7)
    monkeypatch.setattr(machine, "allowed_cores", lambda: 1)
    assert machine.available_bytes("cpu") == 7
    assert machine.cores() == 1
    assert machine.resident_bytes() > 10 * MB
