from __future__ import annotations

from pathlib import Path

import pytest

from anarch_core.config.files import read_file, read_recipe, recipe_names, to_toml
from anarch_core.config.resolution import recorded, resolve
from anarch_core.errors import ConfigError


def read(folder: Path, text: str):
    file = folder / "settings.toml"
    file.write_text(text)
    return read_file(file)


def test_a_file_has_a_table_of_settings_and_tables_of_options(tmp_path):
    layer = read(tmp_path, '[run]\nrelax = "efcn,lcn"\nlr = 1\n[optimizer.sgd]\nmomentum = 0.9\n')
    assert layer.settings == {"relax": ("efcn", "lcn"), "lr": 1.0}
    assert layer.tables == {"sgd": {"momentum": 0.9}}
    assert layer.kinds == {"sgd": "optimizer"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run]\nlr =", "is not valid TOML: Invalid value (at "),
        ("[run]\nlr = 'a", "is not valid TOML"),
        ("[run]\nlr = 'x'", "lr: expected a number above 0 and up to 1,000,000, got 'x'"),
        ("[run]\nbranch-lr = 1", "unknown setting 'branch-lr'; did you mean 'branch_lr'"),
        ("[run]\noptions = {}", "unknown setting 'options'"),
        ("epochs = 3", "'epochs' belongs into the table [run]"),
        ("relax = 'efcn'", "'relax' belongs into the table [run]"),
        ("epoch = 3", "'epoch' is unknown; did you mean 'epochs'"),
        ("[optimiser.sgd]", "unknown table [optimiser]; did you mean 'optimizer'"),
        ("[optimizer]\nmomentum = 0.9", "[optimizer] holds tables of options, as in [optimizer.NAME], but 'momentum' is a value"),
    ],
)
def test_a_mistake_in_a_file_is_told_in_one_line_with_its_place(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "settings.toml"))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.toml: No such file"):
        read_file(tmp_path / "nowhere.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"cannot read .*binary\.toml: not UTF-8"):
        read_file(binary)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"relax": "efcn,lcn", "seeds": "0-2", "validation": 500, "train_limit": 1000, "control": "none"},
        {"relax": "tiled:2,tiled:4", "switch": "at:0,10it", "options": {"sgd": {"momentum": 0.9}}},
        {"relax": "tiled,tiled:4"},
        {"relax": "tiled", "path": "lcn@1,tiled:4@2"},
        {"path": "lcn@1,efcn@2,conv@3", "optimizer": "adamw", "optimizer_state": "carry"},
        {"model": "my_package.models:build", "data_root": "some/where", "options": {"my_package.models:build": {"width": 3, "deep": True}}},
        {"recipe": "paper-cifar10"},
        {"data": "tensors:digits.safetensors", "model": "cnn1d"},
    ],
)
def test_a_resolved_configuration_written_and_read_back_is_the_same(tmp_path, flags):
    config = resolve(flags)
    file = tmp_path / "config.toml"
    file.write_text(to_toml(config))
    assert recorded(file) == config


def test_the_short_form_can_be_edited_in_a_written_configuration(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(to_toml(resolve({"relax": "efcn", "switch": "log:8"})).replace("log:8", "log:9"))
    assert resolve({}, [file]).options["log"] == {"saves": 9}


def test_every_recipe_resolves():
    for name in recipe_names():
        assert resolve({"recipe": name}).recipe == name


def test_the_papers_settings():
    config = resolve({"recipe": "paper-cifar10"})
    assert (config.data, config.model, config.optimizer, config.batch_size) == ("cifar10", "vanilla-cnn", "sgd", 250)
    assert (config.epochs, config.lr, config.branch_epochs, config.branch_lr) == (150, 0.1, 100, 0.01)
    assert config.options["sgd"] == {"momentum": 0.0, "weight_decay": 0.0, "nesterov": False}
    assert config.options["log"] == {"saves": 20}
    assert resolve({"recipe": "paper-cifar100"}).model == "alexnet"


def test_an_unknown_recipe_is_hinted_at():
    with pytest.raises(ConfigError, match="unknown recipe 'paper-cifar'; did you mean 'paper-cifar10'"):
        read_recipe("paper-cifar")
