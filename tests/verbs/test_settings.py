"""Settings as keyword arguments mean what flags mean."""

from __future__ import annotations

import inspect

import attrs
import numpy as np
import pytest
from torch import nn

import anarch_core
from anarch_core.cli.settings import RunCommand
from anarch_core.config.resolution import resolve
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError
from anarch_core.plugin.registry import get_registry
from anarch_core.verbs.settings import resolved


def keywords(config=(), **settings) -> RunConfig:
    return resolved(config, settings, get_registry())


def flags(*arguments: str) -> RunConfig:
    found: list[RunConfig] = []
    command = RunCommand(name="run", callback=lambda config: found.append(config))
    command.main(list(arguments), standalone_mode=False)
    return found[0]


FILE = """
[run]
lr = 0.3
relax = ["lcn"]
[optimizer.sgd]
momentum = 0.5
"""

GRID = {
    "nothing": ([], {}),
    "a relaxation": (["--relax", "lcn"], {"relax": "lcn"}),
    "lists": (["--relax", "efcn,lcn", "--probe", "delta"], {"relax": ["efcn", "lcn"], "probe": ("delta",)}),
    "seeds": (["--seeds", "0-2"], {"seeds": [0, 1, 2]}),
    "one seed": (["--seeds", "3"], {"seeds": 3}),
    "seeds of a range": (["--seeds", "0-2"], {"seeds": range(3)}),
    "numbers of numpy": (["--epochs", "3", "--seeds", "0,1"], {"epochs": np.int64(3), "seeds": np.arange(2)}),
    "other data": (["--data", "cifar10", "--relax", "lcn"], {"data": "cifar10", "relax": "lcn"}),
    "a recipe": (["--recipe", "paper-cifar10"], {"recipe": "paper-cifar10"}),
    "over a recipe": (["--recipe", "paper-cifar10", "--lr", "0.2"], {"recipe": "paper-cifar10", "lr": 0.2}),
    "a path": (["--path", "lcn@10,efcn@40,conv@80"], {"path": "lcn@10,efcn@40,conv@80"}),
    "two paths": (["--path", "lcn@10", "--path", "efcn@10"], {"path": ["lcn@10", "efcn@10"]}),
    "a short form": (["--relax", "tiled:2"], {"relax": "tiled:2"}),
    "options": (["--sgd-momentum", "0.9"], {"options": {"sgd": {"momentum": 0.9}}}),
    "options of a model": (["--model", "cnn1d", "--cnn1d-channels", "3"], {"model": "cnn1d", "options": {"cnn1d": {"channels": 3}}}),
    "no control": (["--relax", "lcn", "--control", "none"], {"relax": "lcn", "control": "none"}),
    "a place": (["--out", "somewhere", "--jobs", "2"], {"out": "somewhere", "jobs": 2}),
    "automatic jobs": (["--jobs", "auto"], {"jobs": "auto"}),
    "a model of one's own": (["--model", "torch.nn:Identity"], {"model": "torch.nn:Identity"}),
}


@pytest.mark.parametrize("given", GRID)
def test_keywords_and_flags_are_the_same_run(given):
    arguments, settings = GRID[given]
    assert keywords(**settings) == flags(*arguments)


def test_files_are_below_keywords_and_over_the_data_set(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(FILE)
    config = keywords(file, epochs=3)
    assert config == flags("--config", str(file), "--epochs", "3")
    assert (config.lr, config.relax, config.batch_size, config.options["sgd"]["momentum"]) == (0.3, ("lcn",), 100, 0.5)
    assert keywords([str(file)], epochs=3) == config
    assert keywords(file, lr=0.2).lr == 0.2


def test_a_configuration_is_complete_and_run_as_it_stands(tmp_path):
    config = resolve({"relax": "lcn", "epochs": 7})
    assert keywords(config) == config
    assert keywords(config, out=tmp_path) == attrs.evolve(config, out=tmp_path)
    with pytest.raises(
        ConfigError, match=r"a RunConfig is complete, and epochs=\.\.\. would change it: write attrs.evolve\(config, epochs="
    ):
        keywords(config, epochs=3)


def test_a_configuration_made_by_hand_says_what_it_passes_over():
    with pytest.warns(UserWarning, match=r"with .*batch_size = 250.*, though the data set mnist1d recommends .*batch_size = 100"):
        config = keywords(RunConfig(relax="lcn"))
    assert config.batch_size == 250


def test_an_unknown_setting_is_told_with_what_was_meant():
    with pytest.raises(ConfigError, match="unknown setting 'epoch'; did you mean 'epochs'"):
        anarch_core.run(epoch=3)
    with pytest.raises(ConfigError, match="unknown setting 'seed'; did you mean 'seeds'"):
        anarch_core.plan(seed=3)


@pytest.mark.parametrize("options", [3, {"sgd": 3}, {"sgd": ["momentum"]}, {3: {}}])
def test_options_that_are_none_are_refused(options):
    with pytest.raises(ConfigError, match="options"):
        keywords(options=options)


def test_a_function_is_called_by_its_name():
    assert keywords(model=nn.Identity).model == "torch.nn.modules.linear:Identity"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda: nn.Identity(), "a function without a name of its own"),
        (nn.Identity(), "a Identity"),
    ],
)
def test_what_has_no_name_is_refused(given, said):
    with pytest.raises(
        ConfigError, match=rf"model: .* is {said}, and a run builds its model again and again.*; write a function or a class"
    ):
        keywords(model=given)


@pytest.mark.parametrize("verb", [anarch_core.run, anarch_core.plan])
def test_the_signature_names_every_setting(verb):
    parameters = inspect.signature(verb).parameters
    for field in attrs.fields(RunConfig):
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"\n    {field.name}: " in verb.__doc__
    assert next(iter(parameters)) == "config"


@pytest.mark.parametrize("config", [3, None, {"relax": "lcn"}, [3]])
def test_what_is_neither_files_nor_a_configuration_is_refused(config):
    with pytest.raises(ConfigError, match=r"expected files of settings or a RunConfig, got .*; settings are keywords, as in run\("):
        anarch_core.run(config)
