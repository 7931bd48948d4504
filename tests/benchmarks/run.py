"""Measure anarch against its alternatives.

    python tests/benchmarks/run.py [CASE ...] [--threads N] [--repeats N] [--json FILE] [--plot FILE]

Everything in one table was measured in one run, contenders taking turns; the best of the repeats is compared, and the median tells how
quiet the machine was. The floor is the larger of FLOPs over the rate of a large matrix product and bytes over the rate of a large copy,
both measured in the same run. Every case is run where none is named.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import attrs
import constraint
import dense
import drift
import largest_eigenvalue
import learning_coefficient
import lift
import local
import measure
import precision
import shards
import shared
import siblings
import small
import torch

CASES: dict[str, Callable[[], measure.Case]] = {
    "dense": dense.case,
    "local": functools.partial(local.case, local.inner, "locally connected layer, 64 to 64 channels, 8 x 8, kernel 5, batch 250"),
    "local-first": functools.partial(
        local.case, local.first, "locally connected layer, 3 to 64 channels, 32 x 32, kernel 4, stride 2, batch 250"
    ),
    "local-small": local.small_case,
    "local-groups": functools.partial(
        local.groups_case, local.grouped, "locally connected layer, 128 channels in 32 groups, 8 x 8, kernel 3, batch 100"
    ),
    "local-depthwise": functools.partial(
        local.groups_case, local.depthwise, "locally connected layer, 64 channels, depthwise, 16 x 16, kernel 3, batch 100"
    ),
    "local-network": local.network_case,
    "shared": shared.case,
    "lift": lift.case,
    "drift": drift.case,
    "mask": drift.mask_case,
    "ungrouped": functools.partial(constraint.case, "an ungrouped depthwise convolution"),
    "circulant": functools.partial(constraint.case, "a circulant matrix"),
    **{f"small-{relaxation}": functools.partial(small.case, relaxation) for relaxation in small.NAMES},
}

TABLES: dict[str, Callable[[], Iterable[measure.Table]]] = {
    "largest-eigenvalue": largest_eigenvalue.tables,
    "learning-coefficient": learning_coefficient.tables,
    "precision": precision.tables,
    "shards": shards.tables,
    "siblings": siblings.tables,
}
"""Cases that say more than how long something takes."""


def table(case: measure.Case, figures: dict[str, measure.Figure], machine: measure.Machine) -> measure.Table:
    """Times and memory of a case."""
    floor = max(case.flops / machine.flops, case.bytes / machine.bytes)
    reference = figures.get(case.reference)
    rows = []
    for name, figure in figures.items():
        ratio = f"{figure.best / reference.best:.2f}" if reference else ""
        peak = f"{figure.peak / 2**20:,.0f} MiB" if figure.peak is not None else ""
        rows.append((name, f"{1e3 * figure.best:,.2f} ms", f"{1e3 * figure.median:,.2f} ms", ratio, peak))
    if floor:
        work = f"{case.flops / 1e9:,.1f} GFLOP, {case.bytes / 1e9:,.2f} GB"
        rows.append((f"floor ({work})", f"{1e3 * floor:,.2f} ms", "", f"{floor / reference.best:.2f}" if reference else "", ""))
    return measure.Table(case.title, ("", "best", "median", "of anarch's", "peak memory"), rows)


def plot(results: dict[str, tuple[measure.Case, dict[str, measure.Figure]]], path: Path) -> None:
    """Times of every case in units of anarch's, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    shown = {name: result for name, result in results.items() if result[0].reference in result[1]}
    heights = [len(result[1]) + 1 for result in shown.values()]
    figure, axes = plt.subplots(len(shown), 1, figsize=(8, 0.32 * sum(heights)), height_ratios=heights, sharex=True, layout="constrained")
    for ax, (case, found) in zip(axes if len(shown) > 1 else [axes], shown.values(), strict=True):
        ratios = {name: figure.best / found[case.reference].best for name, figure in found.items()}
        colors = ["tab:blue" if name == case.reference else "tab:gray" for name in ratios]
        bars = ax.barh(list(ratios), list(ratios.values()), color=colors)
        ax.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        ax.set_title(case.title, fontsize=9, loc="left")
        ax.set_xscale("log")
        ax.invert_yaxis()
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0.1)
    figure.supxlabel("time, in units of anarch's", fontsize=9)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join([*CASES, *TABLES]))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write every repeat and every table here")
    parser.add_argument("--plot", type=Path, help="draw the ratios here")
    arguments = parser.parse_args(given)
    if unknown := [name for name in arguments.cases if name not in CASES | TABLES]:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join([*CASES, *TABLES])}")
    torch.set_num_threads(arguments.threads)
    machine = measure.machine()
    print(
        f"PyTorch {torch.__version__}, {machine.threads} threads, {machine.flops / 1e9:.0f} GFLOP/s, {machine.bytes / 1e9:.1f} GB/s\n",
        flush=True,
    )
    results: dict[str, tuple[measure.Case, dict[str, measure.Figure]]] = {}
    record: dict[str, object] = {}
    for name in arguments.cases or [*CASES, *TABLES]:
        torch.manual_seed(0)
        if name in CASES:
            case = CASES[name]()
            figures = measure.figures(case, arguments.repeats)
            results[name] = case, figures
            record[name] = {who: attrs.asdict(figure) for who, figure in figures.items()}
            print(table(case, figures, machine).markdown(), end="\n\n", flush=True)
            continue
        found = []
        for each in TABLES[name]():
            found.append(attrs.asdict(each))
            print(each.markdown(), end="\n\n", flush=True)
        record[name] = found
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
