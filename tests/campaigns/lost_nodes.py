"""Takes away what trains in a Ray cluster: a worker, a node with all that is on it, the run's own process; and lets nodes come late."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from campaign import Campaign, Try
from ray_cluster import Cluster, cluster, cmdline, end
from whole_run import files, signals

from anarch_core.experiment.results import Results

OPTIONS = (
    "--model", "cnn1d", "--cnn1d-channels", "3", "--batch-size", "10", "--relax", "efcn", "--epochs", "600", "--branch-epochs", "300",
    "--switch", "at:0,150,300", "--optimizer-state", "carry", "--sgd-momentum", "0.9", "--probe", "weights", "--threads", "1",
    "--device", "cpu",
)  # fmt: skip
"""Some seconds for the trunk, and some for its seven others."""

SECOND = "127.0.0.3"
"""A node beside the head."""

Disturbance = Callable[[Cluster, Path, "subprocess.Popen[str]", Random], None]


def command(*more: str) -> list[str]:
    return [sys.executable, "-P", "-m", "anarch_core", "run", "--data", f"tensors:{signals()}", *OPTIONS, "--out", "run", *more]


@functools.cache
def left_alone() -> dict[str, bytes]:
    """The files of the run that one process trains."""
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        subprocess.run(command("--jobs", "1"), cwd=folder, check=True, capture_output=True)
        return files(Path(folder) / "run")


def trained(folder: Path, disturbed: Disturbance, *, random: Random, cores: int = 1, second: bool = True) -> None:
    """A run by the cluster, and what is done to it meanwhile; it ends as if nothing had been done, and nobody is left."""
    with cluster(cpus=cores) as nodes:
        if second:
            nodes.start(SECOND, cpus=1)
        by_ray = command("--workers", "ray", "--ray-address", nodes.address)
        process = started(by_ray, nodes, folder)
        disturbed(nodes, folder, process, random)
        if process.wait(timeout=150) in (-signal.SIGKILL, 130):
            _gone(nodes)
            process = started([*by_ray[:4], "resume", "run"], nodes, folder)
            process.wait(timeout=150)
        said = (folder / "said").read_text()
        assert process.returncode == 0, said
        _gone(nodes)
    found, wanted = files(folder / "run"), left_alone()
    assert found.keys() == wanted.keys(), f"files differ: {sorted(found.keys() ^ wanted.keys())}"
    assert found == wanted, f"other bytes in {[name for name in found if found[name] != wanted[name]]}"
    results = Results.read(folder / "run")
    assert results.status == "finished"
    assert not results.failed


def started(arguments: list[str], nodes: Cluster, folder: Path) -> subprocess.Popen[str]:
    with (folder / "said").open("a") as said:
        return subprocess.Popen(arguments, cwd=folder, env=dict(nodes.environment), stdout=said, stderr=said, text=True)


def until(true: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for something that happens in a run, or for its end."""
    last = time.monotonic() + 150
    while not true() and process.poll() is None:
        assert time.monotonic() < last, "it does not happen"
        time.sleep(0.05)


def _gone(nodes: Cluster) -> None:
    """Workers of a run are gone soon after it, however it went."""
    last = time.monotonic() + 20
    while any("ray::Worker" in " ".join(cmdline(each)) for each in nodes.processes()):
        assert time.monotonic() < last, "workers are left"
        time.sleep(0.2)


def worker_killed(nodes: Cluster, folder: Path, process: subprocess.Popen[str], random: Random) -> None:
    """Whoever trains is killed, one or several times."""
    for _ in range(random.choice((1, 1, 2, 3))):
        until(nodes.trainers, process)
        time.sleep(3 * random.random())
        end(nodes.trainers()[:1])
        time.sleep(0.5)


def node_killed(nodes: Cluster, folder: Path, process: subprocess.Popen[str], random: Random) -> None:
    """The second node goes, and does not come back."""
    until(lambda: list(folder.glob("run/segments/*/result.json")), process)
    time.sleep(3 * random.random())
    nodes.kill(SECOND)


def late_node(nodes: Cluster, folder: Path, process: subprocess.Popen[str], random: Random) -> None:
    """Nobody has room at first."""
    until(lambda: "nobody trains yet" in (folder / "said").read_text(), process)
    assert not list(folder.glob("run/segments/*/*"))
    nodes.start(SECOND, cpus=1 + random.randrange(2))


OTHER_TORCH = """
from anarch_core.workers import likeness
found = likeness.version
likeness.version = lambda package: "2.13.0" if package == "torch" else found(package)
"""


def unlike_node(nodes: Cluster, folder: Path, process: subprocess.Popen[str], random: Random) -> None:
    """The only node with room has another PyTorch; later there is a better one."""
    nodes.start(SECOND, cpus=1, patch=OTHER_TORCH)
    until(lambda: "1 of which cannot be used" in (folder / "said").read_text(), process)
    assert f"({SECOND}) has torch 2.13.0, the run was begun with " in (folder / "said").read_text()
    assert not list(folder.glob("run/segments/*/*"))
    nodes.start("127.0.0.4", cpus=1)


def driver_killed(nodes: Cluster, folder: Path, process: subprocess.Popen[str], random: Random) -> None:
    """The run's process is killed."""
    until(nodes.trainers, process)
    time.sleep(4 * random.random())
    process.kill()


def driver_stopped(nodes: Cluster, folder: Path, process: subprocess.Popen[str], random: Random) -> None:
    """The run is asked to stop."""
    until(nodes.trainers, process)
    time.sleep(4 * random.random())
    process.send_signal(random.choice((signal.SIGINT, signal.SIGTERM)))


def tries(random: Random) -> Iterator[Try]:
    """Each of the ways, again and again, at other moments."""
    while True:
        for disturbed in (worker_killed, node_killed, late_node, unlike_node, driver_killed, driver_stopped):
            where = {"cores": 0, "second": False} if disturbed in (late_node, unlike_node) else {}
            seed = random.randrange(10**6)
            yield Try(
                f"{disturbed.__name__}, seed {seed}",
                lambda folder, disturbed=disturbed, where=where, seed=seed: trained(folder, disturbed, random=Random(seed), **where),
            )


CAMPAIGN = Campaign(
    promise="what trains in a cluster may go and come; the run ends in the same bytes, and nobody is left",
    tries=tries,
    count=12,
    in_suite=0,
    limit=400,
)
