from __future__ import annotations

import datetime
import math
import pickle
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anarch_core.config.learning_rate import LearningRate
from anarch_core.config.resolution import resolve
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError


def test_values_may_be_written_as_on_the_command_line():
    config = RunConfig(relax="efcn,lcn", seeds="0,3-5", layers=["features.*,!features.0"], control="none", jobs="auto", data_root="data")
    assert config.relax == ("efcn", "lcn")
    assert config.seeds == (0, 3, 4, 5)
    assert config.layers == ("features.*", "!features.0")
    assert config.control == ()
    assert config.jobs is None
    assert config.data_root == Path("data")


@given(st.lists(st.integers(0, 99), min_size=1))
def test_seeds_given_in_any_form_are_the_same(seeds):
    distinct = tuple(dict.fromkeys(seeds))
    assert RunConfig(seeds=seeds).seeds == RunConfig(seeds=",".join(map(str, seeds))).seeds == distinct


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ()),
        ({"relax": "efcn"}, ("continued", "scratch")),
        ({"path": "lcn@1"}, ("continued", "scratch")),
        ({"relax": "efcn", "control": "scratch"}, ("scratch",)),
        ({"control": "continued"}, ("continued",)),
    ],
)
def test_both_controls_run_by_default_where_there_is_something_to_compare(values, expected):
    assert RunConfig(**values).control == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("epochs", True),
        ("epochs", "10"),
        ("batch_size", -1),
        ("lr", 0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("lr", "0.1"),
        ("relax", 3),
        ("relax", "efcn,,lcn"),
        ("seeds", "3-1"),
        ("seeds", -1),
        ("seeds", True),
        ("control", "both"),
        ("precision", "float16"),
        ("precision", ["float32"]),
        ("optimizer_state", "keep"),
        ("device", "cuda:x"),
        ("device", "gpu"),
        ("validation", 1),
        ("validation", -0.1),
        ("validation", 2.5),
        ("lr_schedule", "linear"),
        ("jobs", 0),
        ("data", ""),
        ("data_root", 3),
        ("path", ""),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused_in_one_line_that_names_the_setting(name, value):
    with pytest.raises(ConfigError) as caught:
        RunConfig(**{"relax": "efcn", name: value})
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("epochs", [10**7, 10**400, 10**5000, "9" * 5000, math.nan]),
        ("lr", [1e308, 1e7, 10**400, 10**5000, -0.0]),
        ("batch_size", [10**10, -(10**5000)]),
        ("validation", [math.nan, math.inf, 10**400]),
        ("jobs", [1025, 10**400]),
        ("threads", [1025, "many"]),
        ("seeds", ["0-99999999", "0-" + "9" * 5000, 10**19, [10**5000], range(3), "٣", "5-1", list(range(10_001))]),
        ("data_root", ["~nobody-here/x", "a\0b", "\udcff", "x" * 300, "x/" * 5000, Path("~nobody-here")]),
        ("data", ["x" * 100_000, "\0", "\udcff", b"x", datetime.date(2026, 1, 1)]),
        ("relax", [",".join(["efcn"] * 2000), {}, "x" * 100_000]),
        ("path", ["lcn@" + "9" * 5000, ["lcn@1"] * 2000]),
        ("lr_schedule", ["step:1@1e300", "step:" + "9" * 5000]),
        ("device", ["cuda:" + "9" * 5000, "cuda:٣", "cuda:1," * 5000, ["cuda:0", "cpu"], [], [["cuda:0"]]]),
        ("precision", [{"a": 1}, "x" * 100_000]),
        ("options", [None, 7, {"sgd": 3}, ["sgd"]]),
    ],
)
def test_a_value_at_the_edge_is_refused_in_few_words_that_name_the_setting(name, values):
    for value in values:
        with pytest.raises(ConfigError, match=f"^{name}: ") as caught:
            RunConfig(**{"relax": "efcn", name: value})
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 10**6), ("lr", 5e-324), ("lr", 10**6), ("seeds", "0-9999"), ("seeds", 2**63 - 1), ("validation", 10**9), ("jobs", 1024)],
)
def test_the_ends_of_a_range_belong_to_it(name, value):
    RunConfig(**{name: value})


def test_a_zero_without_a_sign_makes_no_other_experiment():
    assert RunConfig(validation=-0.0).digest == RunConfig(validation=0.0).digest


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"control": "scratch"}, "there is no relaxation"),
        ({"path": "lcn@20", "epochs": 10}, "leaves the trunk at epoch 20"),
        ({"path": "lcn[features.0]@1", "layers": "*,!head"}, "says itself which layers it relaxes; leave --layers out"),
        ({"optimizer_state": "carry"}, "needs a switch"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig(**values)


def test_learning_rates_of_trunk_and_branch():
    config = RunConfig(lr=0.2, lr_schedule="step:1", epochs=7, branch_lr=0.03, branch_lr_schedule="cosine", branch_epochs=5)
    assert config.learning_rate(branch=False) == LearningRate(base=0.2, epochs=7, kind="step", milestones=(1,))
    assert config.learning_rate(branch=True) == LearningRate(base=0.03, epochs=5, kind="cosine")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"lr_schedule": "warmup:7", "epochs": 7}, "^lr_schedule: the warm-up of 7ep leaves nothing"),
        ({"branch_lr_schedule": "warmup:7+cosine", "branch_epochs": 5}, "^branch_lr_schedule: the warm-up"),
        ({"branch_lr_schedule": "cosine:0.1", "branch_lr": 0.05}, "^branch_lr_schedule: 'cosine:0.1' ends at 0.1, above the 0.05"),
    ],
)
def test_a_learning_rate_that_does_not_fit_its_stretch_is_refused(settings, why):
    with pytest.raises(ConfigError, match=why):
        RunConfig(**settings)


def test_where_and_how_fast_a_run_is_done_does_not_make_it_another_experiment():
    config = RunConfig(relax="efcn")
    same = attrs.evolve(config, jobs=3, threads=2, device="cpu", out="elsewhere", recipe="mnist1d")
    assert same.digest == config.digest
    assert attrs.evolve(config, seeds=1).digest != config.digest
    assert attrs.evolve(config, options={"sgd": {"momentum": 0.9}}).digest != config.digest


def test_worker_processes_can_be_given_a_configuration():
    config = RunConfig(relax="efcn", options={"sgd": {"momentum": 0.9}})
    assert pickle.loads(pickle.dumps(config)) == config


def test_every_setting_is_explained():
    for field in attrs.fields(RunConfig):
        assert field.name == "options" or field.metadata["help"].endswith(".")


def test_settings_that_came_later_leave_names_of_runs_as_they_were() -> None:
    """The digests are those of the version before there were objectives, augmentations, averages and the like."""
    assert RunConfig().digest == "0ad1dbfa"
    assert resolve({"relax": "efcn", "probe": "delta"}).digest == "46addd48"
    for later in (
        {"clip_norm": 1.0},
        {"average": "ema:0.9"},
        {"augment": "flip"},
        {"penalty": "parts:0.1"},
        {"objective": "mse"},
        {"options": {"cross-entropy": {"label_smoothing": 0.1}}},
    ):
        assert RunConfig(**later).digest != "0ad1dbfa"


def test_a_penalty_without_anything_relaxed_is_refused_as_a_flag_and_told_of_in_a_file(tmp_path) -> None:
    with pytest.raises(ConfigError, match="penalty parts:2 adds nothing: it holds relaxed layers"):
        resolve({"penalty": "parts:2"})
    file = tmp_path / "run.toml"
    file.write_text('[run]\npenalty = ["parts:2"]\n')
    assert resolve({}, [file]).idle == (
        "penalty parts:2 adds nothing: it holds relaxed layers, and this run has none; add --relax or --path",
    )
    assert resolve({"relax": "lcn"}, [file]).idle == ()


def test_cards_are_a_text_or_a_list():
    assert RunConfig(device=["cuda:2", "cuda:0"]) == RunConfig(device="cuda:2, cuda:0")
    assert RunConfig(device=["cuda:2", "cuda:0"]).device == "cuda:2,cuda:0"
