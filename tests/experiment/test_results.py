"""results.json and the summary."""

from __future__ import annotations

import io
import json

import attrs
import pytest
from rich.console import Console

from anarch_core.errors import RunError
from anarch_core.experiment.results import Results, Unfinished
from anarch_core.experiment.segment_result import Scores, SegmentResult
from anarch_core.experiment.store import RunStore
from anarch_core.experiment.summary import rows, spread, summary
from anarch_core.files.tables import read_table, sealed, write_json
from anarch_core.objective import Metric


def entry(kind, test, *, relaxation=None, switch=None, seed=0, delta=None, diverged=None):
    scores = Scores(train_loss=0.1, train_accuracy=99.0, test_loss=0.4, test_accuracy=test)
    return SegmentResult(
        id=f"{kind}{relaxation}{switch}{seed}",
        kind=kind,
        seed=seed,
        relaxation=relaxation,
        parent=None,
        parent_iteration=None,
        switch_epoch=switch,
        switch_iteration=None if switch is None else int(4 * switch),
        epochs=2,
        iterations_per_epoch=4,
        parameters=5210,
        diverged_epoch=diverged,
        final=scores,
        start=Scores({**scores, "test_accuracy": 10.0}),
        exactness=None,
        optimizer_state=None,
        probes={} if delta is None else {"delta": {"start": {"off_local": 0.0}, "end": {"off_local": delta}}},
        probe_details={},
        probe_notes={},
        switches=[],
        seconds=1.5,
        history=[{"epoch": 0, "test_accuracy": 10.0}],
    )


SEGMENTS = (
    entry("trunk", 88.8),
    entry("branch", 89.8, relaxation="efcn", switch=10.0, delta=0.0468),
    entry("branch", 72.8, relaxation="efcn", switch=2.0, delta=0.43),
    entry("continued", 87.0, switch=2.0),
    entry("continued", 88.0, switch=10.0),
    entry("scratch", 61.9, relaxation="efcn", delta=0.92),
)
HEADLINES = {"delta": ["off_local"]}
ACCURACY = Metric(name="accuracy", label="accuracy", unit="%")


def test_rows_are_trunk_scratch_then_branches_by_switch_time_with_their_control_beside():
    lines = rows(SEGMENTS, HEADLINES, ACCURACY)
    assert [(line.name, line.switch, list(line.test), list(line.continued), line.best) for line in lines] == [
        ("trunk", None, [88.8], [], False),
        ("scratch efcn", None, [61.9], [], False),
        ("efcn", 2.0, [72.8], [87.0], False),
        ("efcn", 10.0, [89.8], [88.0], True),
    ]
    assert [list(line.probes["delta", "off_local"]) for line in lines] == [[], [0.92], [0.43], [0.0468]]


def test_seeds_share_a_row():
    lines = rows([entry("trunk", 88.0, seed=0), entry("trunk", 90.0, seed=1)], {}, ACCURACY)
    assert [list(line.test) for line in lines] == [[88.0, 90.0]]
    assert spread(lines[0].test, 1) == "89.0 ± 1.4"


def test_spread_of_one_seed_is_its_value_and_of_none_a_dash():
    assert spread([88.84], 1) == "88.8"
    assert spread([], 1) == "–"


def test_controls_without_a_branch_have_rows_of_their_own():
    lines = rows([entry("trunk", 88.0), entry("continued", 87.0, switch=2.0)], {}, ACCURACY)
    assert [(line.name, line.switch) for line in lines] == [("trunk", None), ("continued", 2.0)]


def test_a_diverged_seed_is_counted_and_not_averaged():
    group = [entry("trunk", 88.0, seed=0), entry("trunk", 9.8, seed=1, diverged=3)]
    [line] = rows(group, {}, ACCURACY)
    assert (list(line.test), line.diverged) == ([88.0], 1)


def results(path, segments=SEGMENTS):
    return Results(path=path, data="mnist1d", model="cnn1d", status="finished", segments=segments, headlines=HEADLINES)


def test_table_fits_eighty_columns_and_is_aligned(tmp_path):
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(results(tmp_path).table())
    text = console.file.getvalue()
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in text
    body = [line for line in lines if line.strip().startswith(("trunk", "scratch", "efcn"))]
    assert len(body) == 4
    columns = {line.index(number) + len(number) for line, number in zip(body, ["88.8", "61.9", "72.8", "89.8"], strict=True)}
    assert len(columns) == 1
    assert [line.count("*") for line in body] == [0, 0, 0, 1]


def test_columns_that_do_not_fit_go_into_further_tables(tmp_path):
    seeds = tuple(attrs.evolve(segment, seed=seed) for seed in (0, 1) for segment in SEGMENTS)
    console = Console(file=io.StringIO(), width=80, color_system=None)
    several = Results(path=tmp_path, data="d", model="m", status="finished", segments=seeds, headlines={"delta": ["off_local"] * 6})
    console.print(several.table())
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.count("scratch efcn") == 3
    assert text.count("0.0468 ± 0.0000") == 6


def test_numbers_in_coordinates_that_compare_are_shown_instead_of_plain_ones():
    found = {"norm": 3.0, "norm_shared": 1.0}
    segments = [attrs.evolve(segment, probes={"gradient": {"end": found}}) for segment in SEGMENTS]
    table = summary(segments, {"gradient": ["norm"]}, ACCURACY)
    assert table.headings[-1] == "norm_shared"
    assert {line[-1] for line in table.lines} == {"1.000"}


def test_a_score_that_is_better_when_lower_is_told_by_its_name_and_without_percent():
    found = {"train_loss": 0.1, "test_loss": 0.1, "train_rmse": 0.05}
    errors = (0.31, 0.125, 0.25, 0.2, 0.2, 0.5)
    segments = [
        attrs.evolve(segment, start=Scores(found | {"test_rmse": 1.0}), final=Scores(found | {"test_rmse": error}))
        for segment, error in zip(SEGMENTS, errors, strict=True)
    ]
    table = summary(segments, {}, Metric(name="rmse", label="root mean square error", higher_is_better=False, digits=4))
    assert "* lowest test root mean square error of a branch" in table.caption
    assert "%" not in table.caption
    assert [table.lines[index][:6] for index in table.best] == [["efcn", "10", "1.0000", "0.0500", "0.1250", "*"]]


def test_a_probe_that_failed_is_called_failed():
    notes = {"delta": {"end": "failed: no memory"}}
    broken = [attrs.evolve(segment, probes={}, probe_notes=notes) for segment in SEGMENTS]
    assert {line[-1] for line in summary(broken, HEADLINES, ACCURACY).lines} == {"failed"}
    other = attrs.evolve(SEGMENTS[1], seed=1, probes={}, probe_notes=notes)
    assert summary([SEGMENTS[1], other], HEADLINES, ACCURACY).lines[0][-1] == "0.0468 (1 failed)"


def test_results_of_another_schema_are_refused(tmp_path):
    results(tmp_path).write()
    file = tmp_path / "results.json"
    file.write_text(file.read_text().replace('"schema": "1.1"', '"schema": "2.0"'))
    with pytest.raises(RunError, match=r"has schema '2\.0', expected '1\.1'"):
        Results.read(tmp_path)


def test_unknown_keys_of_a_newer_minor_version_are_ignored(tmp_path):
    results(tmp_path).write()
    file = tmp_path / "results.json"
    table = {**read_table(file), "schema": "1.7", "mood": "fine"}
    del table["digest"]
    write_json(file, sealed(table))
    assert Results.read(tmp_path).segments == results(tmp_path).segments


def test_what_is_read_back_is_what_was_written(tmp_path):
    written = attrs.evolve(results(tmp_path), failed={"x": Unfinished(title="efcn at 2ep, seed 0", error="no luck")})
    written.write()
    assert Results.read(tmp_path) == written
    assert Results.read(tmp_path).segments[1].scalars("delta", "end") == {"off_local": 0.0468}
    assert Results.read(tmp_path).segments[1].scalars("hessian", "end") == {}


def unsealed(path, **changed):
    """Rewrite a file as a version would that wrote no digests."""
    table = {**read_table(path), **changed}
    table.pop("digest", None)
    table.pop("left", None)
    write_json(path, table)


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (None, "expected a table with .*'seed'"),
        ({"id": "x"}, "expected a table with .*'seed'"),
        ({**entry("trunk", 88.8).to_json(), "final": []}, "expected a table with .*'train_loss'"),
        ({**entry("trunk", 88.8).to_json(), "seed": "0"}, "expected a whole number as .*seed', got '0'"),
        (
            {**entry("trunk", 88.8).to_json(), "probes": {"delta": {"end": {"off_local": True}}}},
            "expected a finite number as .*probes.delta.end",
        ),
        ({**entry("trunk", 88.8).to_json(), "history": {}}, "expected a list as .*history'"),
    ],
)
def test_a_segment_that_anarch_did_not_write_is_refused_by_file_and_key(tmp_path, broken, what):
    results(tmp_path).write()
    whole, single = RunStore(tmp_path).results_file, RunStore(tmp_path).segment("x").result_file
    unsealed(whole, schema="1.0", segments=[broken])
    single.parent.mkdir(parents=True)
    single.write_text(json.dumps(broken))
    with pytest.raises(RunError, match=f"{whole} is not what anarch wrote: {what}"):
        Results.read(tmp_path)
    with pytest.raises(RunError, match=f"{single} is not what anarch wrote: expected a table" if broken is None else f"{single} .*{what}"):
        RunStore(tmp_path).segment("x").finished()


@pytest.mark.parametrize("key", ["data", "segments", "failed"])
def test_results_without_a_key_are_refused_by_name(tmp_path, key):
    results(tmp_path).write()
    file = tmp_path / "results.json"
    content = {**json.loads(file.read_text()), "schema": "1.0"}
    del content[key], content["digest"]
    file.write_text(json.dumps(content))
    with pytest.raises(RunError, match=f"results.json is not what anarch wrote: .*'{key}'"):
        Results.read(tmp_path)


@pytest.mark.parametrize(("written", "instead"), [("0.43", "0.42"), ('"schema": "1.1"', '"schema": "1.0"'), ("digest", "digust")])
def test_results_that_were_altered_are_refused(tmp_path, written, instead):
    results(tmp_path).write()
    file = tmp_path / "results.json"
    file.write_text(file.read_text().replace(written, instead))
    with pytest.raises(RunError, match=r"results\.json was altered"):
        Results.read(tmp_path)


def test_the_caption_says_what_does_not_compare_with_the_trunk():
    measured = {"hessian": {"end": {"lambda_max": 2.0, "lambda_max_shared": 1.0}}}
    told = {"hessian": {"end": {"incomparable": "weights of cell were equal"}}}
    trunk = attrs.evolve(entry("trunk", 88.8), probes=measured)
    alike = attrs.evolve(entry("branch", 89.8, relaxation="efcn", switch=2.0), probes=measured)
    alone = attrs.evolve(alike, probe_details=told)
    headlines = {"hessian": ["lambda_max"]}
    said = "lambda_max_shared of a network with weights that were equal: not comparable with the trunk's"
    assert said in summary([trunk, alone], headlines, ACCURACY).caption
    assert said not in summary([trunk, alike], headlines, ACCURACY).caption
    assert said not in summary([trunk, alone], {}, ACCURACY).caption


def test_moments_between_start_and_end_ascend():
    moments = {moment: {"loss": 1.0} for moment in ("start", "end", "10ep", "9it", "2ep", "average")}
    segment = attrs.evolve(entry("branch", 89.8, relaxation="efcn", switch=2.0), probes={"hessian": moments}, iterations_per_epoch=4)
    assert list(segment.moments_between.items()) == [("2ep", 2.0), ("9it", 2.25), ("10ep", 10.0)]
    assert segment.overview().tables[0].headings == ["", "start", "2ep", "9it", "10ep", "end"]
