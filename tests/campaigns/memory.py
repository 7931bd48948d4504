"""Foreseen beside taken: what ``anarch plan`` says that a process takes for networks, and what a run takes, each in a process of its own.

    python tests/campaigns/memory.py [--count N] [--seed N]    # prints the table

A try has broken the promise if a run took more than was foreseen, or, where half a gigabyte was foreseen, less than ten elevenths of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import attrs
from campaign import Campaign, Try

LARGE = 500 * 10**6
"""Bytes from which on a prediction must be near."""

WIDTHS = {"efcn": 500, "lcn": 700, "shared": 600, "tiled": 1000}
"""Channels with which a relaxation of ``cnn1d`` takes some hundred megabytes to train."""

OPTIMIZERS = {"sgd": ("sgd", {}), "momentum": ("sgd", {"momentum": 0.9}), "adam": ("adam", {})}
PRECISIONS = ("float32", "float64", "bfloat16")
PROBES = ("none", "delta", "weights", "interpolation", "hessian", "gradient", "filters", "equivariance", "ablation", "plane")
FEW: dict[str, dict[str, Any]] = {
    "hessian": {"samples": 100, "max_products": 4},
    "gradient": {"samples": 100},
    "interpolation": {"samples": 100, "points": 5},
    "ablation": {"random_masks": 1},
    "plane": {"samples": 100, "points": 3, "through": ("parent", "random")},
}
"""Options that make a probe short; they change nothing about what is held."""


@attrs.frozen
class Case:
    """One run: a trunk of an epoch, and a branch of an epoch that is relaxed."""

    relaxation: str
    optimizer: str
    precision: str
    probe: str
    width: int

    def measured(self, folder: Path) -> tuple[int, int]:
        """Bytes that were foreseen and that were taken, by a process of its own."""
        command = [sys.executable, __file__, "--case", json.dumps(attrs.asdict(self)), "--out", str(folder / "run")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert ended.returncode == 0, ended.stderr[-400:]
        foreseen, taken = json.loads(ended.stdout.splitlines()[-1])
        return foreseen, taken

    def held(self, folder: Path) -> None:
        """The promise, of this case."""
        foreseen, taken = self.measured(folder)
        told = f"{taken / 1e6:.0f} MB taken, {foreseen / 1e6:.0f} MB foreseen"
        assert taken <= foreseen, told
        assert foreseen < LARGE or foreseen <= 1.1 * taken, told


def cases(random: Random) -> Iterator[Case]:
    """One that is quick; every probe with every relaxation in turn; then any combination, in any width."""
    yield Case("efcn", "sgd", "float32", "delta", 60)
    for probe in PROBES:
        yield Case("efcn", "sgd", "float32", probe, WIDTHS["efcn"])
    for relaxation, optimizer in itertools.product(("lcn", "shared", "tiled"), ("momentum", "adam")):
        yield Case(relaxation, optimizer, "float32", "none", WIDTHS[relaxation])
    while True:
        relaxation = random.choice(list(WIDTHS))
        optimizer, precision, probe = random.choice(list(OPTIMIZERS)), random.choice(PRECISIONS), random.choice(PROBES)
        yield Case(relaxation, optimizer, precision, probe, round(WIDTHS[relaxation] * random.uniform(0.5, 1)))


def tries(random: Random) -> Iterator[Try]:
    """All of them."""
    for case in cases(random):
        yield Try(" ".join(map(str, attrs.astuple(case))), case.held)


CAMPAIGN = Campaign("a run takes the memory that was foreseen, probes included", tries, count=14, in_suite=0, limit=280)


def one(case: Case, out: Path) -> tuple[int, int]:
    """In this process."""
    from anarch_core.config.run_config import RunConfig
    from anarch_core.machine import resident_bytes
    from anarch_core.planning.plan import plan_run
    from anarch_core.running.runner import run

    optimizer, options = OPTIMIZERS[case.optimizer]
    config = RunConfig(
        relax=case.relaxation,
        model="cnn1d",
        optimizer=optimizer,
        precision=case.precision,
        probe=() if case.probe == "none" else (case.probe,),
        switch="at:0",
        control=(),
        epochs=1,
        branch_epochs=1,
        train_limit=200,
        batch_size=100,
        lr=1e-5,
        device="cpu",
        jobs=1,
        threads=1,
        options={"cnn1d": {"channels": case.width}, optimizer: options, **({case.probe: FEW[case.probe]} if case.probe in FEW else {})},
    )
    plan = plan_run(config, timed=False)
    foreseen = max(size for network in plan.networks for size in network.needed_bytes.values())
    before = resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    results = run(config, out=out, progress="silent")
    notes = [note for segment in results.segments for found in segment.probe_notes.values() for note in found.values()]
    assert not any("failed" in note for note in notes), notes
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return foreseen, peak - before


def main() -> None:
    """Print the table, or measure one case in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=CAMPAIGN.count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.case:
        print(json.dumps(one(Case(**json.loads(asked.case)), asked.out)))
        return
    import tempfile

    print("| relaxation | optimizer | precision | probe | channels | foreseen | taken | foreseen over taken |")
    print("|---|---|---|---|--:|--:|--:|--:|")
    for case in itertools.islice(cases(Random(asked.seed)), asked.count):
        with tempfile.TemporaryDirectory() as folder:
            foreseen, taken = case.measured(Path(folder))
        cells = (*attrs.astuple(case), f"{foreseen / 1e6:.0f} MB", f"{taken / 1e6:.0f} MB", f"{foreseen / taken:.2f}")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
