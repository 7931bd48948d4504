"""anarch: architectural relaxation in PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anarch_core.lazy import lazy_names
from anarch_core.version import __version__

if TYPE_CHECKING:
    from anarch_core.checkpoint.network import load, save
    from anarch_core.config.run_config import RunConfig
    from anarch_core.experiment.results import Results
    from anarch_core.experiment.runs import runs
    from anarch_core.plugin.hookspecs import API_VERSION, hookimpl
    from anarch_core.relaxation.own_loop import Switched, switch, switch_back
    from anarch_core.relaxation.report import Relaxed
    from anarch_core.relaxation.verbs import drift, project, relax
    from anarch_core.verbs.measuring import measure
    from anarch_core.verbs.reporting import figure, write_report
    from anarch_core.verbs.running import plan, resume, run


__all__ = [
    "API_VERSION",
    "Relaxed",
    "Results",
    "RunConfig",
    "Switched",
    "__version__",
    "drift",
    "figure",
    "hookimpl",
    "load",
    "measure",
    "plan",
    "project",
    "relax",
    "resume",
    "run",
    "runs",
    "save",
    "switch",
    "switch_back",
    "write_report",
]

# Imported when it is first used: `anarch --help` needs no torch, and `python -m anarch_core` nothing before it has settled where to look.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "API_VERSION": "anarch_core.plugin.hookspecs",
        "hookimpl": "anarch_core.plugin.hookspecs",
        "Relaxed": "anarch_core.relaxation.report",
        "drift": "anarch_core.relaxation.verbs",
        "project": "anarch_core.relaxation.verbs",
        "relax": "anarch_core.relaxation.verbs",
        "Switched": "anarch_core.relaxation.own_loop",
        "switch": "anarch_core.relaxation.own_loop",
        "switch_back": "anarch_core.relaxation.own_loop",
        "load": "anarch_core.checkpoint.network",
        "save": "anarch_core.checkpoint.network",
        "RunConfig": "anarch_core.config.run_config",
        "Results": "anarch_core.experiment.results",
        "runs": "anarch_core.experiment.runs",
        "figure": "anarch_core.verbs.reporting",
        "measure": "anarch_core.verbs.measuring",
        "write_report": "anarch_core.verbs.reporting",
        "plan": "anarch_core.verbs.running",
        "resume": "anarch_core.verbs.running",
        "run": "anarch_core.verbs.running",
    },
)
