"""A Slurm that is one machine and runs every job at once: this script is its ``sbatch``, ``srun``, ``squeue`` and ``scancel``, by name.

Jobs are files of a folder, ``$ONE_MACHINE``: ``<job>.json`` with what they are, ``<job>.state``, and ``<job>.step`` with the process of
their step.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(os.environ.get("ONE_MACHINE", "."))
KILL_WAIT = 5.0
"""Seconds between SIGTERM and SIGKILL for a job that is cancelled."""


def put(file: str, text: str) -> None:
    path = HERE / f"{file}.new"
    path.write_text(text)
    path.replace(HERE / file)


def state(job: str) -> str:
    return (HERE / f"{job}.state").read_text()


def sbatch(arguments: list[str]) -> None:
    if "--test-only" in arguments:
        return
    script = Path(arguments[-1]).read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script, re.MULTILINE))
    number = str(16 + len(list(HERE.glob("*.sh"))))
    put(f"{number}.sh", script)
    last = int(asked["array"].partition("%")[0].rpartition("-")[2]) if "array" in asked else None
    for index in [None] if last is None else range(last + 1):
        job = number if index is None else f"{number}_{index}"
        put(f"{job}.json", json.dumps({"name": asked["job-name"], "number": number, "index": index}))
        put(f"{job}.state", "PENDING")
        subprocess.Popen(
            [sys.executable, __file__, "run", job], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    print(f"Submitted batch job {number}")


def run(arguments: list[str]) -> None:
    [job] = arguments
    if state(job) != "PENDING":
        return
    told = json.loads((HERE / f"{job}.json").read_text())
    put(f"{job}.state", "RUNNING")
    own = {"JOB": job, "SLURM_JOB_ID": told["number"], "SLURM_JOBID": told["number"], "SLURMD_NODENAME": "n1", "SLURM_JOB_NODELIST": "n1"}
    own |= {"SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    if told["index"] is not None:
        own |= {"SLURM_ARRAY_JOB_ID": told["number"], "SLURM_ARRAY_TASK_ID": str(told["index"])}
    code = subprocess.run(["bash", HERE / f"{told['number']}.sh"], env={**os.environ, **own}, check=False).returncode
    if state(job) == "RUNNING":
        put(f"{job}.state", "FAILED" if code else "COMPLETED")


def srun(arguments: list[str]) -> None:
    job = os.environ["JOB"]
    files = {}
    while arguments and arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option in ("--output", "--error"):
            path = arguments.pop(0).replace("%A", job.partition("_")[0]).replace("%a", job.rpartition("_")[2])
            files[option] = path.replace("%j", job).replace("%t", "0")
    for option, number in (("--output", 1), ("--error", 2)):
        if option in files:
            os.dup2(os.open(files[option], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    put(f"{job}.step", str(os.getpid()))
    os.execvp(arguments[0], arguments)


def squeue(arguments: list[str]) -> None:
    [names] = [argument.removeprefix("--name=").split(",") for argument in arguments if argument.startswith("--name=")]
    for path in sorted(HERE.glob("*.json")):
        told, job = json.loads(path.read_text()), path.stem
        if told["name"] in names:
            index = "N/A" if told["index"] is None else told["index"]
            print(f"{job}|{index}|{state(job)}|{'' if state(job) == 'PENDING' else 'n1'}|None|{told['name']}")


def scancel(arguments: list[str]) -> None:
    jobs = [argument for argument in arguments if not argument.startswith("-")]
    [wanted] = [argument.partition("=")[2] for argument in arguments if argument.startswith("--state=")] or [""]
    only = any(argument.startswith("--signal=") for argument in arguments)
    steps = []
    for job in jobs:
        found = state(job)
        if found not in ("PENDING", "RUNNING") or wanted not in ("", found):
            continue
        if not only:
            put(f"{job}.state", "CANCELLED")
        with contextlib.suppress(OSError, ValueError):
            steps.append(int((HERE / f"{job}.step").read_text()))
            os.kill(steps[-1], signal.SIGTERM)
    until = time.monotonic() + KILL_WAIT
    while steps and not only:
        with contextlib.suppress(ProcessLookupError):
            for step in steps:
                os.kill(step, 0 if time.monotonic() < until else signal.SIGKILL)
            time.sleep(0.05)
            continue
        return


if __name__ == "__main__":
    name = Path(sys.argv[0]).name
    command, rest = (sys.argv[1], sys.argv[2:]) if name.endswith(".py") else (name, sys.argv[1:])
    {"sbatch": sbatch, "srun": srun, "squeue": squeue, "scancel": scancel, "run": run}[command](rest)
