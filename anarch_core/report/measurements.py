"""Tables of what was measured: every probe before and after, its certificates, exactness."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.summary import number
from anarch_core.html import Html, folded, join, paragraph, table
from anarch_core.report.evidence import FinishedRun, by_switch

CERTIFICATE = ("value", "residual", "error_bound", "products", "converged")
"""What a probe's details hold about an eigenvalue that was found by iteration."""


LEFT_OUT = "measured"
"""How the note of a measurement begins that something is missing from; see :class:`anarch_core.probe.Measurement`."""


def probe_tables(run: FinishedRun) -> Iterator[tuple[str, Html]]:
    """(probe, its scalars before and after training for every kind of segment) of a run."""
    names = dict.fromkeys(probe for segment in run.results.segments for probe in (*segment.probes, *segment.probe_notes))
    for probe in names:
        scalars = dict.fromkeys(
            scalar
            for segment in run.results.segments
            for moment in segment.probes.get(probe, {}).values()
            for scalar in moment
            if not scalar.endswith("_residual") and scalar != "products"
        ) or {LEFT_OUT: None}
        rows, averages = [], []
        for (name, switch), group in _groups(run).items():
            cells = [_on_the_way(group, probe, scalar, ("start", "end")) for scalar in scalars]
            if any(cells):
                rows.append([name, switch, *cells])
            cells = [_over_seeds(group, probe, "average", scalar) for scalar in scalars]
            if any(cells):
                averages.append([name, switch, *cells])
        headings = ["network", "t_w", *scalars]
        if rows:
            yield probe, table(f"{probe}: at the start of the segment → at its end", *_filled(headings, rows))
        if between := _between(run, probe):
            ways = [
                [name, switch, *(_on_the_way(group, probe, scalar, between) for scalar in scalars)]
                for (name, switch), group in _groups(run).items()
            ]
            told = [row for row in ways if any(row[2:])]
            yield probe, table(f"{probe}: on the way, {' → '.join(between)} after the start of the segment", *_filled(headings, told))
        if averages:
            yield probe, table(f"{probe}: of the average of the weights", *_filled(headings, averages))


def _filled(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """A table without the scalars that nothing was found of."""
    places = [place for place in range(len(headings)) if place < 2 or any(row[place] for row in rows)]
    return [headings[place] for place in places], [[row[place] for place in places] for row in rows]


def _groups(run: FinishedRun) -> dict[tuple[str, str], list[SegmentResult]]:
    """Segments that differ in nothing but the seed."""
    groups: dict[tuple[str, str], list[SegmentResult]] = {}
    order = ("trunk", "scratch", "continued", "branch")
    for segment in sorted(run.results.segments, key=lambda one: (order.index(one.kind), one.relaxation or "", one.switch_epoch or 0)):
        relaxation = segment.relaxation or ""
        names = {"trunk": run.constrained, "continued": f"{run.constrained} continued", "scratch": f"{relaxation} from scratch"}
        name = names.get(segment.kind, relaxation) + (f", noise {segment.noise}" if segment.noise else "")
        switch = "" if segment.switch_epoch is None else f"{segment.switch_epoch:g}"
        groups.setdefault((name, switch), []).append(segment)
    return groups


def compares(run: FinishedRun) -> bool:
    """Whether a probe measured something both in a network's own coordinates and in those that compare."""
    scalars = {
        scalar for segment in run.results.segments for probes in segment.probes.values() for found in probes.values() for scalar in found
    }
    return any(f"{scalar}_shared" in scalars for scalar in scalars)


def _on_the_way(group: Sequence[SegmentResult], probe: str, scalar: str, moments: Iterable[str]) -> str:
    """A scalar over seeds at each of the moments, one after the other; empty where it was measured at none."""
    found = [_over_seeds(group, probe, moment, scalar) for moment in moments]
    return " → ".join(text or "–" for text in found) if any(found) else ""


def _between(run: FinishedRun, probe: str) -> list[str]:
    """Moments between start and end at which a probe measured, ascending."""
    found = {
        moment: epoch
        for segment in run.results.segments
        for moment, epoch in segment.moments_between.items()
        if segment.scalars(probe, moment)
    }
    return sorted(found, key=lambda moment: found[moment])


def _over_seeds(group: Sequence[SegmentResult], probe: str, moment: str, scalar: str) -> str:
    values = [segment.scalars(probe, moment).get(scalar) for segment in group]
    text = number([value for value in values if value is not None])
    failed = sum(segment.probe_failed(probe, moment) for segment in group)
    some = f"{failed} " if failed < len(group) else ""
    return " ".join([*([text] if text else []), *([f"{some}failed"] if failed else [])])


def certificates(run: FinishedRun) -> Html:
    """Residual, error bound and effort of every eigenvalue; nothing where there is none."""
    rows, worst, failed = [], 0.0, 0
    sure: list[float] = []
    for (name, switch), group in _groups(run).items():
        for segment in group:
            for moment in ("start", *segment.moments_between, "end", "average"):
                for probe, details in segment.probe_details.items():
                    for label, found in certified(details.get(moment, {})):
                        value, residual, _, products, converged = (found[key] for key in CERTIFICATE)
                        sure += [found["confidence"]] if "confidence" in found else []
                        worst = max(worst, residual / abs(value)) if value else worst
                        failed += not converged
                        rows.append(
                            [
                                name,
                                switch,
                                str(segment.seed),
                                moment,
                                f"{probe} {label}",
                                f"{value:.6g}",
                                f"{residual:.1e}",
                                error_bound(found),
                                str(products),
                                "yes" if converged else "NO",
                            ]
                        )
    if not rows:
        return Html()
    verdict = f"All {len(rows)} eigenvalues converged" if not failed else f"{failed} of {len(rows)} eigenvalues did not converge"
    text = (
        f"{verdict}; the largest residual is {100 * worst:.2g} % of its eigenvalue. Some eigenvalue lies within the residual of the value."
    )
    if sure:
        text += f" That of its rank lies within the error bound, with a probability of {100 * min(sure):g} % over the random start."
    if len(sure) < len(rows):
        text += " Bounds marked ~ are estimates: these eigenvalues were measured without a probability for their bounds."
    headings = ["network", "t_w", "seed", "moment", "eigenvalue", "value", "residual", "error bound", "products", "converged"]
    return join([paragraph(text), folded("Certificates of all eigenvalues", table("Certificates", headings, rows, texts=5))])


def error_bound(found: Mapping[str, Any]) -> str:
    """An eigenvalue's error bound in short; marked where it is none but an estimate, as it was before bounds had a probability."""
    return ("" if "confidence" in found else "~") + f"{found['error_bound']:.1e}"


def certified(details: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Names and certificates of the eigenvalues in a probe's details, wherever they stand in there."""
    for key, value in details.items():
        name = f"{prefix} {key}".strip()
        if isinstance(value, Mapping):
            if value.keys() >= set(CERTIFICATE):
                yield name, value
            else:
                yield from certified(value, name)
        elif isinstance(value, list):
            yield from certified({str(index + 1): item for index, item in enumerate(value) if isinstance(item, Mapping)}, name)


def exactness(run: FinishedRun) -> Html:
    """How exactly each branch began as the network it left."""
    rows = []
    verdicts: list[bool | None] = []
    errors: list[float] = []
    notes: dict[str, None] = {}
    for series in run.series:
        for switch, group in by_switch(run.segments("branch", series.relaxation)).items():
            for segment in group:
                report = segment.exactness
                if report is None:
                    continue
                worst = max(report.layers, key=lambda layer: report.layers[layer] or 0.0, default="")
                verdicts.append(report.exact)
                errors += [] if report.error is None else [report.error]
                notes |= dict.fromkeys(f"{series.relaxation}: {note}." for note in report.notes)
                rows.append(
                    [
                        series.relaxation,
                        f"{switch:g}",
                        str(segment.seed),
                        worst,
                        "not compared" if report.error is None else f"{report.error:.1e}",
                        f"{report.tolerance:.1e}",
                        report.dtype,
                        {True: "yes", False: "NO", None: "not compared"}[report.exact],
                    ]
                )
    if not rows:
        return Html()
    inexact, unknown = verdicts.count(False), verdicts.count(None)
    verdict = f"All {len(rows)} embeddings are exact up to rounding"
    if inexact or unknown:
        counts = [f"{inexact} of {len(rows)} embeddings are NOT exact"] if inexact else []
        counts += [f"{unknown} of {len(rows)} embeddings could not be compared"] if unknown else []
        verdict = ", ".join(counts)
    size = f": the outputs of branch and parent differ by at most {max(errors):.1e} of the largest output" if errors else ""
    text = f"{verdict}{size} at the moment of the switch."
    headings = ["relaxation", "t_w", "seed", "worst layer", "error", "tolerance", "arithmetic", "exact"]
    said = [paragraph(note) for note in notes]
    return join([paragraph(text), *said, folded("Every embedding", table("Exactness at the switch", headings, rows, texts=4))])


def problems(run: FinishedRun) -> list[str]:
    """What went wrong, files that are damaged, and probes that did not measure."""
    results = run.results
    said = []
    if results.status not in ("finished", "failed"):
        said.append(f"The run is {results.status}, not finished: figures and tables show the {len(results.segments)} segments done so far.")
    said += [f"Damaged: {text}" for text in run.damaged]
    said += [f"{segment.title} failed: {segment.error}" for segment in results.failed.values()]
    said += [f"{segment.title} was skipped: {segment.error}" for segment in results.skipped.values()]
    diverged = [segment for segment in results.segments if segment.diverged_epoch is not None]
    said += [f"{_name(segment)} diverged in epoch {segment.diverged_epoch:g} and is left out of every mean." for segment in diverged]
    said += [f"{_name(segment)} {segment.ended}." for segment in results.segments if segment.stopped_early]
    notes: dict[str, list[str]] = {}
    for segment in results.segments:
        for probe, moments in segment.probe_notes.items():
            for moment, note in moments.items():
                if not note.startswith(("skipped", LEFT_OUT)):
                    notes.setdefault(f"probe {probe} {note}", []).append(f"{_name(segment)} ({moment})")
    said += [f"{note}: {', '.join(where[:4])}{f' and {len(where) - 4} more' if len(where) > 4 else ''}" for note, where in notes.items()]
    return said


def omissions(run: FinishedRun) -> list[str]:
    """What probes left out since the networks have nothing of it, each said once."""
    every = (
        f"The probe {probe} {note}."
        for segment in run.results.segments
        for probe, moments in segment.probe_notes.items()
        for note in moments.values()
        if note.startswith(LEFT_OUT)
    )
    return list(dict.fromkeys(every))


def _name(segment: SegmentResult) -> str:
    at = "" if segment.switch_epoch is None else f" at {segment.switch_epoch:g}ep"
    kind = "" if segment.kind == "branch" else segment.kind
    noise = f", noise {segment.noise}" if segment.noise else ""
    return f"{kind} {segment.relaxation or ''}".strip() + f"{at}, seed {segment.seed}{noise}"
