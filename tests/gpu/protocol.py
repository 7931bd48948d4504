"""The paper's protocol on real CIFAR-10, as much of it as a card does in the time that there is.

    python3 -P tests/gpu/protocol.py OUT --data-root DIR [--seconds 420] [--small]

Takes some steps of each network, chooses as many of the protocol's 18 switch times as fit, trains and measures, and stops in time; what is
finished by then is in the report. OUT/run is the run directory; OUT/results.json, report.html and figures.tar.gz are what is to be kept.
"""

from __future__ import annotations

import argparse
import shutil
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import anarch_core
from anarch_core.errors import AnarchError
from anarch_core.experiment.segments import Segment
from anarch_core.planning.duration import run_seconds
from anarch_core.planning.run_plan import RunPlan
from anarch_core.segment.stopping import InterruptedRunError

PROBES = "hessian,gradient,delta,ablation,filters"
BEGINNING, SEGMENT = 20.0, 3.0
"""Seconds that a run takes beside training: to begin and to draw its report, and for each segment to be lifted, measured and written."""

CAUTION = 0.85
"""Part of the time that is planned for."""


def settings(data_root: Path, *, small: bool) -> dict[str, Any]:
    """Of the protocol; small enough for a processor where that is asked for."""
    card = torch.cuda.is_available()
    found = {"recipe": "paper-cifar10", "data_root": data_root, "probe": PROBES, "precision": "tf32" if card else "float32", "jobs": 2}
    if small:
        found |= {"train_limit": 500, "epochs": 3, "branch_epochs": 1, "batch_size": 100, "options": {"vanilla-cnn": {"channels": 4}}}
    return found | {"device": "cuda:0" if card else "cpu"}


def needed(plan: RunPlan, switches: Sequence[float]) -> float:
    """Seconds of the run with some of its switch times, one segment after the other."""

    def is_taken(segment: Segment) -> bool:
        return segment.leaves is None or segment.leaves.epoch in switches

    segments = [segment for segment in plan.segments if is_taken(segment)]
    pace = {id: network.step_seconds or 0.0 for network in plan.networks for id in network.footprint.architecture.segments}
    return BEGINNING + SEGMENT * len(segments) + run_seconds(segments, pace, samples=plan.samples, jobs=1)


def chosen(plan: RunPlan, seconds: float) -> list[float]:
    """As many switch times as fit, evenly among all, the first and the last included; two where not even those do."""
    moments = [moment.epoch for moment in plan.moments]
    for count in range(len(moments), 1, -1):
        found = [moments[round(number * (len(moments) - 1) / (count - 1))] for number in range(count)]
        if needed(plan, found) <= CAUTION * seconds:
            return found
    return [moments[0], moments[-1]]


def main(given: Sequence[str] | None = None) -> None:
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=420.0)
    parser.add_argument("--small", action="store_true", help="networks and numbers small enough for a processor")
    arguments = parser.parse_args(given)
    asked = settings(arguments.data_root, small=arguments.small)
    plan = anarch_core.plan(**{**asked, "probe": ()})
    switches = chosen(plan, arguments.seconds - (time.monotonic() - begun))
    for network in plan.networks:
        print(f"{network.footprint.name}: {1e3 * (network.step_seconds or 0):.3f} ms a step", flush=True)
    print(f"{len(switches)} of {len(plan.moments)} switch times: about {needed(plan, switches):.0f} s", flush=True)
    run = arguments.out / "run"
    try:
        anarch_core.run(**asked, switch="at:" + ",".join(f"{epoch:g}" for epoch in switches), out=run, progress="lines")
    except InterruptedRunError as error:
        print(error, flush=True)
    keep(run, arguments.out)
    print(f"{time.monotonic() - begun:.0f} s in all", flush=True)


def keep(run: Path, out: Path) -> None:
    """Show what a run has found by now, and copy it: the results, the report, and its figures in one file."""
    print(anarch_core.Results.read(run), flush=True)
    try:
        anarch_core.write_report(run)
    except AnarchError as error:  # nothing is finished
        print(error, flush=True)
    for name in ("results.json", "run.json", "report.html"):
        if (run / name).exists():
            shutil.copy(run / name, out / name)
    if (run / "figures").exists():
        with tarfile.open(out / "figures.tar.gz", "w:gz") as archive:
            archive.add(run / "figures", "figures")


if __name__ == "__main__":
    main()
