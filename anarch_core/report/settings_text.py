"""What was run, in words, from a resolved configuration."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from anarch_core.experiment.kinds import by_kind
from anarch_core.report.evidence import FinishedRun


def settings_in_words(run: FinishedRun) -> list[tuple[str, str]]:
    """Names and sentences for what the configuration says; a setting that an older or newer version does not write is left out."""
    said = _Settings(run.settings.get("run", {}))
    facts = [
        ("data", f"{said['data']}{_limits(said)}"),
        ("constrained network", f"{said['model']}, {_parameters(run)}"),
        ("training", f"{said['epochs']} epochs, {said['optimizer']}, learning rate {said['lr']} ({said['lr_schedule']}), "
                     f"batches of {said['batch_size']}, {said['precision']}"),
        ("objective", said["objective"] if "objective" in said.values else ""),
        ("relaxed to", _list(said.values.get("relax")) or "nothing"),
        ("layers", "all" if said.values.get("layers") == ["*"] else _list(said.values.get("layers"))),
        ("switch times", f"{said['switch']}: epochs {_switches(run)}"),
        ("staged paths", _list(said.values.get("path"))),
        ("after the switch", f"{said['branch_epochs']} epochs, learning rate {said['branch_lr']} ({said['branch_lr_schedule']}), "
                             f"optimizer state {said['optimizer_state']}"),
        ("penalty after it", _list(said.values.get("penalty"))),
        ("gradients", f"shortened to a 2-norm of {said['clip_norm']}" if said.values.get("clip_norm") else ""),
        ("average of the weights", str(said.values.get("average") or "")),
        ("stops early by", str(said.values.get("stop_early") or "")),
        ("controls", _controls(said.values.get("control"), run)),
        ("seeds", _list(said.values.get("seeds"))),
        ("probes", _list(said.values.get("probe")) or "none"),
        ("machines", f"of {kinds} kinds, see Environment" if (kinds := len(by_kind(run.results.segments))) > 1 else ""),
    ]  # fmt: skip
    return [(name, text) for name, text in facts if text]


def command(run: FinishedRun) -> str | None:
    """The command line that started the run, without the path of the program; None if it was started from Python."""
    given = run.environment.get("command") or []
    if len(given) < 2 or PurePath(given[0]).name not in ("anarch", "__main__.py"):
        return None
    return shlex.join(["anarch", *given[1:]])


class _Settings:
    """Settings as text; ``?`` for one that is not there."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def __getitem__(self, name: str) -> str:
        value = self.values.get(name, "?")
        return f"{value:g}" if isinstance(value, float) else str(value)


def _limits(said: _Settings) -> str:
    limit, validation = said.values.get("train_limit"), said.values.get("validation")
    text = f", {limit} training samples" if limit else ""
    return text + (f", {said['validation']} held out for validation" if validation else "")


def _parameters(run: FinishedRun) -> str:
    counts = {segment.relaxation: segment.parameters for segment in run.results.segments if segment.kind in ("branch", "scratch")}
    trunk = next((segment.parameters for segment in run.trunk), None)
    text = "size unknown" if trunk is None else f"{trunk:,} parameters"
    return text + "".join(f"; as {name} {count:,}" for name, count in counts.items() if name)


def _switches(run: FinishedRun) -> str:
    found = sorted({segment.switch_epoch for segment in run.results.segments if segment.switch_epoch is not None})
    return ", ".join(f"{switch:g}" for switch in found) or "none yet"


def _controls(names: Any, run: FinishedRun) -> str:
    words = {
        "continued": f"continued (the {run.constrained} goes on with the settings after the switch)",
        "scratch": "scratch (the relaxed network from its initialisation)",
    }
    return "; ".join(words.get(str(name), str(name)) for name in _each(names)) or "none"


def _list(values: Any) -> str:
    return ", ".join(map(str, _each(values)))


def _each(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values] if values else []
