"""Whether a relaxed network computes what its parent does, seen while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import nn

from anarch_core.errors import InexactRelaxationWarning, warn
from anarch_core.relaxation.beside import Passage, perturbed, run_beside
from anarch_core.relaxation.outputs import deviations, largest
from anarch_core.relaxation.report import AMPLIFIED, RelaxationReport
from anarch_core.relaxation.selection import Selection
from anarch_core.relaxation.trace import Trace, trace_as, trace_in_evaluation_mode

DRAWS = 3  # of the network's own randomness, and of other roundings


def checked(report: RelaxationReport, found: Selection, parent: nn.Module, new: nn.Module, example_input: Any) -> RelaxationReport:
    """The report with errors measured, and a warning where they exceed the tolerance.

    Args:
        report: without errors.
        found: what was relaxed, with the passes of the parent.
        parent: the network that was given, in its mode.
        new: the relaxed network.
        example_input: as for the passes.

    Raises:
        SurgeryError: the relaxed network does not run, or does not use its layers as its parent does.
    """
    verdicts, errors = [], dict[str, list[float | None]]()

    def compared(trace: Trace) -> _Verdict:
        passage = run_beside(trace, parent, new, [site.path for site in found.sites], example_input)
        for path, measured in passage.errors.items():
            errors.setdefault(path, []).extend(measured)
        return _Verdict.of(trace, passage, parent, example_input, report.tolerance)

    for trace in found.traces:
        verdict = compared(trace)
        calmer = trace_in_evaluation_mode(trace, parent, example_input) if verdict.amplified else None
        if calmer is not None:
            note = f"in training mode {verdict.rounding}; so its outputs were compared in evaluation mode"
            second = compared(attrs.evolve(calmer, notes=[*verdict.notes, note]))
            verdict = verdict if second.amplified else second
        verdicts.append(verdict)
    layers = [attrs.evolve(layer, error=largest(errors[layer.path])) for layer in report.layers]
    notes = [*report.notes, *(note for verdict in verdicts for note in (*verdict.notes, verdict.rounding) if note)]
    uncompared = [layer.path or "the network" for layer in layers if layer.error is None]
    if uncompared:
        notes.append(f"not compared: {', '.join(uncompared)}, whose outputs hold no number on this example")
    result = attrs.evolve(
        report,
        layers=layers,
        error=largest(verdict.error for verdict in verdicts),
        amplified=max(verdict.amplified for verdict in verdicts),
        notes=list(dict.fromkeys(notes)),
    )
    if result.complaint:
        warn(result.complaint, InexactRelaxationWarning)
    return result


@attrs.frozen(kw_only=True)
class _Verdict:
    """What one pass says end to end.

    Attributes:
        error: as in the report.
        amplified: as in the report.
        notes: as in the report.
        rounding: a further note, that rounding explains the error; None where it need not.
    """

    error: float | None
    amplified: float = 0.0
    notes: Sequence[str] = ()
    rounding: str | None = None

    @classmethod
    def of(cls, trace: Trace, passage: Passage, parent: nn.Module, example_input: Any, tolerance: float) -> _Verdict:
        """Compare the outputs; where they differ, find out whether the parent differs as much from itself."""
        notes = list(trace.notes)
        errors = deviations(passage.outputs, trace.outputs)
        measured = {place: error for place, error in enumerate(errors) if error is not None}
        if not measured:
            return cls(error=None, notes=[*notes, "the outputs of the network were not compared: they hold no number that can be"])
        if not any(bool(output.any()) for output in trace.outputs):
            notes.append("the outputs of the network are all zero on this example, so that their equality says little")
        if max(measured.values()) <= tolerance:
            return cls(error=max(measured.values()), notes=notes)

        again = (trace_as(trace.manner, parent, list(trace.calls), example_input).outputs for _ in range(DRAWS))
        random = _explained(measured, _movements(again, trace.outputs), tolerance)
        measured = {place: error for place, error in measured.items() if place not in random}
        if random:
            which = "outputs" if not measured else f"{len(random)} of {len(errors)} outputs"
            notes.append(
                f"{which} were not compared: the network is random or stateful by itself and gives others each time, "
                f"by up to {max(random.values()):.1e}"
            )
        if max(measured.values(), default=0.0) <= tolerance:
            return cls(error=max(measured.values(), default=None), notes=notes)

        if max((error for each in passage.errors.values() for error in each if error is not None), default=0.0) > tolerance:
            return cls(error=max(measured.values()), notes=notes)  # layers that are not exact explain it, not rounding

        otherwise = (perturbed(trace, passage, parent, example_input, seed) for seed in range(DRAWS))
        shaken = _explained(measured, _movements(otherwise, trace.outputs), tolerance)
        if not shaken:
            return cls(error=max(measured.values()), notes=notes)
        rounding = (
            f"the network amplifies rounding: its outputs move by {max(shaken.values()):.1e} "
            "when those of the parent's own layers are rounded otherwise"
        )
        # Where there are other outputs altogether, there is nothing to compare.
        measured = {place: error for place, error in measured.items() if shaken.get(place) != float("inf")}
        amplified = max((move for move in shaken.values() if move != float("inf")), default=0.0)
        return cls(error=max(measured.values(), default=None), amplified=amplified, notes=notes, rounding=rounding)


def _explained(errors: Mapping[int, float], moved: Sequence[float], tolerance: float) -> dict[int, float]:
    """How far those outputs move by themselves whose errors, beyond the tolerance, that explains."""
    return {place: moved[place] for place, error in errors.items() if tolerance < error <= AMPLIFIED * moved[place]}


def _movements(runs: Iterable[Sequence[torch.Tensor]], expected: Sequence[torch.Tensor]) -> list[float]:
    """The largest deviation of every output over some runs."""
    errors = [deviations(outputs, expected) for outputs in runs]
    return [largest(each) or 0.0 for each in zip(*errors, strict=True)]
