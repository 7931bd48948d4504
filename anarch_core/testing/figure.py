"""What a figure of reports promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
import matplotlib as mpl
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file

from anarch_core.config.resolution import resolve
from anarch_core.report.catalogue import ListedFigure
from anarch_core.report.evidence import FinishedRun, NothingToDrawError
from anarch_core.report.figure import Table
from anarch_core.report.figures.style import svg
from anarch_core.running.runner import run
from anarch_core.testing.component import ComponentConformance


@attrs.frozen(kw_only=True)
class Sample:
    """Two finished runs that differ in nothing but their probes.

    Attributes:
        measured: with the probes that the figure needs.
        plain: without any probe.
    """

    measured: FinishedRun
    plain: FinishedRun


_SAMPLES: dict[tuple[object, ...], FinishedRun] = {}


class FigureConformance(ComponentConformance):
    """Tests of a figure, on runs of a few seconds.

    Attributes:
        relaxation: what the runs relax to.
        model: the network, on signals [1, 16].
        model_options: its options, by field name.
        probe_options: by probe that the figure needs, options by field name, where its defaults do not do for a small network.
        settings: of the runs, where the probes need more than a trunk, two branches and both controls: ``{"noise_seeds": "0,1"}``.
    """

    kind = "figure"
    relaxation: ClassVar[str] = "efcn"
    model: ClassVar[str] = "cnn1d"
    model_options: ClassVar[Mapping[str, Any]] = {"channels": 3}
    probe_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    settings: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(name="sample")
    def _sample(self, tmp_path_factory: pytest.TempPathFactory) -> Sample:
        return self.sample(tmp_path_factory.mktemp("runs"))

    def sample(self, folder: Path) -> Sample:
        """The runs to draw; override for a figure that shows what signals and a small network do not have."""
        options = {name: dict(self.probe_options.get(name, {})) for name in self.info.needs}
        measured = self._finished(folder / "measured", options)
        return Sample(measured=measured, plain=self._finished(folder / "plain", {}))

    @property
    def figure(self) -> ListedFigure:
        """The figure, asked as the page asks it."""
        return ListedFigure(self.info, self.registry)

    def test_needs_are_probes(self) -> None:
        """`needs` names probes that are installed, and the title is one line."""
        missing = [name for name in self.info.needs if name not in self.registry.names("probe")]
        assert not missing, f"`needs` names {', '.join(missing)}, which no installed plugin provides as a probe"
        assert self.info.title.strip() and "\n" not in self.info.title, f"`title` is a heading of one line: {self.info.title!r}"

    def test_is_drawn_wide_and_narrow(self, sample: Sample) -> None:
        """A run with the probes that it needs, and no others, is drawn for wide and for narrow pages."""
        for narrow in (False, True):
            drawn = self._drawn([sample.measured], narrow=narrow)
            assert any(axes.has_data() for axes in drawn.axes), (
                f"with narrow={narrow} there is nothing in its panels; name all probes that it shows in `needs`, "
                "or raise NothingToDrawError"
            )

    def test_runs_stand_side_by_side(self, sample: Sample) -> None:
        """Several runs are drawn together, also where the probes ran in some of them only."""
        other = attrs.evolve(sample.plain, label="other")
        for runs in ([sample.measured, attrs.evolve(sample.measured, label="other")], [other, sample.measured], [sample.measured, other]):
            try:
                self._drawn(runs)
            except Exception as error:
                msg = f"of two runs it raised {type(error).__name__}: {error}; draw what there is: a probe need not have run in all"
                raise AssertionError(msg) from error

    def test_has_a_caption(self, sample: Sample) -> None:
        """The caption of every choice of runs is text that ends with a full stop."""
        for runs in ([sample.measured], [sample.measured, attrs.evolve(sample.plain, label="other")]):
            caption = self.figure.caption(runs)
            assert isinstance(caption, str) and caption.strip().endswith("."), f"the caption is a text of full sentences: {caption!r}"

    def test_says_what_is_missing(self, sample: Sample) -> None:
        """Where no probe ran, and where there is no branch, it is drawn, or refused in one line by NothingToDrawError."""
        results = sample.measured.results
        trunk = [segment for segment in results.segments if segment.kind == "trunk"]
        for run_, what in (
            (sample.plain, "on a run without probes"),
            (attrs.evolve(sample.measured, results=attrs.evolve(results, segments=tuple(trunk))), "on a run without branches"),
        ):
            try:
                self.figure.draw([run_])
            except NothingToDrawError as error:
                assert "\n" not in str(error), f"refuse in one line: {error}"
            except Exception as error:
                msg = (
                    f"{what} it raised {type(error).__name__}: {error}; name the probes that it shows in `needs`, "
                    "and raise NothingToDrawError where something else is missing"
                )
                raise AssertionError(msg) from error

    def test_leaves_settings_of_matplotlib_alone(self, sample: Sample) -> None:
        """Drawing changes no setting of matplotlib, and looks the same whatever they are."""
        before = dict(mpl.rcParams)
        plain = svg(self._drawn([sample.measured]))
        changed = [name for name, value in before.items() if mpl.rcParams[name] != value]
        mpl.rcParams.update({name: before[name] for name in changed})
        assert not changed, f"drawing changed the settings {', '.join(changed)}; decorate draw() with anarch_core.report.styled instead"
        with mpl.rc_context({"font.size": 30, "axes.grid": False, "lines.linewidth": 9}):
            again = svg(self._drawn([sample.measured]))
        assert again == plain, "it is not the same figure under other settings; decorate draw() with anarch_core.report.styled"

    def test_what_it_says_is_valid(self, sample: Sample) -> None:
        """Findings are sentences, and rows of tables have as many cells as there are headings, all of them texts."""
        for run_ in (sample.measured, sample.plain):
            for series in run_.series:
                said = self.figure.findings(series)
                wrong = [text for text in said if not isinstance(text, str) or not text.strip().endswith(".")]
                assert not isinstance(said, str) and not wrong, f"findings() gives a list of full sentences, not {wrong or said!r}"
            for table in self.figure.tables(run_):
                assert isinstance(table, Table), f"tables() gives a {type(table).__name__}, expected anarch_core.report.Table"
                for row in (table.headings, *table.rows):
                    assert len(row) == len(table.headings), f"{table.caption}: {len(row)} cells under {len(table.headings)} headings: {row}"
                    assert all(isinstance(cell, str) for cell in row), f"{table.caption}: cells are texts; format the numbers: {row}"
        assert self.figure.figure.heading.strip(), "`heading` is the title of the section with its tables"

    def _drawn(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        drawn = self.figure.draw(runs, narrow=narrow)
        assert isinstance(drawn, Figure), f"draw() gives a {type(drawn).__name__}, expected a matplotlib.figure.Figure"
        return drawn

    def _finished(self, folder: Path, probes: Mapping[str, Mapping[str, Any]]) -> FinishedRun:
        """A run on thirty signals with two branches and both controls, made once for every choice of probes."""
        key = (self.relaxation, self.model, repr(self.model_options), repr(probes), repr(self.settings))
        if key not in _SAMPLES:
            generator = torch.Generator().manual_seed(0)
            y = torch.arange(30) % 3
            x = torch.sin(torch.arange(16) * (y[:, None] + 1) * 0.7)[:, None, :] + 0.5 * torch.randn(30, 1, 16, generator=generator)
            folder.mkdir(parents=True)
            save_file({"x": x, "y": y, "x_test": x.clone(), "y_test": y.clone()}, folder / "signals.safetensors")
            settings = {
                "data": f"tensors:{folder / 'signals.safetensors'}",
                "model": self.model,
                "batch_size": 10,
                "relax": self.relaxation,
            }
            settings |= {"switch": "at:0,1", "epochs": 1, "branch_epochs": 1, "probe": tuple(probes), "control": "continued,scratch"}
            settings |= self.settings if probes else {name: value for name, value in self.settings.items() if name != "probe_at"}
            settings |= {"jobs": 1, "threads": 1, "device": "cpu", "options": {self.model: dict(self.model_options), **probes}}
            run(resolve(settings, registry=self.registry), out=folder / "run", registry=self.registry, progress="silent")
            _SAMPLES[key] = FinishedRun.read(folder / "run", "measured" if probes else "plain")
        return _SAMPLES[key]
