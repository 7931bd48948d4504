"""Options of components on the command line: they exist when the component is chosen, by a flag or otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import click
import pytest
from click.testing import CliRunner, Result

from anarch_core.cli.components import ComponentCommand, component_options, split_names
from anarch_core.errors import AnarchError, ComponentConflictError, UnknownComponentError
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.options import opt
from anarch_core.plugin.records import ModelInfo, ProbeInfo, RelaxationInfo, ScheduleInfo
from anarch_core.plugin.registry import Registry


@attrs.frozen(kw_only=True)
class TiledOptions:
    period: tuple[int, ...] = attrs.field(default=(2,), metadata=opt("Positions this far apart share weights."))
    init: Literal["exact", "noisy"] = attrs.field(default="exact", metadata=opt("How it starts."))
    freeze_head: bool = attrs.field(default=True, metadata=opt("Keep the head."))
    mask: Path | None = attrs.field(default=Path("m"), metadata=opt("A mask."))


@attrs.frozen(kw_only=True)
class LogOptions:
    saves: int = attrs.field(metadata=opt("How many."))


@attrs.frozen(kw_only=True)
class HeadOptions:
    head: str = attrs.field(default="", metadata=opt("Which head."))


def mixers() -> list[str]:
    return ["mixer_b16"]


COMPONENTS = (
    RelaxationInfo(name="efcn", summary="s", target="nowhere:X"),
    RelaxationInfo(name="tiled", summary="s", target="nowhere:X", options=TiledOptions),
    ProbeInfo(name="tiled-freeze", summary="s", target="nowhere:X", options=HeadOptions),
    ProbeInfo(
        name="data",
        summary="s",
        target="nowhere:X",
        options=attrs.make_class("RootOptions", {"root": attrs.field(default="", type=str, metadata=opt("Root."))}, kw_only=True),
    ),
    ScheduleInfo(name="log", summary="s", target="nowhere:X", options=LogOptions),
    ModelInfo(name="cnn1d", summary="s", target="nowhere:X"),
    ModelInfo(name="timm", summary="s", target="nowhere:X", options=HeadOptions, zoo=f"{__name__}:mixers"),
)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = PluginRecord(name="x", module="x", distribution="x", version="1", status=Status.LOADED, components=COMPONENTS)
    monkeypatch.setattr("anarch_core.cli.components.get_registry", lambda: Registry((plugin,)))


def choose(given: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    """What a configuration file would choose."""
    return {"relax": ["efcn"], "switch": ["log:3"]} if given.get("config") == "log.toml" else {}


@click.command(
    "run",
    cls=ComponentCommand,
    components={"relax": "relaxation", "probe": "probe", "switch": "schedule", "model": "model"},
    choose=choose,
)
@click.option("--relax", multiple=True)
@click.option("--probe", multiple=True)
@click.option("--switch")
@click.option("--model")
@click.option("--config")
@click.option("--data-root")
@click.option("--quiet", is_flag=True)
@click.pass_context
def run(ctx: click.Context, **_: Any) -> None:
    """Print the options of components."""
    click.echo(json.dumps(component_options(ctx)))


def invoke(*args: str) -> Result:
    return CliRunner().invoke(run, args)


def options(*args: str) -> Any:
    """The component options of a command line that is accepted."""
    result = invoke(*args)
    assert result.exception is None, result.output
    return json.loads(result.output)


class TestValues:
    def test_only_those_given_json_ready(self) -> None:
        assert options("--relax", "tiled") == {}
        given = options("--relax", "tiled", "--tiled-period", "2,3", "--no-tiled-freeze-head", "--tiled-init", "noisy")
        assert given == {"tiled": {"period": [2, 3], "freeze_head": False, "init": "noisy"}}

    def test_none_can_be_given(self) -> None:
        assert options("--relax=tiled", "--tiled-mask", "none") == {"tiled": {"mask": None}}

    @pytest.mark.parametrize(
        "args",
        [
            ["--tiled-period", "3", "--relax", "tiled"],
            ["--relax", "efcn,tiled", "--quiet", "--tiled-period=3"],
            ["--relax", "efcn", "--relax", " tiled,", "--tiled-period", "3"],
        ],
    )
    def test_wherever_the_choice_stands(self, args: list[str]) -> None:
        assert options(*args) == {"tiled": {"period": [3]}}

    @pytest.mark.parametrize("text", ["x", "2,x", "1.5"])
    def test_of_another_type_are_wrong_usage(self, text: str) -> None:
        result = invoke("--relax", "tiled", "--tiled-period", text)
        assert result.exit_code == 2
        assert f"must be a list, each item a whole number: {text!r}" in result.output


class TestChoice:
    def test_by_a_configuration(self) -> None:
        assert options("--config", "log.toml", "--log-saves", "4") == {"log": {"saves": 4}}

    def test_a_flag_replaces_what_the_configuration_says(self) -> None:
        assert options("--config", "log.toml", "--relax", "tiled", "--tiled-init", "noisy", "--log-saves", "4").keys() == {"tiled", "log"}

    def test_with_a_value(self) -> None:
        assert options("--switch", "log:20", "--log-saves", "4") == {"log": {"saves": 4}}

    def test_a_model_may_be_a_factory(self) -> None:
        assert options("--model", "package.module:factory") == {}

    def test_a_model_of_a_zoo_brings_the_options_of_its_component(self) -> None:
        assert options("--model", "mixer_b16", "--timm-head", "wide") == {"timm": {"head": "wide"}}

    def test_any_other_model_is_unknown(self) -> None:
        with pytest.raises(UnknownComponentError, match="unknown model 'cnn'; did you mean 'cnn1d'"):
            raise invoke("--model", "cnn").exception or AssertionError

    def test_all_unknown_names_are_told_together(self) -> None:
        error = invoke("--relax", "efnc", "--probe", "tiled").exception
        assert isinstance(error, UnknownComponentError)
        assert "'efnc'" in str(error)
        assert "use --relax tiled" in str(error)

    def test_an_option_of_what_is_not_chosen_says_so(self) -> None:
        result = invoke("--relax", "efcn", "--log-saves", "4")
        assert result.exit_code == 2
        assert "--log-saves is an option of schedule 'log', which is not chosen; add '--switch log' or leave it out" in result.output

    def test_an_option_without_its_value_is_wrong_usage(self) -> None:
        assert invoke("--relax").exit_code == 2

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["--relax", "tiled", "--probe", "tiled-freeze"], "its option --tiled-freeze-head is also one of relaxation 'tiled'"),
            (["--probe", "data"], "its option --data-root is also one of 'run' itself"),
        ],
    )
    def test_options_that_would_share_a_flag(self, args: list[str], message: str) -> None:
        error = invoke(*args).exception
        assert isinstance(error, ComponentConflictError)
        assert message in str(error)


class TestHelp:
    def test_has_a_section_for_each_chosen_component(self) -> None:
        text = invoke("--relax", "tiled", "--switch", "log", "--help").output
        assert "Options of relaxation tiled:" in text
        assert "Options of schedule log:" in text
        assert text.index("--data-root") < text.index("--tiled-period")
        assert "[default: 2]" in text
        assert "[default: true]" in text
        assert "[required]" in text
        assert "exact|noisy" in text

    def test_has_none_without_a_choice(self) -> None:
        assert "tiled" not in invoke("--help").output

    def test_of_an_unknown_component_is_an_error(self) -> None:
        assert isinstance(invoke("--relax", "efnc", "--help").exception, AnarchError)

    def test_completing_an_unfinished_line_does_not_fail(self) -> None:
        assert run.make_context("run", ["--relax", "efnc"], resilient_parsing=True).params["relax"] == ("efnc",)


def test_split_names() -> None:
    assert split_names(["a,b", " c ,", ""]) == ["a", "b", "c"]
