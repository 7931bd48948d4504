"""Try to break what anarch promises.

    python tests/campaigns/abuse.py [CAMPAIGN ...] [--count N] [--seed N] [--json FILE]

Prints how many tries of each campaign held, and how each of the others broke its promise. Every campaign is run where none is named. Equal
seeds make equal tries; the suite does the first few of each.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
from campaign import Campaign

CAMPAIGNS: Sequence[str] = (
    "checkpoints",
    "code_in_files",
    "damage",
    "disturbing_probes",
    "dying_workers",
    "edge_values",
    "failing_components",
    "growth",
    "hostile_plugins",
    "kills",
    "lost_nodes",
    "memory",
    "odd_data",
    "odd_files",
    "slurm_jobs",
    "spectra",
    "stops",
)
"""Modules beside this one; each defines ``CAMPAIGN``."""


def load(name: str) -> Campaign:
    """A campaign by its name."""
    found: Campaign = importlib.import_module(name).CAMPAIGN
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments name; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="CAMPAIGN", help=", ".join(CAMPAIGNS))
    parser.add_argument("--count", type=int, help="tries of each; by default as many as make a whole campaign")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write what was found")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(CAMPAIGNS)):
        parser.error(f"no campaign {', '.join(unknown)}; there are {', '.join(CAMPAIGNS)}")
    tallies = {}
    for name in options.names or CAMPAIGNS:
        campaign, begun = load(name), time.monotonic()
        if (missing := campaign.missing()) is not None:
            print(f"{name}: not tried: {missing}", flush=True)
            continue
        tally = tallies[name] = campaign.run(options.seed, options.count)
        held = tally.tries - len(tally.broken)
        print(f"{name}: {held} of {tally.tries} held ({time.monotonic() - begun:.0f} s): {campaign.promise}", flush=True)
        for which, how in tally.broken.items():
            print(f"  {which}\n    {how}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({name: attrs.asdict(tally) for name, tally in tallies.items()}, indent=2) + "\n")
    return int(any(tally.broken for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
