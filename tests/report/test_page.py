"""The page: well formed, alone, readable, and true."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.text
import pytest

from anarch_core.errors import RunError
from anarch_core.experiment.results import Unfinished
from anarch_core.files.tables import read_json, write_json
from anarch_core.html import Html, element, table
from anarch_core.plugin import FigureInfo, get_registry
from anarch_core.report import writer
from anarch_core.report.catalogue import OWN, ListedFigure, figures
from anarch_core.report.evidence import FinishedRun
from anarch_core.report.findings import findings, paired
from anarch_core.report.inline_svg import in_the_dark, inline
from anarch_core.report.measurements import probe_tables
from anarch_core.report.settings_text import command, settings_in_words
from anarch_core.report.text import constrained, together
from anarch_core.report.writer import write_report

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Checked(HTMLParser):
    """Reads a page and notes its structure."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and "title" not in self.open:
            self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(made) -> str:
    """With every figure but those of what another order of batches is needed for."""
    return write_report([made(seeds=2)]).path.read_text()


def read(*runs: Path) -> Checked:
    return Checked(write_report(list(runs), runs[0] / "page.html").path.read_text())


def test_is_well_formed_and_every_link_leads_to_a_place_on_it(page):
    checked = Checked(page)
    assert page.startswith("<!doctype html>")
    identities = [attributes["id"] for _, attributes in checked.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    for tag, attributes in checked.tags:
        if (href := attributes.get("href")) is not None and not href.startswith("data:"):
            assert href.removeprefix("#") in identities, (tag, href)
    for reference in re.findall(r"url\(#([^)]+)\)", page):
        assert reference in identities


def test_fetches_nothing(page):
    checked = Checked(page)
    for tag, attributes in checked.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "data"}:
                assert value.startswith(("#", "data:image/png;base64,")), value[:60]
    assert not re.search(r"@import|url\((?!#)", page)
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert "http://" not in outside
    assert "https://" not in outside


def test_can_be_read_aloud_and_in_order(page):
    checked = Checked(page)
    assert checked.named("html") == [{"lang": "en"}]
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in checked.named("svg"))
    levels = [int(tag[1]) for tag, _ in checked.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(attributes.get("scope") in {"col", "row"} for attributes in checked.named("th"))


def test_has_a_drawing_for_wide_and_one_for_narrow_screens(made):
    page = write_report([made(seeds=2, noises=2)]).path.read_text()
    classes = [attributes["class"] for attributes in Checked(page).named("svg")]
    assert classes == ["wide", "narrow"] * len(figures())
    assert 'name="viewport"' in page


def test_tables_scroll_inside_of_their_box(page):
    checked = Checked(page)
    boxes = [attributes for attributes in checked.named("div") if attributes.get("class") == "scroll"]
    assert len(boxes) == len(checked.named("table")) > 5
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)


def test_tells_settings_numbers_environment_and_how_to_reproduce(page):
    text = " ".join(" ".join(Checked(page).text).split())
    for expected in (
        "at:0,2,10: epochs 0, 2, 10",
        "δ from the constrained subspace is 0.4 for t_w = 0",
        "efcn: δ: off-local part over all relaxed weights",
        "All 32 eigenvalues converged; the largest residual is 0.5 % of its eigenvalue",
        "within the error bound, with a probability of 99 %",
        "All 6 embeddings are exact up to rounding",
        "anarch run --relax efcn",
        'switch = "at:0,2,10"',
        "torch 2.6",
    ):
        assert expected in text, expected
    assert "/usr/bin/anarch" not in text


def test_what_was_measured_between_start_and_end_has_a_table_and_certificates(made, one_figure):
    def between(segments):
        for segment in segments:
            segment["probes"]["gradient"]["30it"] = {"norm": 12.5}
            segment["probe_details"]["hessian"]["3ep"] = segment["probe_details"]["hessian"]["end"]

    text = " ".join(" ".join(read(made("between", change=between)).text).split())
    assert "gradient: on the way, 3ep → 30it after the start of the segment" in text
    assert "10.00 → 12.50" in text
    assert "All 24 eigenvalues converged" in text, "of eight segments"


def test_error_bounds_without_a_probability_are_told_to_be_estimates(made, one_figure):
    def measured_before(segments):
        for segment in segments:
            for moment in segment["probe_details"]["hessian"].values():
                moment["lambda_max"] = {key: value for key, value in moment["lambda_max"].items() if key != "confidence"}

    text = " ".join(read(made("before", change=measured_before)).text)
    assert "~1.5e+00" in text
    assert "Bounds marked ~ are estimates" in text


def test_a_probe_that_failed_is_not_called_missing(made):
    def fail(segments):
        for segment in segments:
            for probe in ("delta", "equivariance"):
                for moment in ("start", "end") if probe == "delta" else ("end",):
                    segment["probes"].get(probe, {}).pop(moment, None)
                    segment["probe_notes"].setdefault(probe, {})[moment] = "failed: ValueError: no"

    run = made(change=fail)
    report = write_report([run])
    assert report.missing["Deviation from the constrained subspace"] == "the probe delta failed: ValueError: no"
    text = " ".join(Checked(report.path.read_text()).text)
    assert "failed → failed" in text
    assert "0.2000 → failed" in text
    assert "delta was not run" not in text


def test_what_probes_left_out_is_said_once_and_went_not_wrong(made, one_figure):
    def leave_out(segments):
        for segment in segments:
            segment["probe_notes"] = {"filters": dict.fromkeys(("start", "end"), "measured nothing: no layer is a convolution")}

    text = " ".join(read(made(change=leave_out)).text)
    assert text.count("The probe filters measured nothing: no layer is a convolution.") == 1
    assert "What went wrong" not in text


def test_wide_tables_and_listings_show_that_they_scroll(page):
    style = page[page.index("<style>") : page.index("</style>")]
    assert ".scroll,pre{background:linear-gradient" in style
    assert "background-attachment:local,local,scroll,scroll,scroll" in style


def test_plain_numbers_are_said_to_compare_within_one_network(page, made):
    assert "plain norms and eigenvalues compare only within one network" in page[page.index('<section id="probes">') :]
    alone = write_report([made(probes=["delta"])]).path.read_text()
    assert "compare only within one network" not in alone


def test_averages_and_early_ends_are_told(made, one_figure):
    def averaged(segments):
        segments[0] |= {"ended": "stopped early: train_loss has not improved for 3 epochs (best 0.1 in epoch 7)"}
        for segment in segments:
            segment["probes"].setdefault("delta", {})["average"] = {"off_local": 0.0625}

    text = " ".join(read(made("averaged", change=averaged)).text)
    assert "trunk, seed 0 stopped early: train_loss has not improved for 3 epochs (best 0.1 in epoch 7)." in text
    assert "delta: of the average of the weights" in text
    assert "0.0625" in text


def trained_on(*machines):
    """A change of the hand-written runs: the segments were trained on these machines, in turns."""
    same = {"cpu": "EPYC", "capability": "AVX2", "gpu": None, "torch": "2.6", "threads": 1, "did": "trained"}

    def change(segments):
        for index, segment in enumerate(segments):
            segment["machines"] = [same | machines[index % len(machines)]]

    return change


def test_machines_of_one_kind_are_told_in_a_line(made, one_figure):
    alone = " ".join(read(made(change=trained_on({"host": "here"}))).text)
    assert "trained on EPYC (AVX2), 1 thread, torch 2.6 Python" in alone
    several = " ".join(read(made(change=trained_on({"host": "n1"}, {"host": "n2"}))).text)
    assert "trained on n1; n2: EPYC (AVX2), 1 thread, torch 2.6 Python" in several
    assert "kinds" not in alone + several


def test_machines_of_several_kinds_are_told_with_what_they_trained(made, one_figure):
    text = " ".join(read(made(change=trained_on({"host": "n1"}, {"host": "n2", "gpu": "<H100>"}))).text)
    assert "machines of 2 kinds, see Environment" in text
    assert "Machines of 2 kinds worked on its segments (GPU: none, <H100>). They round differently" in text
    assert "n1 EPYC (AVX2), 1 thread, torch 2.6 trunk, seed 0; efcn at 0ep, seed 0" in text
    assert "n2 <H100>, EPYC (AVX2), 1 thread, torch 2.6 scratch efcn, seed 0" in text


def test_strings_of_users_are_text(made, one_figure):
    def break_out(segments):
        segments[0]["probe_notes"] = {"delta": {"end": "failed: </p><script>alert(1)</script>"}}

    run = made("<b>run & co</b>", change=break_out, failed={"x": Unfinished(title='"><img src=x onerror=alert(2)>', error="<i>")})
    environment = read_json(run / "run.json")
    write_json(run / "run.json", {**environment, "host": "<script>", "command": ["anarch", "run", "--data", "</code><script>"]})
    other = made("</style>")
    checked = read(run, other)
    assert not checked.named("script")
    assert not checked.named("img")
    assert "failed: </p><script>alert(1)</script>" in "".join(checked.text)
    assert any("<b>run & co</b>" in text for text in checked.text)


def test_what_is_missing_is_said(made):
    run = made(probes=["delta"], status="running", skipped={"x": {"title": "efcn at 5ep, seed 0", "error": "the trunk diverged"}})
    report = write_report([run])
    assert report.figures == ["training-curves", "performance", "deviation", "accuracy-histories"]
    assert len(report.missing) == len(figures()) - 4
    text = " ".join(Checked(report.path.read_text()).text)
    assert "the probe ablation was not run; run again with --probe ablation" in text
    assert "The run is running, not finished" in text
    assert "efcn at 5ep, seed 0 was skipped: the trunk diverged" in text


def test_a_figure_that_fails_is_left_out_and_the_page_is_written(made, monkeypatch):
    broken = FigureInfo(name="broken", summary="Fails.", title="Broken one", target="tests_nowhere:nothing")
    monkeypatch.setattr("anarch_core.report.catalogue.OWN", (broken, *OWN))
    monkeypatch.setattr(writer, "figures", lambda: (ListedFigure(broken, get_registry()), figures()[0]))
    report = write_report([made()])
    assert report.figures == ["training-curves"]
    assert report.missing["Broken one"].startswith("it failed: ModuleNotFoundError")
    assert "Broken one: it failed" in "".join(Checked(report.path.read_text()).text)


def test_what_a_figure_says_can_fail_alone(made, monkeypatch):
    def fails(self, series):
        raise ZeroDivisionError

    monkeypatch.setattr("anarch_plugins.probes.delta.figure.Deviation.findings", fails)
    monkeypatch.setattr(writer, "figures", lambda: [kind for kind in figures() if kind.info.name == "deviation"])
    report = write_report([made()])
    assert report.figures == ["deviation"]
    assert report.missing == {
        "Deviation from the constrained subspace": "figure 'deviation' of plugin 'delta' (anarch 0.1.0): ZeroDivisionError"
    }


def test_a_damaged_file_costs_one_figure(made, monkeypatch):
    monkeypatch.setattr(writer, "figures", lambda: [kind for kind in figures() if kind.info.name in ("weight-matrix", "deviation")])
    run = made()
    for file in run.glob("segments/*/probes/weights-*.safetensors"):
        file.write_bytes(b"damaged")
    report = write_report([run])
    assert list(report.missing) == ["A block of the weight matrix"]
    assert "weights-start.safetensors" in report.missing["A block of the weight matrix"]


def test_figures_are_files_too(made, one_figure):
    run = made()
    report = write_report([run])
    assert report.path == run / "report.html"
    assert sorted(file.name for file in (run / "figures").iterdir()) == ["training-curves.png", "training-curves.svg"]


def test_the_same_results_make_the_same_page(made, one_figure):
    run = made()
    first = write_report([run]).path.read_bytes()
    assert write_report([run]).path.read_bytes() == first


def test_several_runs_make_one_page_beside_their_figures(made, tmp_path, one_figure):
    report = write_report([made("one"), made("two")], tmp_path / "both.html")
    assert report.folder == tmp_path / "both-figures"
    checked = Checked(report.path.read_text())
    assert "".join(checked.text).count("two") > 5


def test_runs_of_the_same_name_are_told_apart(made, tmp_path, one_figure):
    report = write_report([made("run"), made("run")], tmp_path / "out.html")
    text = "".join(Checked(report.path.read_text()).text)
    assert "run (1)" in text
    assert "run (2)" in text


def test_what_holds_no_run_is_refused(tmp_path, made):
    with pytest.raises(RunError, match=r"holds no results: there is no results\.json in it"):
        write_report([tmp_path])
    empty = made(change=lambda segments: segments.clear())
    with pytest.raises(RunError, match="has no finished segment yet"):
        write_report([empty])


class TestFindings:
    def test_they_compare_with_the_cnn_the_control_and_scratch(self, made):
        [said, doubts] = findings(FinishedRun.read(made()), {"efcn": ["A figure says more."]})
        assert said.endswith(" A figure says more.")
        said = said.replace("\u00a0", " ")
        assert (
            "The best efcn branch is the one that switched at epoch 10; it ends at a test accuracy of 85.0 %, the CNN itself at 80.0 %."
            in said
        )
        assert "1 of 3 branches ends above the CNN (t_w = 10)." in said
        assert "at t_w = 10 the difference is +6.0 points" in said
        assert "reaches 50.0 %; all 3 branches end above that" in said
        assert "one seed" in doubts

    def test_seeds_are_paired_with_their_own_control(self, made):
        [said, doubts] = findings(FinishedRun.read(made(seeds=3)))
        assert "+6.0 points, 95 % t‑interval +6.0 to +6.0 (paired over 3 seeds, ahead in 3)" in said.replace("\u00a0", " ")
        assert "one seed" not in doubts

    def test_a_missing_control_is_a_doubt(self, made):
        assert "There is no control" in findings(FinishedRun.read(made(controls=False)))[-1]

    def test_branches_that_were_trained_longer_than_the_cnn_are_told(self, made):
        def lengthen(segments):
            for segment in segments:
                if segment["kind"] == "branch" and segment["switch_epoch"] == 10.0:
                    segment["epochs"] = 15.0

        settings = ({}, {"change": lengthen}, {"change": lengthen, "controls": False})
        fair, unfair, alone = (findings(FinishedRun.read(made(**how)))[-1].replace("\xa0", " ") for how in settings)
        assert "epochs in all" not in fair  # 10 epochs after 10 are the CNN's 20
        told = "The branch with t_w = 10 had more epochs in all (25) than the CNN (20)"
        assert f"{told}; the fair comparison is with the CNN continued, which had as many." in unfair
        assert f"{told}, and there is no control that continued the CNN" in alone

    def test_epochs_in_all_are_counted_through_the_stages_of_a_path(self, made):
        def stage(segments):
            first, second = (segment for segment in segments if segment["switch_epoch"] in (2.0, 10.0) and segment["kind"] == "branch")
            second |= {"parent": first["id"], "parent_iteration": 12}

        run = FinishedRun.read(made(change=stage))
        [*_, second] = run.segments("branch")
        assert run.epochs_in_all(second) == 2 + 3 + 10  # 12 steps of 4 an epoch

    def test_two_seeds_have_no_interval_and_three_a_wide_one(self, made):
        [said, doubts] = findings(FinishedRun.read(made(seeds=2)))
        assert "+6.0 points (paired over 2 seeds, ahead in 2)" in said.replace("\u00a0", " ")
        assert "There are 2 seeds, too few for an interval" in doubts

        def differ(segments):
            for segment in segments:
                if segment["kind"] == "continued":
                    segment["final"]["test_accuracy"] += 3 * segment["seed"]

        run = FinishedRun.read(made(seeds=3, change=differ))
        said = findings(run)[0].replace("\u00a0", " ")
        assert "the difference is +3.0 points, 95 % t‑interval −4.5 to +10.5 (paired over 3 seeds, ahead in 2; it includes 0)" in said
        [table] = paired(run)
        assert table.headings == ["t_w", "seed 0", "seed 1", "seed 2", "mean", "95 % interval"]
        assert table.rows[-1] == ["10", "+6.0", "+3.0", "+0.0", "+3.0", "−4.5 to +10.5"]
        assert paired(FinishedRun.read(made())) == []

    def test_the_size_of_the_test_set_is_told_with_its_standard_error(self, made):
        run = made()
        doubts = findings(FinishedRun.read(run))[-1].replace("\xa0", " ")
        assert "The test set has 1,000 samples, so an accuracy of 72 % has a standard error of 1.4 points (binomial)" in doubts
        write_json(run / "run.json", {**read_json(run / "run.json"), "samples": {}})
        assert "binomial" not in findings(FinishedRun.read(run))[-1]

    def test_lower_scores_are_better_where_the_objective_says_so(self, made, judged_by_error):
        run = FinishedRun.read(made(change=judged_by_error.change, objective=judged_by_error.record))
        [said, doubts] = (text.replace("\u00a0", " ") for text in findings(run))
        assert "switched at epoch 10; it ends at a test root mean square error of 0.1500, the CNN itself at 0.2000." in said
        assert "1 of 3 branches ends below the CNN (t_w = 10)." in said
        assert "1 of 3 branches ends ahead (t_w = 10); at t_w = 10 the difference is −0.0600." in said
        assert "reaches 0.5000; all 3 branches end below that" in said
        assert "picked by the test root mean square error" in doubts
        assert "The test set has 1,000 samples." in doubts  # no part of samples that are right, so no binomial error
        assert "point" not in said + doubts

    def test_a_run_that_relaxes_nothing_claims_nothing(self, made):
        assert findings(FinishedRun.read(made(relaxations=(), seeds=2))) == []

    def test_quantities_stay_on_one_line(self):
        assert together("at t_w = 20 it is -2.3 ± 0.1 %, lr-free") == "at t_w\u00a0=\u00a020 it is −2.3\u00a0±\u00a00.1\u00a0%, lr-free"


class TestPieces:
    def test_text_is_escaped_and_html_is_not(self):
        assert element("p", "<&>", Html("<b>x</b>"), title='"') == '<p title="&quot;">&lt;&amp;&gt;<b>x</b></p>'

    def test_table_marks_headings_and_numbers(self):
        made = table("caption", ["name", "n"], [["a", "1"], ["b", "2"]], strong=[1])
        assert '<th scope="row">a</th><td class="number">1</td>' in made
        assert '<tr class="strong"><th scope="row">b</th>' in made

    def test_drawings_get_identities_of_their_own(self):
        use = '<use xlink:href="#m" style="fill: #ff0000; clip-path: url(#m)"/>'
        drawing = f'<?xml?><svg viewBox="0 0 100 50"><defs><path id="m"/></defs>{use}</svg>'
        made = inline(drawing, "fig", "A <title>", "wide")
        assert 'id="fig-m"' in made
        assert 'href="#fig-m"' in made
        assert "url(#fig-m)" in made
        assert "fill: var(--cff0000, #ff0000)" in made
        assert made.startswith('<svg class="wide" role="img" aria-label="A &lt;title&gt;" viewBox="0 0 100 50"')

    @pytest.mark.parametrize(("colour", "lighter"), [("000000", True), ("ffffff", False), ("440154", True), ("d9d9d9", False)])
    def test_colours_stand_out_from_a_dark_ground(self, colour, lighter):
        def brightness(text):
            return sum(int(text[index : index + 2], 16) for index in (0, 2, 4))

        assert (brightness(in_the_dark(colour)[1:]) > brightness(colour)) == lighter

    def test_a_run_from_python_has_no_command(self, made):
        run = made()
        write_json(run / "run.json", {**read_json(run / "run.json"), "command": ["script.py"]})
        assert command(FinishedRun.read(run)) is None


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", "null"),
        ("run.json", '{"versions": ["torch"]}'),
        ("run.json", '{"command": "anarch"}'),
        ("config.toml", "run = 3"),
        ("config.toml", "[training]"),
        ("config.toml", "a = " + "[" * 5000),
        ("results.json", "[]"),
    ],
)
def test_a_file_that_is_no_record_of_a_run_is_refused_in_one_line(made, file, content):
    run = made()
    (run / file).write_text(content)
    with pytest.raises(RunError, match=rf"{file}\b") as caught:
        FinishedRun.read(run)
    assert len(str(caught.value)) < 300


def test_settings_of_any_type_are_shown_as_they_are(made, one_figure):
    run = made()
    (run / "config.toml").write_text('[run]\nseeds = 3\ncontrol = [["continued"]]\nvalidation = "some"\nlr = [1]\n')
    assert "some held out for validation" in write_report([run]).path.read_text()


def texts_of(figure) -> str:
    """Everything that is written into a drawing."""
    return " ".join(found.get_text() for found in figure.findobj(matplotlib.text.Text))


@pytest.mark.parametrize(("model", "called"), [("cnn1d", "CNN"), ("p4-cnn:8", "CNN"), ("vit", "constrained network"), ("my.own:net", None)])
def test_a_network_is_called_what_it_is(made, model: str, called: str | None):
    run = FinishedRun.read(made(model=model, seeds=2))
    assert run.constrained == (called or "constrained network")
    said = [*findings(run), *(table.caption for table in paired(run)), *(text for _, text in settings_in_words(run))]
    said += [text for _, text in probe_tables(run)] + [figure.caption([run]) for figure in figures()]
    drawn = [figure for figure in figures() if figure.info.name in ("performance", "training-curves", "filters")]
    drawings = [texts_of(figure.draw([run])) for figure in drawn]
    told = " ".join([*said, *drawings]).replace("move that of a CNN too", "")
    assert f"the {run.constrained} itself at 80.5" in told
    assert f"{run.constrained} continued" in drawings[1]
    assert f"receptive field of the {run.constrained}" in drawings[2]
    assert ("CNN" in told) == (called == "CNN")


def test_networks_of_several_runs_have_a_name_in_common(made):
    cnn, other = FinishedRun.read(made("one")), FinishedRun.read(made("other", model="vit"))
    assert constrained([cnn, cnn]) == "CNN"
    assert constrained([cnn, other]) == constrained([other]) == "constrained network"


def test_shared_parts_of_weights_that_were_equal_are_compared_with_none(made):
    def equal(segments):
        for segment in segments:
            if segment["kind"] == "branch":
                segment["probe_details"].setdefault("hessian", {}).setdefault("start", {})["incomparable"] = "weights of cell were equal"

    run = FinishedRun.read(made(model="rnn1d", change=equal))
    performance = next(figure for figure in figures() if figure.info.name == "performance")
    score, gradient, curvature = performance.draw([run]).axes
    assert "constrained network" in score.get_legend_handles_labels()[1]
    assert "constrained network" in gradient.get_legend_handles_labels()[1]
    assert not {"constrained network", "constrained network continued"} & set(curvature.get_legend_handles_labels()[1])
    caption = performance.caption([run])
    assert "none of its norms and eigenvalues compares with one of the relaxed network" in caption
    assert "equal at the switch" not in caption
