"""A Ray cluster of nodes on the loopback of this machine, each with a working directory and a home of its own, and a token."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import psutil

INSTALLED = importlib.util.find_spec("ray") is not None

OFTEN = """
import anarch_core.segment.saving
anarch_core.segment.saving.SAVE_EVERY = 0.3
"""
"""So that there is something to go on from in runs of seconds."""


@attrs.frozen
class Cluster:
    """Nodes by their addresses.

    Attributes:
        folder: for all of it, a short path.
        port: of the head, at 127.0.0.2.
        environment: of whoever has to do with it: its token.
    """

    folder: Path
    port: int
    environment: Mapping[str, str]

    @property
    def address(self) -> str:
        """Of the head."""
        return f"127.0.0.2:{self.port}"

    def start(self, ip: str, *, cpus: int, patch: str = "") -> None:
        """Start a node, all of whose programs run ``patch`` first, and wait until it is there."""
        place = self.folder / ip
        (place / "patch").mkdir(parents=True, exist_ok=True)
        (place / "patch" / "sitecustomize.py").write_text(OFTEN + patch)
        environment = {
            **self.environment,
            "HOME": str(place),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(place / "patch"), os.environ.get("PYTHONPATH")])),
        }
        head = ["--head", "--port", str(self.port), "--include-dashboard=false", "--temp-dir", str(self.folder / "r")]
        command = [
            sys.executable,
            "-P",
            "-m",
            "ray.scripts.scripts",
            "start",
            *(head if ip == "127.0.0.2" else ["--address", self.address]),
        ]
        command += ["--node-ip-address", ip, "--num-cpus", str(cpus), "--disable-usage-stats", "--object-store-memory", str(10**8)]
        subprocess.run(command, cwd=place, env=environment, check=True, capture_output=True, timeout=60)

    def processes(self, ip: str = "") -> list[psutil.Process]:
        """The processes of a node, or of all."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or [])
            if str(self.folder) in words and (not ip or f"node-ip-address={ip}" in words or f"node_ip_address={ip}" in words):
                found.append(process)
        return list({each.pid: each for process in found for each in (*children(process), process)}.values())

    def kill(self, ip: str) -> None:
        """Take a node away, whole and at once."""
        end(self.processes(ip))

    def trainers(self) -> list[psutil.Process]:
        """Workers that train now."""
        return [process for process in self.processes() if "ray::Worker.run" in " ".join(cmdline(process))]


def children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def cmdline(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def cluster(*, cpus: int = 1) -> Iterator[Cluster]:
    """A head at 127.0.0.2, with so many cores, to which nodes can be added."""
    with tempfile.TemporaryDirectory(prefix="rc", dir="/tmp", ignore_cleanup_errors=True) as folder, socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
        free.close()
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
        made = Cluster(Path(folder), port, {**os.environ, **token})
        try:
            made.start("127.0.0.2", cpus=cpus)
            yield made
        finally:
            for _ in range(3):
                end(made.processes())
                time.sleep(0.2)
