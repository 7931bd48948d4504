"""A Slurm that is a few shell scripts and a list of jobs; what jobs do is done by the test, in its own process."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from anarch_core.experiment.context import RunContext
from anarch_core.experiment.events import Job
from anarch_core.experiment.segments import snapshots
from anarch_core.experiment.store import RunStore
from anarch_core.experiment.tree import tree
from anarch_core.planning.need import Need
from anarch_core.plugin.registry import get_registry
from anarch_core.running.preparation import prepare
from anarch_core.schedule import Clock
from anarch_core.segment.stopping import Stop
from anarch_core.workers import Crew
from anarch_plugins.workers.slurm import attempt, queue, workers
from anarch_plugins.workers.slurm.options import SlurmOptions

SCRIPTS = {
    "sbatch": """
if [ -e "$FAKE/refusal" ]; then cat "$FAKE/refusal" >&2; exit 1; fi
case "$*" in *--test-only*) echo "$@" >> "$FAKE/tried"; exit 0;; esac
name=$(sed -n "s/^#SBATCH --job-name=//p" "$1"); array=$(sed -n "s/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p" "$1")
limit=$(cat "$FAKE/limit" 2>/dev/null || echo 1000)
if [ "${array:-0}" -ge "$limit" ]; then echo "sbatch: error: Batch job submission failed: Job violates policy" >&2; exit 1; fi
last=$(cat "$FAKE/last" 2>/dev/null || echo 16); id=$((last + 1)); echo $id > "$FAKE/last"; cp "$1" "$FAKE/$id.sh"
if [ -z "$array" ]; then echo "$id|N/A|PENDING||None|$name" >> "$FAKE/queue"; else
for index in $(seq 0 "$array"); do echo "${id}_$index|$index|PENDING||None|$name" >> "$FAKE/queue"; done; fi
echo "Submitted batch job $id"
""",
    "squeue": """
if [ -e "$FAKE/down" ]; then echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; fi
cat "$FAKE/queue"
""",
    "scancel": 'echo "$@" >> "$FAKE/cancelled"\n',
    "sinfo": 'cat "$FAKE/gres"\n',
    "srun": "exit 1\n",
    "sacct": 'cat "$FAKE/accounts"\n',
}


@attrs.frozen
class Slurm:
    """The list of jobs.

    Attributes:
        folder: of its files.
    """

    folder: Path

    def jobs(self) -> dict[str, str]:
        """The state of every job."""
        return {line.split("|")[0]: line.split("|")[2] for line in (self.folder / "queue").read_text().splitlines()}

    def put(self, job: str, state: str, node: str = "n1", reason: str = "None") -> None:
        """Let a job come to a state."""
        lines = []
        for line in (self.folder / "queue").read_text().splitlines():
            identity, index, _, _, _, name = line.split("|")
            lines.append("|".join((job, index, state, node, reason, name)) if identity == job else line)
        (self.folder / "queue.new").write_text("".join(f"{line}\n" for line in lines))
        (self.folder / "queue.new").replace(self.folder / "queue")

    def forget(self) -> None:
        """Let all jobs have ended long ago."""
        (self.folder / "queue").write_text("")

    def say(self, file: str, text: str) -> None:
        """Let a command answer."""
        (self.folder / file).write_text(text)

    def cancelled(self) -> list[str]:
        """What ``scancel`` was called with."""
        path = self.folder / "cancelled"
        return path.read_text().splitlines() if path.exists() else []

    def script(self, job: int) -> str:
        """The batch script of a submission."""
        return (self.folder / f"{job}.sh").read_text()

    def train(self, run: Path, job: str, node: str = "n1") -> None:
        """Do what a job does, here and now."""
        from submitit.core.utils import DelayedSubmission

        self.put(job, "RUNNING", node)
        with pytest.MonkeyPatch.context() as patch:
            array, _, index = job.partition("_")
            patch.setenv("SLURM_JOB_ID", array)
            patch.setenv("SLURMD_NODENAME", node)
            if index:
                patch.setenv("SLURM_ARRAY_JOB_ID", array)
                patch.setenv("SLURM_ARRAY_TASK_ID", index)
            DelayedSubmission.load(next(run.glob(f"jobs/*/{job}_submitted.pkl"))).function()
        self.put(job, "COMPLETED", node)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """Slurm's commands, first on the path; everything that is waited for comes at once."""
    pytest.importorskip("submitit")
    folder = tmp_path / "slurm"
    (folder / "bin").mkdir(parents=True)
    for name, text in SCRIPTS.items():
        path = folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    for name in ("queue", "gres", "accounts"):
        (folder / name).write_text("")
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(workers, "ASKED_EVERY", 0.0)
    monkeypatch.setattr(workers, "HEARD_EVERY", 0.01)
    monkeypatch.setattr(attempt, "LATE", 0.0)
    monkeypatch.setattr(attempt, "FORGOTTEN", 0.2)
    return Slurm(folder)


@attrs.frozen
class Work:
    """A run that workers work for, without its walk.

    Attributes:
        crew: given to workers.
        jobs: of its segments, the trunk's first.
        events: what was told.
        lines: what was said to the user.
    """

    crew: Crew
    jobs: list[Job]
    events: list[tuple[str, object]]
    lines: list[str]

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.crew.context.store.path

    def on(self, device: str) -> Work:
        """The same with another ``--device``."""
        context = self.crew.context
        config = attrs.evolve(context.config, device=device)
        return attrs.evolve(self, crew=attrs.evolve(self.crew, context=attrs.evolve(context, config=config)))


@pytest.fixture
def work(slurm, small, tmp_path):
    """Makes a run by its settings: a trunk of one epoch and, with ``switch``, branches."""

    def make(**settings) -> Work:
        config = small(epochs=1, branch_epochs=1, switch="at:0", control="none", **settings)
        context = RunContext.open(config, RunStore(tmp_path / "run"), get_registry())
        prepare(context, None)
        clock = Clock(config.epochs, context.iterations_per_epoch)
        segments = tree(config, clock, {seed: set(context.moments(clock)) for seed in config.seeds}, context.registry)
        kept = snapshots(segments)
        jobs = [Job(segment=segment, keep=frozenset(kept.get(segment.id, ()))) for segment in segments]
        events, lines = [], []
        crew = Crew(
            context=context,
            on_event=lambda event: events.append((event.kind, event.value)),
            say=lines.append,
            stop=Stop(),
            need=Need(peak_bytes=2**20, work="training", model_bytes=2**10),
            segments=len(segments),
        )
        return Work(crew, jobs, events, lines)

    return make


class Counting(workers.SlurmWorkers):
    """Counts how often Slurm has answered."""

    looks = 0


@pytest.fixture
def hired(slurm, monkeypatch) -> Iterator:
    """Makes workers that are open for a run."""
    made, real = [], queue.look

    def look(names):
        found = real(names)
        made[-1].looks += 1
        return found

    monkeypatch.setattr(queue, "look", look)

    def hire(work: Work, **options) -> Counting:
        made.append(Counting(SlurmOptions(**options)))
        made[-1].open(work.crew)
        return made[-1]

    yield hire
    for each in made:
        each.close(at_once=True)
