"""The page: one file, nothing fetched from anywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from anarch_core.experiment.summary import summary
from anarch_core.html import Html, bullets, element, facts, folded, join, paragraph, table
from anarch_core.report.evidence import FinishedRun
from anarch_core.report.findings import findings, paired
from anarch_core.report.inline_svg import dark_colours
from anarch_core.report.machines import machines_of, trained_on
from anarch_core.report.measurements import certificates, compares, exactness, omissions, probe_tables, problems
from anarch_core.report.settings_text import command, settings_in_words
from anarch_core.report.stylesheet import STYLE
from anarch_core.report.text import coordinates
from anarch_core.version import __version__


@attrs.frozen(kw_only=True)
class Drawn:
    """A figure on the page.

    Attributes:
        name: of its files.
        title: its heading.
        caption: below it.
        drawings: SVG elements, for wide and for narrow screens.
    """

    name: str
    title: str
    caption: str
    drawings: Sequence[Html]


@attrs.frozen(kw_only=True)
class Said:
    """What a figure brings to the page beside its drawing.

    Attributes:
        name: of the figure.
        heading: of the section with its tables.
        findings: by label of a run and relaxation, its sentences.
        tables: by label of a run.
    """

    name: str
    heading: str
    findings: Mapping[tuple[str, str], str]
    tables: Mapping[str, Html]


def page(runs: Sequence[FinishedRun], figures: Sequence[Drawn], said: Sequence[Said], missing: Mapping[str, str], folder: Path) -> str:
    """The HTML of a report.

    Args:
        runs: what it is about.
        figures: in their order.
        said: what figures say beside, whether they were drawn or not.
        missing: by title, why a figure is not there.
        folder: where the figures lie as files.
    """
    sections = [
        ("run", "What was run", _what(runs)),
        ("findings", "What it shows", _each(runs, lambda run: _findings(run, said))),
        ("summary", "Summary", _each(runs, _summary)),
        ("figures", "Figures", _figures(figures, missing, folder)),
        *((f"tables-{one.name}", one.heading, _each(runs, functools.partial(_tables, one))) for one in said),
        ("probes", "Probes", _each(runs, _probes)),
        ("exactness", "Exactness", _each(runs, exactness)),
        ("environment", "Environment", _each(runs, _environment)),
        ("reproduce", "How to reproduce it", _each(runs, _reproduce)),
    ]
    present = [(name, title, content) for name, title, content in sections if content]
    heading = _title(runs)
    body = element(
        "main",
        element("h1", heading),
        element("p", f"Written by anarch {__version__}.", class_="quiet"),
        *_warnings(runs),
        element(
            "nav",
            element("ul", *(element("li", element("a", title, href=f"#{name}")) for name, title, _ in present)),
            aria_label="Sections",
        ),
        *(element("section", element("h2", title), content, id=name) for name, title, content in present),
    )
    style = STYLE.replace("DARK", dark_colours([drawing for figure in figures for drawing in figure.drawings]))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", heading),
        element("style", Html(style)),
    )
    return f"<!doctype html>\n{element('html', head, element('body', body), lang='en')}\n"


def _title(runs: Sequence[FinishedRun]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} runs: {', '.join(run.label for run in runs)}"
    run = runs[0]
    relaxations = ", ".join(series.relaxation for series in run.series) or "no relaxation"
    return f"{run.results.model} on {run.results.data}: {relaxations}"


def _each(runs: Sequence[FinishedRun], make: Callable[[FinishedRun], Html]) -> Html:
    """The same for every run, under its label where there are several; nothing if there is nothing for any."""
    contents = [(run, make(run)) for run in runs]
    if len(runs) == 1:
        return contents[0][1]
    return join(Html(element("h3", run.label) + content) for run, content in contents if content)


def _warnings(runs: Sequence[FinishedRun]) -> Iterator[Html]:
    for run in runs:
        said = problems(run)
        if said:
            head = "What went wrong" if len(runs) == 1 else f"What went wrong in {run.label}"
            yield element("div", element("h3", head), bullets(said), class_="bad", role="note")


def _what(runs: Sequence[FinishedRun]) -> Html:
    """The settings, side by side where there are several runs."""
    said = [dict(settings_in_words(run)) for run in runs]
    names = dict.fromkeys(name for words in said for name in words)
    if len(runs) == 1:
        return facts(said[0].items())
    rows = [[name, *(words.get(name, "–") for words in said)] for name in names]
    different = [index for index, row in enumerate(rows) if len(set(row[1:])) > 1]
    caption = "Settings; those in which the runs differ stand out."
    return table(caption, ["", *(run.label for run in runs)], rows, texts=len(runs) + 1, strong=different, wrapped=True)


def _summary(run: FinishedRun) -> Html:
    content = summary(run.results.segments, run.results.headlines, run.metric)
    return table(content.caption, content.headings, content.lines, strong=content.best)


def _findings(run: FinishedRun, said: Sequence[Said]) -> Html:
    beside = {series.relaxation: [one.findings[run.label, series.relaxation] for one in said] for series in run.series}
    tables = (table(one.caption, one.headings, one.rows) for one in paired(run))
    return join([*(paragraph(text) for text in findings(run, beside)), *tables])


def _tables(said: Said, run: FinishedRun) -> Html:
    return said.tables[run.label]


def _figures(figures: Sequence[Drawn], missing: Mapping[str, str], folder: Path) -> Html:
    parts = [paragraph(f"Each is also in the folder {folder}, as PNG and SVG.")] if figures else []
    for figure in figures:
        caption = element("figcaption", element("b", f"{figure.title}. "), figure.caption)
        parts.append(element("figure", *figure.drawings, caption, id=f"figure-{figure.name}"))
    if missing:
        parts += [element("h3", "Figures that are not here"), bullets(f"{title}: {reason}" for title, reason in missing.items())]
    return join(parts)


def _probes(run: FinishedRun) -> Html:
    tables = [content for _, content in probe_tables(run)]
    left_out = [paragraph(sentence) for sentence in omissions(run)]
    probes = dict.fromkeys(probe for segment in run.results.segments for probe in segment.probes)
    return join([*([paragraph(coordinates([run], probes))] if compares(run) else []), *tables, *left_out, certificates(run)])


def _environment(run: FinishedRun) -> Html:
    known = run.environment
    versions = ", ".join(f"{name} {version}" for name, version in known.get("versions", {}).items())
    seconds = sum(segment.seconds for segment in run.results.segments)
    pairs = [
        ("started", known.get("started")),
        ("machine", f"{known.get('host')}, {known.get('platform')}"),
        ("device", f"{known.get('device')} ({known.get('device_name')})"),
        ("trained on", trained_on(run)),
        ("Python", known.get("python")),
        ("packages", versions),
        (
            "time in segments",
            f"{seconds:,.0f} s, summed over {len(run.results.segments)} segments, some of which may have run side by side",
        ),
        ("data, SHA-256", known.get("data_sha256")),
    ]
    return join([facts([(name, str(text)) for name, text in pairs if text]), *machines_of(run)])


def _reproduce(run: FinishedRun) -> Html:
    parts = []
    given = command(run)
    if given is not None:
        parts += [paragraph("The command that started it:"), element("pre", element("code", given))]
    parts.append(
        paragraph(
            "Everything that was set, with all defaults, is in ",
            element("code", "config.toml"),
            " of the run directory; ",
            element("code", "anarch run --config config.toml --out NEW"),
            " runs it again. On a CPU of the same kind, with the same versions, the results are the same to the bit.",
        )
    )
    parts.append(folded("config.toml", element("pre", element("code", run.toml))))
    return join(parts)
