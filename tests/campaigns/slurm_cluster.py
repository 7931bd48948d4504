"""A Slurm of two nodes on the loopback of this machine, from the packages of the distribution, which are unpacked and not installed.

python tests/campaigns/slurm_cluster.py COMMAND ...     # with its sbatch, squeue and scancel on the PATH
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import psutil

PACKAGES = (
    "slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins",
    "libhwloc15", "libmunge2", "libnuma1", "libjson-c5", "libyaml-0-2", "liblua5.1-0", "libdbus-1-3", "liblz4-1",
)  # fmt: skip
"""Of Debian 12, which has Slurm 22.05: the daemons, the commands, and the libraries that they are linked to."""

CONF = """
ClusterName=campaign
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
PluginDir={libraries}/slurm-wlm
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
ReturnToService=2
SlurmdTimeout=20
KillWait=5
MinJobAge=600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=2000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=2000 State=UNKNOWN
PartitionName=low Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=10
"""
"""Without munge, control groups or a database, which need an installation; listening on the loopback alone."""

NODES = ("n1", "n2")


class UnavailableError(Exception):
    """There is no Slurm to be had here; the message says why."""


@functools.cache
def unpacked() -> Path:
    """The folder that the packages are unpacked in, fetched the first time.

    Raises:
        UnavailableError: they cannot be had.
    """
    place = Path(tempfile.gettempdir()) / f"anarch-slurm-22.05-{os.getuid()}"
    if not place.exists():
        for command in ("apt-get", "dpkg"):
            if shutil.which(command) is None:
                raise UnavailableError(f"there is no {command} to fetch Slurm's packages with")
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            fetched = subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, text=True, check=False)
            if fetched.returncode:
                raise UnavailableError(f"apt-get has no Slurm: {fetched.stderr.strip().splitlines()[-1]}")
            root = Path(folder) / "root"
            for package in Path(folder).glob("*.deb"):
                subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
            root.rename(place)
    return place


@attrs.define
class Cluster:
    """A Slurm that runs.

    Attributes:
        environment: in which its commands are found.
        folder: of its files.
    """

    environment: dict[str, str]
    folder: Path
    _daemons: dict[str, subprocess.Popen[bytes]] = attrs.field(factory=dict)
    _waiting: dict[str, float] = attrs.field(factory=dict)

    def command(self, *words: object) -> str:
        """What a command of Slurm prints."""
        ended = subprocess.run([str(word) for word in words], env=self.environment, capture_output=True, text=True, check=False)
        assert not ended.returncode, f"{words}: {ended.stderr}"
        return ended.stdout.strip()

    def states(self) -> dict[str, str]:
        """The state of every job."""
        return self._listed("%T")

    def names(self) -> dict[str, str]:
        """The name of every job."""
        return self._listed("%j")

    def hurry(self) -> None:
        """Let jobs that were requeued begin again soon; Slurm has them wait for two minutes, of which it needs a few seconds itself."""
        waiting = {job for job, reason in self._listed("%r").items() if reason == "BeginTime"}
        self._waiting = {job: self._waiting.get(job, time.monotonic()) for job in waiting}
        for job, since in self._waiting.items():
            if time.monotonic() > since + 10:
                with contextlib.suppress(AssertionError):
                    self.command("scontrol", "update", f"JobId={job}", "StartTime=now")

    def _listed(self, what: str) -> dict[str, str]:
        lines = self.command("squeue", "--noheader", "--array", "--states=all", f"--format=%i {what}").splitlines()
        return dict(line.split(maxsplit=1) for line in lines)  # type: ignore[misc]

    def tasks(self, node: str | None = None) -> Sequence[psutil.Process]:
        """The processes of the steps of jobs, which train; not those that started them."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                trains = "submitit.core._submit" in process.cmdline() and self._mine(process)
                environment = process.environ() if trains else {}
                if "SLURM_STEP_ID" in environment and node in (None, environment.get("SLURMD_NODENAME")):
                    found.append(process)
        return found

    def kill(self, node: str) -> None:
        """The node is gone: its daemon, and all that runs there, at once."""
        daemon = self._daemons.pop(node)
        daemon.kill()
        for process in self._family():
            with contextlib.suppress(psutil.Error):
                # The daemons of steps have lost their environment; their log is the node's.
                if process.environ().get("SLURMD_NODENAME") == node or self._logs_to(process, node):
                    process.kill()
        daemon.wait()

    def start(self, node: str) -> None:
        """The daemon of a node."""
        binaries = unpacked() / "usr" / "sbin"
        stepd = binaries / "slurmstepd-wlm"
        self._daemons[node] = self._begin(binaries / "slurmd-wlm", "-D", "-N", node, "-d", stepd)

    def _begin(self, *words: object) -> subprocess.Popen[bytes]:
        with (self.folder / "daemons.log").open("ab") as log:
            command = [str(word) for word in words]
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def _family(self) -> Iterator[psutil.Process]:
        """Whatever runs in it or for it: what jobs started, and daemons, whose working directory is its folder."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and (self._mine(process) or Path(process.cwd()) == self.folder):
                    yield process

    def _mine(self, process: psutil.Process) -> bool:
        environment = process.environ()
        return environment.get("SLURM_CONF") == self.environment["SLURM_CONF"] and "SLURM_JOB_ID" in environment

    def _logs_to(self, process: psutil.Process, node: str) -> bool:
        return any(Path(file.path) == self.folder / f"slurmd.{node}.log" for file in process.open_files())

    def _up(self, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ended = subprocess.run(
                ["sinfo", "--noheader", "--Node", "--partition=low", "--format=%T"],
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if ended.stdout.split() == ["idle"] * len(NODES):
                return
            time.sleep(0.2)
        logs = "\n".join(path.read_text(errors="replace")[-600:] for path in sorted(self.folder.glob("*.log")))
        raise UnavailableError(f"Slurm does not start here: {ended.stdout} {ended.stderr}\n{logs}")

    def close(self) -> None:
        """End every process that it or a job started."""
        for _ in range(3):  # what one of them starts meanwhile goes the next time
            for process in self._family():
                with contextlib.suppress(psutil.Error):
                    process.kill()
        for daemon in self._daemons.values():
            daemon.kill()
            daemon.wait()


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Inside, a Slurm of two nodes with a processor each, and two partitions, of which ``high`` preempts ``low``.

    Args:
        folder: for its files.

    Raises:
        UnavailableError: there is none to be had, or it does not start.
    """
    import pwd

    root = unpacked()
    libraries = next(root.glob("usr/lib/*/slurm-wlm")).parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state").mkdir(exist_ok=True)
    names = {"host": socket.gethostname(), "user": pwd.getpwuid(os.getuid()).pw_name, "ports": _ports(3)}
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(folder=folder, libraries=libraries, **names))
    environment = {
        **os.environ,
        "SLURM_CONF": str(conf),
        "PATH": f"{root / 'usr' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": os.pathsep.join((str(libraries), str(libraries / "slurm-wlm"))),
    }
    made = Cluster(environment, folder)
    try:
        made._daemons["slurmctld"] = made._begin(root / "usr" / "sbin" / "slurmctld-wlm", "-D", "-c")
        for node in NODES:
            made.start(node)
        made._up()
        yield made
    finally:
        made.close()


def _ports(count: int) -> Sequence[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as place, cluster(Path(place)) as running:
        sys.exit(subprocess.run(sys.argv[1:], env=running.environment, check=False).returncode)
