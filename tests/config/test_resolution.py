from __future__ import annotations

from pathlib import Path

import pytest

from anarch_core.config.resolution import complete, recorded, resolve
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError, OptionError, UnknownComponentError


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "settings.toml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_each_source_yields_to_the_next(write):
    first, second = write("[run]\nlr = 0.3\nepochs = 30\nbatch_size = 3"), write("[run]\nepochs = 40\nbatch_size = 4", "second.toml")
    config = resolve({"batch_size": 5}, [first, second], recipe="paper-cifar10")
    assert config.branch_lr == 0.01  # the recipe's
    assert config.lr == 0.3  # the first file's
    assert config.epochs == 40  # the second file's
    assert config.batch_size == 5  # the flag's


def test_a_data_set_recommends_settings_that_anything_overrides(write):
    assert resolve({}).model == "cnn1d"
    assert resolve({}).batch_size == 100
    assert resolve({}, [write("[run]\nbatch_size = 7")]).batch_size == 7


def test_a_file_may_name_the_data_and_the_recipe(write):
    config = resolve({}, [write('[run]\nrecipe = "paper-cifar100"\nepochs = 2')])
    assert (config.data, config.model, config.epochs) == ("cifar100", "alexnet", 2)


def test_options_are_complete_checked_and_those_of_chosen_components_only(write):
    file = write("[optimizer.sgd]\nmomentum = 0.5\n[optimizer.adam]\neps = 1e-6\n")
    assert resolve({}, [file]).options["sgd"] == {"momentum": 0.5, "weight_decay": 0.0, "nesterov": False}
    assert "adam" not in resolve({}, [file]).options
    assert resolve({"optimizer": "adam"}, [file]).options["adam"]["eps"] == 1e-6
    assert resolve({"options": {"sgd": {"momentum": 0.9}}}, [file]).options["sgd"]["momentum"] == 0.9


def test_the_short_form_sets_the_first_option():
    assert resolve({"relax": "tiled:2,tiled:4"}).options["tiled:4"]["period"] == 4
    assert resolve({"relax": "tiled:2"}).options["tiled"]["period"] == 2


def test_options_of_relaxations_on_a_path_count_too():
    assert resolve({"path": "tiled:3@1,efcn@2"}).options["tiled"]["period"] == 3


def test_the_distribution_may_be_said_without_changing_where_options_are():
    config = resolve({"relax": "tiled@anarch", "options": {"tiled": {"period": 5}}})
    assert config.relax == ("tiled@anarch",)
    assert config.options["tiled"]["period"] == 5
    assert complete(config) == config


def test_the_short_form_and_an_option_that_contradicts_it_are_refused():
    with pytest.raises(ConfigError, match="'log:8' contradicts saves = 9"):
        resolve({"relax": "efcn", "switch": "log:8", "options": {"log": {"saves": 9}}})
    assert resolve({"relax": "efcn", "switch": "log:8", "options": {"log": {"saves": 8}}}).options["log"] == {"saves": 8}


def test_all_unknown_names_are_reported_together(write):
    with pytest.raises(UnknownComponentError) as caught:
        resolve({"data": "mnst", "relax": "efnc", "optimizer": "lcn"}, [write("[relax.lnc]")])
    message = str(caught.value)
    assert "\n" not in message
    assert "unknown dataset 'mnst'" in message
    assert "unknown relaxation 'efnc'; did you mean 'efcn'?" in message
    assert "unknown optimizer 'lcn': 'lcn' names a relaxation, use --relax lcn" in message
    assert "settings.toml: unknown relaxation 'lnc'" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimizer.sgd]\nmomentun = 1", r"settings\.toml: \[sgd\] has no option 'momentun'; did you mean 'momentum'"),
        ("[optimizer.sgd]\nmomentum = '1'", r"settings\.toml: \[sgd\] 'momentum' must be a finite number"),
        ("[optimizer.adam]\nmomentum = 1", r"settings\.toml: \[adam\] has no option 'momentum'"),
        ("[optimizer.sgd]\nmomentum = 1", r"\[sgd\] 'momentum' must be from 0 to below 1: 1.0"),
    ],
)
def test_a_wrong_option_in_a_file_is_refused_even_if_its_component_is_not_chosen(write, text, message):
    with pytest.raises(OptionError, match=message):
        resolve({}, [write(text)])


@pytest.mark.parametrize("flags", [{"branch_lr": 0.1}, {"branch_epochs": 3}, {"layers": "*"}, {"switch": "at:0"}])
def test_flags_that_would_change_nothing_are_refused(flags):
    with pytest.raises(ConfigError, match="changes nothing in a run without relax, path or control"):
        resolve(flags)
    resolve({**flags, "relax": "efcn"})


def test_a_switch_beside_staged_paths_alone_is_refused():
    with pytest.raises(ConfigError, match="--switch changes nothing"):
        resolve({"path": "lcn@1", "switch": "at:0"})


def test_an_option_flag_for_something_not_chosen_is_refused():
    with pytest.raises(ConfigError, match="options for 'adam', which is not chosen"):
        resolve({"options": {"adam": {"eps": 1.0}}})


def test_a_factory_of_the_users_is_taken_as_it_is():
    config = resolve({"model": "my_package:build", "options": {"my_package:build": {"width": 2}}})
    assert config.options["my_package:build"] == {"width": 2}


def test_a_factory_counts_where_the_caller_names_it_and_not_where_a_file_does(write):
    file = write('[run]\nmodel = "os:system"\n[model."os:system"]\ncommand = "true"')
    with pytest.raises(ConfigError, match=r"settings\.toml: the model 'os:system' is a function .* not a file; add --model os:system"):
        resolve({}, [file])
    assert resolve({"model": "os:system"}, [file]).options["os:system"] == {"command": "true"}
    assert resolve({}, [file, write('[run]\nmodel = "cnn1d"', "later.toml")]).model == "cnn1d"
    assert recorded(file).model == "os:system"  # to compare with, not to build


def test_data_without_a_usual_model_ask_for_one():
    with pytest.raises(ConfigError, match="data set 'tensors:x' has no usual model; choose one"):
        resolve({"data": "tensors:x"})


def test_completing_twice_changes_nothing():
    once = complete(RunConfig(relax="tiled:2", switch="at:0,3"))
    assert complete(once) == once
    assert once.model == "cnn1d"
    assert once.options["at"] == {"moments": ["0", "3"]}
