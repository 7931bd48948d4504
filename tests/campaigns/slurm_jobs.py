"""Runs whose segments are jobs of a real Slurm: preempted, killed, on a node that dies, requeued, and left by whoever drives them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import psutil
from campaign import Campaign, Try
from forked import Forked
from slurm_cluster import Cluster, UnavailableError, cluster, unpacked
from stops import TELLING, stopped
from whole_run import command, files, left_alone

from anarch_core.experiment.results import Results

LONGER = ("--epochs", 400, "--branch-epochs", 200)
"""So that a segment is trained for seconds."""

SEGMENTS = 6

SAVING_OFTEN = """
import os
if "SLURM_STEP_ID" in os.environ:
    from anarch_core.segment import saving
    saving.SAVE_EVERY = 0.3
"""
"""What every job does first: a state that is saved every 20 seconds would be saved never."""


class Run:
    """A run under way.

    Args:
        folder: where it is; it has a space in its name, and other modules of the name ``anarch_core``.
        slurm: who trains it.
    """

    def __init__(self, folder: Path, slurm: Cluster) -> None:
        self.folder, self.slurm = folder / "my runs", slurm
        (self.folder / "anarch_core").mkdir(parents=True)
        (self.folder / "anarch_core" / "__init__.py").write_text("raise SystemExit('the working directory decides what is imported')")
        (folder / "path").mkdir()
        (folder / "path" / "sitecustomize.py").write_text(SAVING_OFTEN)
        path = (
            f"import os; os.environ['PYTHONPATH'] = {os.pathsep.join(filter(None, [str(folder / 'path'), os.environ.get('PYTHONPATH')]))!r}"
        )
        self._patch = f"import os; os.environ.update({dict(slurm.environment)!r}); {path}\n{TELLING}"

    def driven(self, *arguments: object) -> Forked:
        """Whoever drives it; tells what it hears."""
        return Forked(*arguments, folder=self.folder, patch=self._patch)

    def begun(self) -> Forked:
        """The run from its beginning."""
        return self.driven(*command(2, *LONGER, "--workers", "slurm", "--slurm-partition", "low"))

    def finished(self, driver: Forked) -> None:
        """Wait for the end, which is that of a run that nothing happened to.

        Raises:
            AssertionError: it is another one, or something is left.
        """
        with heard(driver):
            while driver.alive():
                self.slurm.hurry()
                time.sleep(1)
            ended = driver.ended().done()
        run = self.folder / "run"
        assert "failed" not in ended.err, ended.err
        found, wanted = files(run), left_alone(*LONGER)
        assert found.keys() == wanted.keys(), f"files differ: {sorted(found.keys() ^ wanted.keys())}"
        assert found == wanted, f"other bytes in {[name for name in found if found[name] != wanted[name]]}"
        results = Results.read(run)
        assert (results.status, len(results.segments)) == ("finished", SEGMENTS)
        left = [state for state in self.slurm.states().values() if state in ("PENDING", "RUNNING")]
        assert not left, f"jobs are left: {left}"

    def jobs(self) -> int:
        """How many were submitted."""
        return len([job for job, name in self.slurm.names().items() if name.startswith("anarch-")])

    def tidy(self) -> None:
        """Nothing is left of jobs that all ended well.

        Raises:
            AssertionError: something is.
        """
        assert not (self.folder / "run" / "jobs").exists(), sorted(path.name for path in (self.folder / "run" / "jobs").rglob("*"))


@contextlib.contextmanager
def heard(driver: Forked) -> Iterator[None]:
    """Inside, what the driver tells is read, so that it does not wait for that."""
    import threading

    def read() -> None:
        while driver.hear() is not None:
            pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    yield
    thread.join(5)


def until(driver: Forked, what: str, times: int, wait: float) -> None:
    """Go on until the run has told of something so often, and a bit longer."""
    told = 0
    while told < times and (word := driver.hear()) is not None:
        told += word == what
    time.sleep(wait)


def plain(run: Run) -> None:
    """Nothing happens; there are as many jobs as segments."""
    with run.begun() as driver:
        run.finished(driver)
    assert run.jobs() == SEGMENTS
    run.tidy()


def preempted(run: Run, times: int, wait: float) -> None:
    """Jobs of a higher priority take both nodes."""
    with run.begun() as driver:
        until(driver, "trained", times, wait)
        for _ in range(2):
            run.slurm.command("sbatch", "--partition=high", "--output=/dev/null", "--wrap=sleep 2")
        run.finished(driver)
    assert run.jobs() == SEGMENTS, "a job was lost that Slurm had requeued"
    run.tidy()


def killed(run: Run, times: int, wait: float, number: signal.Signals) -> None:
    """A task dies."""
    with run.begun() as driver:
        until(driver, "trained", times, wait)
        for task in run.slurm.tasks()[:1]:
            with contextlib.suppress(psutil.Error):
                task.send_signal(number)
        run.finished(driver)


def cancelled(run: Run, times: int, wait: float) -> None:
    """The user cancels a job."""
    with run.begun() as driver:
        until(driver, "trained", times, wait)
        running = [job for job, state in run.slurm.states().items() if state == "RUNNING"]
        if running:
            run.slurm.command("scancel", running[0])
        run.finished(driver)


def out_of_time(run: Run, times: int, wait: float) -> None:
    """Slurm says to every job that its time is nearly over."""
    with run.begun() as driver:
        until(driver, "trained", times, wait)
        for job, state in run.slurm.states().items():
            if state == "RUNNING":
                run.slurm.command("scancel", "--signal=USR2", job)
        run.finished(driver)
    logs = (run.folder / "run").glob("jobs/*/*_log.err")
    early = sum("before anything was saved" in log.read_text() for log in logs)  # those that had not begun to train
    assert run.jobs() == SEGMENTS + early, "a job was lost that was to be requeued"


def node_dies(run: Run, times: int, wait: float, back: bool) -> None:
    """A node is gone with all that runs there, for good or for a while."""
    with run.begun() as driver:
        until(driver, "trained", times, wait)
        run.slurm.kill("n1")
        if back:
            time.sleep(1)
            run.slurm.start("n1")
        run.finished(driver)


def left(run: Run, times: int, wait: float, number: signal.Signals) -> None:
    """Whoever drives the run is gone: jobs go on, and who resumes the run finds them."""
    with run.begun() as driver:
        until(driver, "trained", times, wait)
        driver.send(number, "parent")
    before = run.jobs()
    with run.driven("resume", "run") as driver:
        run.finished(driver)
    assert run.jobs() == SEGMENTS, f"{run.jobs()} jobs, of which {before} were submitted before the driver was killed"
    run.tidy()


def interrupted(run: Run, times: int, wait: float, number: signal.Signals) -> None:
    """Ctrl-C: jobs that run save their state and end, those that wait are cancelled, and the run goes on later."""
    with run.begun() as driver:
        until(driver, "trained", times, wait)
        driver.send(number, "group")
        with heard(driver):
            stopped(driver.ended(60), run.folder / "run")
    states = set(run.slurm.states().values())
    assert not states & {"PENDING", "RUNNING"}, f"jobs are left: {states}"
    with run.driven("resume", "run") as driver:
        run.finished(driver)


def refused(run: Run) -> None:
    """A partition that is not there: Slurm's words in a sentence, and nothing is left."""
    with run.driven(*command(2, "--workers", "slurm", "--slurm-partition", "nope")) as driver, heard(driver):
        driver.ended().refused("Slurm takes no such job: Invalid partition name specified")
    assert not (run.folder / "run").exists()


def on_slurm(what: Callable[..., None], **how: object) -> Try:
    """Done on a Slurm of its own."""

    def held(folder: Path, **how: object) -> None:
        with cluster(folder / "slurm") as slurm:
            what(Run(folder, slurm), **how)

    words = ", ".join(f"{name} {getattr(value, 'name', value)}" for name, value in how.items())
    return Try(f"{what.__name__.replace('_', ' ')}: {words}" if words else what.__name__, lambda folder: held(folder, **how))


def tries(random: Random) -> Iterator[Try]:
    """Each kind once, then any at any moment."""
    yield on_slurm(plain)
    yield on_slurm(refused)
    yield on_slurm(preempted, times=20, wait=0.0)
    yield on_slurm(killed, times=40, wait=0.0, number=signal.SIGKILL)
    yield on_slurm(out_of_time, times=20, wait=0.0)
    yield on_slurm(left, times=20, wait=0.0, number=signal.SIGKILL)
    yield on_slurm(interrupted, times=20, wait=0.0, number=signal.SIGINT)
    yield on_slurm(cancelled, times=20, wait=0.0)
    yield on_slurm(node_dies, times=40, wait=0.0, back=False)
    yield on_slurm(node_dies, times=40, wait=0.0, back=True)
    while True:
        when = {"times": random.randrange(1, 900), "wait": random.choice((0.0, 2 * random.random()))}
        what, more = random.choice(
            (
                (preempted, {}),
                (killed, {"number": random.choice((signal.SIGKILL, signal.SIGSEGV))}),
                (out_of_time, {}),
                (left, {"number": signal.SIGKILL}),
                (interrupted, {"number": random.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))}),
                (cancelled, {}),
                (node_dies, {"back": random.random() < 0.5}),
            )
        )
        yield on_slurm(what, **when, **more)


def missing() -> str | None:
    """Why there is no Slurm here."""
    try:
        import submitit  # noqa: F401

        unpacked()
    except (ImportError, UnavailableError) as error:
        return str(error)
    return None


CAMPAIGN = Campaign(
    promise="jobs of Slurm come to the bytes of a run by itself, whatever happens to them, to nodes and to whoever drives the run",
    tries=tries,
    count=20,
    in_suite=0,
    limit=300,
    missing=missing,
)
