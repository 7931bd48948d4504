"""Zoos: a model that stands for many gives their names, which then need not be told whose they are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import attrs
import pytest

from anarch_core.config.resolution import resolve
from anarch_core.errors import ComponentConflictError, MissingDependencyError, UnknownComponentError
from anarch_core.models import build_model, model_spec
from anarch_core.plugin.diagnosis import plugin_problems
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.options import opt
from anarch_core.plugin.records import ModelInfo
from anarch_core.plugin.registry import Registry, get_registry


@attrs.frozen(kw_only=True)
class ZooOptions:
    model: str = attrs.field(metadata=opt("Which."))
    width: int = attrs.field(default=2, metadata=opt("How wide."))


@attrs.frozen(kw_only=True)
class NoOptions:
    pass


Zoo = Callable[..., PluginRecord]


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> Zoo:
    """A plugin with one model and its zoo; ``names`` are what the zoo's function gives, or how it fails."""

    def plugin(name: str, names: Any, *, distribution: str = "") -> PluginRecord:
        distribution = distribution or f"anarch-{name}"
        module = ModuleType(f"plugin_{distribution}".replace("-", "_"))
        module.names = names if callable(names) else lambda: names  # type: ignore[attr-defined]
        module.build = build  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        target, zoo = f"{module.__name__}:build", f"{module.__name__}:names"
        info = ModelInfo(name=name, summary="s", target=target, options=ZooOptions, zoo=zoo)
        return PluginRecord(name=name, module="m", distribution=distribution, version="1", status=Status.LOADED, components=(info,))

    return plugin


def build(input_shape: tuple[int, ...], classes: int, options: ZooOptions) -> Any:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.LazyLinear(options.width), nn.Linear(options.width, classes))


def missing() -> None:
    msg = "timm is needed here; run: pip install timm"
    raise MissingDependencyError(msg)


CNN1D = PluginRecord(
    name="cnn1d",
    module="m",
    distribution="anarch",
    version="1",
    status=Status.LOADED,
    components=(ModelInfo(name="cnn1d", summary="s", target="nowhere:X"),),
)


class TestNames:
    def test_one_of_a_zoo_is_spelt_out(self, zoo: Zoo) -> None:
        registry = Registry((CNN1D, zoo("timm", ["mixer_b16", "vit.tiny"])))
        assert registry.spelt_out("model", "mixer_b16") == "timm:mixer_b16"
        assert registry.spelt_out("model", "vit.tiny") == "timm:vit.tiny"

    @pytest.mark.parametrize("spec", ["cnn1d", "cnn1d:3", "timm:mixer_b16", "timm:no_such_model", "package.module:factory"])
    def test_all_that_is_clear_without_a_zoo_stays_as_it_is_and_asks_none(self, zoo: Zoo, spec: str) -> None:
        registry = Registry((CNN1D, zoo("timm", lambda: pytest.fail("the zoo was asked"))))
        assert registry.spelt_out("model", spec) == spec

    def test_a_component_comes_before_a_model_of_a_zoo(self, zoo: Zoo) -> None:
        assert Registry((CNN1D, zoo("timm", ["cnn1d"]))).spelt_out("model", "cnn1d") == "cnn1d"

    def test_only_models_have_zoos(self, zoo: Zoo) -> None:
        assert Registry((zoo("timm", ["log"]),)).spelt_out("schedule", "log") == "log"

    def test_of_two_zoos_the_user_picks_one(self, zoo: Zoo) -> None:
        registry = Registry((zoo("torchvision", ["resnet18"]), zoo("timm", ["resnet18"])))
        message = "model 'resnet18' is one of timm and of torchvision; write timm:resnet18 or torchvision:resnet18"
        with pytest.raises(ComponentConflictError, match=message):
            registry.spelt_out("model", "resnet18")

    def test_of_two_zoos_of_one_name_the_user_picks_a_distribution(self, zoo: Zoo) -> None:
        registry = Registry((zoo("timm", ["resnet18"], distribution="a"), zoo("timm", ["resnet18", "mixer"], distribution="b")))
        with pytest.raises(ComponentConflictError, match="write timm@a:resnet18 or timm@b:resnet18"):
            registry.spelt_out("model", "resnet18")
        assert registry.spelt_out("model", "mixer") == "timm@b:mixer"

    def test_components_and_models_of_zoos_are_found_together(self, zoo: Zoo) -> None:
        registry = Registry((CNN1D, zoo("timm", ["mixer_b16"])))
        assert [info.name for info in registry.find_all([("model", "mixer_b16"), ("model", "cnn1d")])] == ["timm", "cnn1d"]
        with pytest.raises(UnknownComponentError, match=r"unknown model 'mixer_b61'.*; unknown probe 'x'"):
            registry.find_all([("model", "mixer_b61"), ("probe", "x")])


class TestUnknown:
    def test_close_matches_are_looked_for_in_zoos_too(self, zoo: Zoo) -> None:
        registry = Registry((CNN1D, zoo("timm", ["mixer_b16"])))
        with pytest.raises(UnknownComponentError, match=r"^unknown model 'mixer_b61'; did you mean 'mixer_b16'\?$") as caught:
            registry.spelt_out("model", "mixer_b61")
        assert caught.value.suggestions == ("mixer_b16",)

    def test_a_zoo_that_cannot_be_asked_is_mentioned(self, zoo: Zoo) -> None:
        registry = Registry((CNN1D, zoo("timm", missing), zoo("other", lambda: 1 / 0)))
        with pytest.raises(UnknownComponentError) as caught:
            registry.spelt_out("model", "mixer_b16")
        assert str(caught.value) == (
            "unknown model 'mixer_b16' (known: cnn1d, other, timm); give a function of your own as package.module:function; "
            "the models of other were not searched: model 'other' of plugin 'other' "
            "(anarch-other 1): cannot list 'plugin_anarch_other:names': ZeroDivisionError: division by zero; "
            "the models of timm were not searched: timm is needed here; run: pip install timm"
        )

    def test_a_zoo_that_cannot_be_asked_does_not_hide_another(self, zoo: Zoo) -> None:
        registry = Registry((zoo("timm", missing), zoo("torchvision", ["resnet18"])))
        assert registry.spelt_out("model", "resnet18") == "torchvision:resnet18"

    def test_the_doctor_asks_zoos(self, zoo: Zoo) -> None:
        plugin = zoo("timm", missing)
        assert [problem.text for problem in plugin_problems(Registry((plugin,)), plugin, targets=True)] == [
            "timm is needed here; run: pip install timm"
        ]
        assert plugin_problems(Registry((plugin,)), plugin) == []


class TestRecord:
    @pytest.mark.parametrize("options", [None, NoOptions])
    def test_a_zoo_needs_an_option_for_its_names(self, options: type | None) -> None:
        with pytest.raises(ValueError, match="'zoo' needs an option class, whose first option takes the names of the zoo: 'm:names'"):
            ModelInfo(name="timm", summary="s", target="m:build", options=options, zoo="m:names")

    def test_a_zoo_is_an_import_string(self) -> None:
        with pytest.raises(ValueError, match=r"'zoo' must be an import string like 'package.module:Name': 'names'"):
            ModelInfo(name="timm", summary="s", target="m:build", options=ZooOptions, zoo="names")


class TestUse:
    def test_a_model_of_another_distribution_by_its_own_name(self, zoo: Zoo) -> None:
        registry = Registry((*get_registry().plugins, zoo("timm", ["mixer_b16"])))
        shape = {"input_shape": (1, 4), "classes": 3}
        spec = model_spec("mixer_b16", options={"width": 5}, registry=registry, **shape)
        assert (spec.name, dict(spec.options)) == ("timm", {"model": "mixer_b16", "width": 5})
        assert build_model("mixer_b16", options={"width": 5}, registry=registry, **shape)[1].out_features == 5

    def test_a_run_records_whose_it_is(self, zoo: Zoo) -> None:
        registry = Registry((*get_registry().plugins, zoo("timm", ["mixer_b16"])))
        config = resolve({"model": "mixer_b16", "options": {"timm": {"width": 5}}}, registry=registry)
        assert (config.model, config.options["timm"]) == ("timm:mixer_b16", {"model": "mixer_b16", "width": 5})

    def test_a_table_is_that_of_the_component(self, zoo: Zoo, tmp_path: Any) -> None:
        registry = Registry((*get_registry().plugins, zoo("timm", ["mixer_b16"])))
        file = tmp_path / "settings.toml"
        file.write_text('[run]\nmodel = "mixer_b16"\n[model.timm]\nwidth = 5\n')
        assert resolve({}, [file], registry=registry).options["timm"]["width"] == 5
        file.write_text('[run]\nmodel = "mixer_b16"\n[model.mixer_b16]\nwidth = 5\n')
        with pytest.raises(UnknownComponentError, match=r"settings\.toml: unknown model 'mixer_b16'"):
            resolve({}, [file], registry=registry)
