"""Plugins: found by entry point, isolated from one another, and found by name with useful hints.

The distributions are real ones: a module and a ``.dist-info`` on the path.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable

import attrs
import pytest

from anarch_core.errors import ComponentConflictError, OptionError, PluginError, UnknownComponentError
from anarch_core.plugin import hookspecs
from anarch_core.plugin.diagnosis import plugin_problems, registry_problems
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.hooks import RECORDS
from anarch_core.plugin.options import opt
from anarch_core.plugin.records import FigureInfo, ProbeInfo, RelaxationInfo, ScheduleInfo
from anarch_core.plugin.registry import Registry

Install = Callable[..., None]

PROBE = """
    from anarch_core import hookimpl
    from anarch_core.plugin.records import ProbeInfo

    @hookimpl
    def anarch_probes():
        return [ProbeInfo(name={name!r}, summary="A probe.", target="somewhere:Probe")]
"""


def plugin(registry: Registry, name: str) -> PluginRecord:
    """The only plugin of a name."""
    (record,) = [record for record in registry.plugins if record.name == name]
    return record


class TestDiscovery:
    def test_loads_what_is_installed_without_importing_targets(self, install: Install) -> None:
        install("norms", PROBE.format(name="norms"), version="2.5")
        registry = Registry.load()
        record = plugin(registry, "norms")
        assert (record.status, record.distribution, record.version, record.module) == (Status.LOADED, "norms", "2.5", "norms")
        assert registry.owner(registry.find("probe", "norms")) == ("norms", "2.5")
        assert not record.builtin

    def test_order_is_own_plugins_then_names(self, install: Install) -> None:
        install("zebra", PROBE.format(name="zebra"))
        install("aardvark", PROBE.format(name="aardvark"))
        records = Registry.load().plugins
        keys = [(not record.builtin, record.name) for record in records]
        assert keys == sorted(keys)
        assert [record.name for record in records[-2:]] == ["aardvark", "zebra"]

    @pytest.mark.parametrize(
        ("source", "error"),
        [
            ("import missing_thing", "ModuleNotFoundError: No module named 'missing_thing'"),
            ("import sys; sys.exit(3)", "SystemExit: 3"),
            ("raise KeyboardInterrupt", "KeyboardInterrupt: "),
            ("raise GeneratorExit('x')", "GeneratorExit: x"),
            ("import asyncio; raise asyncio.CancelledError('x')", "CancelledError: x"),
            ("raise ValueError('\\x1b[31mred\\u202e')", "ValueError: \\x1b[31mred\\u202e"),
            ("raise ValueError('x' * 10**6)", "x…"),
            ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
            ("def (", "SyntaxError: invalid syntax"),
            (
                "from anarch_core import hookimpl\n@hookimpl\ndef anarch_probe(): return []",
                "there is no hook 'anarch_probe'; did you mean 'anarch_probes'?",
            ),
            ("from anarch_core import hookimpl\n@hookimpl\ndef zzz(): return []", "there is no hook 'zzz' (hooks: anarch_relaxations"),
            ("def anarch_probes(): return []", "'anarch_probes' is not marked as a hook; write '@hookimpl' above it"),
            ("from anarch_core import hookimpl\n@hookimpl\ndef anarch_probes(): 1 / 0", "ZeroDivisionError: division by zero"),
            ("from anarch_core import hookimpl\n@hookimpl\ndef anarch_probes(size): return []", "PluginValidationError"),
            ("from anarch_core import hookimpl\n@hookimpl\ndef anarch_probes(): yield 3", "must return records of type ProbeInfo: 3"),
            (
                "from anarch_core import hookimpl\nfrom anarch_core.plugin import ProbeInfo\n@hookimpl\ndef anarch_probes():\n"
                "    while True: yield ProbeInfo(name='a', summary='A.', target='a:A')",
                "hook 'anarch_probes' returns more than 1000 records",
            ),
            ("from anarch_core import hookimpl\n@hookimpl\ndef anarch_probes(): return 3", "must return a list of records: 3"),
            ("from anarch_core import hookimpl\n@hookimpl(wrapper=True)\ndef anarch_probes(): return (yield)", "must not be a wrapper"),
            ("anarch_api = '1.0'", "'anarch_api' must be a tuple of two whole numbers such as (1, 3): '1.0'"),
        ],
    )
    def test_a_broken_plugin_is_recorded_and_takes_nothing_with_it(self, install: Install, source: str, error: str) -> None:
        install("broken", source)
        install("norms", PROBE.format(name="norms"))
        registry = Registry.load()
        record = plugin(registry, "broken")
        assert (record.status, record.components) == (Status.BROKEN, ())
        assert error in record.error
        assert "\n" not in record.error
        assert "Traceback" in record.traceback
        assert registry.names("probe").count("norms") == 1

    def test_a_generator_that_raises_late_registers_nothing(self, install: Install) -> None:
        late = "\n        raise KeyError('late')\n"
        install("late", PROBE.format(name="late").replace("return [", "yield from [") + late)
        registry = Registry.load()
        assert plugin(registry, "late").error == "KeyError: 'late'"
        assert "late" not in registry.names("probe")

    def test_a_second_hook_that_fails_takes_the_first_with_it(self, install: Install) -> None:
        install("half", PROBE.format(name="half") + "\n    @hookimpl\n    def anarch_models():\n        return [None]\n")
        registry = Registry.load()
        assert plugin(registry, "half").status is Status.BROKEN
        assert "half" not in registry.names("probe")

    def test_a_record_of_another_kind_is_refused(self, install: Install) -> None:
        install("wrong-kind", PROBE.format(name="x").replace("anarch_probes", "anarch_models"))
        assert "must return records of type ModelInfo" in plugin(Registry.load(), "wrong-kind").error

    def test_one_plugin_cannot_use_a_name_twice(self, install: Install) -> None:
        install("twice", PROBE.format(name="x").replace("return [", "return 2 * ["))
        assert "component 'x' is registered twice" in plugin(Registry.load(), "twice").error

    def test_an_option_class_that_cannot_serve_breaks_its_plugin(self, install: Install) -> None:
        source = """
            import attrs
            from anarch_core import hookimpl
            from anarch_core.plugin.records import ProbeInfo
            from anarch_core.plugin.options import opt

            @attrs.frozen(kw_only=True)
            class Options:
                table: dict = attrs.field(factory=dict, metadata=opt("A table."))

            @hookimpl
            def anarch_probes():
                return [ProbeInfo(name="x", summary="A probe.", target="somewhere:Probe", options=Options)]
        """
        install("odd-options", source)
        error = plugin(Registry.load(), "odd-options").error
        assert error.startswith("component 'x': option class Options, field 'table': has type <class 'dict'>; options may be bool, int")

    def test_lazy_attributes_of_a_module_are_left_alone(self, install: Install) -> None:
        lazy = """
    def __getattr__(name):
        raise RuntimeError(name)

    def __dir__():
        return ["heavy", "anarch_probes"]
"""
        install("lazy", PROBE.format(name="lazy") + lazy)
        assert plugin(Registry.load(), "lazy").status is Status.LOADED

    def test_an_entry_point_must_name_a_module(self, install: Install) -> None:
        install("an-object", "thing = 3", module="an_object:thing")
        assert "must name a module, not a int" in plugin(Registry.load(), "an-object").error

    def test_the_second_plugin_of_a_name_is_shadowed_and_not_imported(self, install: Install) -> None:
        install("first", PROBE.format(name="first"), plugin="same")
        install("second", "raise RuntimeError", plugin="same")
        first, second = [record for record in Registry.load().plugins if record.name == "same"]
        assert (first.distribution, first.status) == ("first", Status.LOADED)
        assert (second.distribution, second.status) == ("second", Status.SHADOWED)
        assert second.error.startswith("first 1.0 has a plugin 'same' too")
        assert "second" not in sys.modules

    def test_nobody_takes_the_place_of_a_builtin(self, install: Install) -> None:
        install("aaa", PROBE.format(name="aaa"), plugin="efcn")
        own, other = [record for record in Registry.load().plugins if record.name == "efcn"]
        assert own.builtin
        assert other.status is Status.SHADOWED

    def test_of_two_copies_of_a_distribution_the_first_on_the_path_counts(self, install: Install) -> None:
        install("copied", PROBE.format(name="old"), version="1.0", site="old")
        install("copied", PROBE.format(name="new"), version="2.0", site="new")
        assert plugin(Registry.load(), "copied").version == "2.0"

    @pytest.mark.parametrize(
        ("api", "advice"),
        [((2, 0), "install a newer anarch"), ((1, 99), "install a newer anarch"), ((0, 9), "newer version of the plugin")],
    )
    def test_another_interface_is_incompatible_and_no_hook_is_called(self, install: Install, api: tuple[int, int], advice: str) -> None:
        hook = "from anarch_core import hookimpl\n@hookimpl\ndef anarch_probes(): raise RuntimeError('called')"
        install("future", f"anarch_api = {api}\n{hook}")
        record = plugin(Registry.load(), "future")
        assert record.status is Status.INCOMPATIBLE
        assert f"written for plugin interface {api[0]}.{api[1]}, this anarch has 1.3; " in record.error
        assert record.error.endswith(advice)

    def test_a_plugin_for_this_interface_is_loaded(self, install: Install) -> None:
        install("present", "anarch_api = (1, 0)" + textwrap.dedent(PROBE.format(name="x")))
        assert plugin(Registry.load(), "present").status is Status.LOADED


class TestHooks:
    def test_every_hook_has_a_type_of_record(self) -> None:
        specified = {name for name in vars(hookspecs) if name.startswith("anarch_")}
        assert specified == set(RECORDS)

    @pytest.mark.parametrize("hook", RECORDS)
    def test_what_a_hook_returns_is_found_by_its_kind(self, install: Install, hook: str) -> None:
        info = RECORDS[hook]
        title = ', title="Something"' if info.kind == "figure" else ""
        source = f"""
            from anarch_core import hookimpl
            from anarch_core.plugin.records import {info.__name__}

            @hookimpl
            def {hook}():
                yield {info.__name__}(name="something", summary="Something.", target="somewhere:Something"{title})
        """
        install("hooked", source)
        assert type(Registry.load().find(info.kind, "something")) is info

    def test_the_documented_plugin_is_complete(self, install: Install) -> None:
        assert hookspecs.__doc__ is not None
        (example,) = re.findall(r"::\n\n((?:    .*\n|\n)+)", hookspecs.__doc__)
        install("my-package", example)
        assert plugin(Registry.load(), "my-package").components[0].target == "my_package.probe:Norms"


class TestSwitches:
    @pytest.mark.parametrize("entry", ["unwanted", " unwanted ", "unwanted@Un_Wanted", "other,unwanted@un-wanted"])
    def test_a_disabled_plugin_is_not_imported(self, install: Install, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
        install("un-wanted", "raise RuntimeError", plugin="unwanted")
        monkeypatch.setenv("ANARCH_DISABLE_PLUGINS", entry)
        assert plugin(Registry.load(), "unwanted").status is Status.DISABLED
        assert "un_wanted" not in sys.modules

    def test_disabling_the_first_of_a_name_lets_the_second_in(self, install: Install) -> None:
        install("first", PROBE.format(name="first"), plugin="same")
        install("second", PROBE.format(name="second"), plugin="same")
        registry = Registry.load(disabled=["same@first"])
        assert [record.status for record in registry.plugins if record.name == "same"] == [Status.DISABLED, Status.LOADED]

    def test_built_ins_only(self, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
        install("norms", "raise RuntimeError")
        monkeypatch.setenv("ANARCH_NO_PLUGINS", "1")
        registry = Registry.load()
        assert plugin(registry, "norms").status is Status.DISABLED
        assert "efcn" in registry.names("relaxation")

    @pytest.mark.parametrize("source", ["import missing_thing", "anarch_api = (9, 0)"])
    def test_strict_raises_for_what_would_be_recorded(self, install: Install, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
        install("broken", source)
        monkeypatch.setenv("ANARCH_STRICT_PLUGINS", "1")
        with pytest.raises(PluginError, match=r"plugin 'broken' \(broken 1.0\) is (broken|incompatible): "):
            Registry.load()


@attrs.frozen(kw_only=True)
class LogOptions:
    saves: int = attrs.field(default=20, metadata=opt("How many."))


def record(
    distribution: str, *components: object, status: Status = Status.LOADED, name: str | None = None, error: str = ""
) -> PluginRecord:
    return PluginRecord(
        name=name or distribution,
        module=distribution,
        distribution=distribution,
        version="1.0",
        status=status,
        error=error,
        components=components,
    )


EFCN = RelaxationInfo(name="efcn", summary="s", target="nowhere:Efcn", aliases=("fcn",))
LCN = RelaxationInfo(name="lcn", summary="s", target="nowhere:Lcn")
HESSIAN = ProbeInfo(name="hessian", summary="s", target="collections:OrderedDict")
LOG = ScheduleInfo(name="log", summary="s", target="nowhere:Log", options=LogOptions)
OTHER_LCN = RelaxationInfo(name="lcn", summary="s", target="nowhere:Lcn")


@pytest.fixture
def registry() -> Registry:
    return Registry((record("anarch", EFCN, LCN, HESSIAN, LOG), record("anarch_Local", OTHER_LCN)))


class TestNames:
    def test_by_name(self, registry: Registry) -> None:
        assert registry.find("relaxation", "efcn") is EFCN
        assert registry.names("relaxation") == ["efcn", "lcn"]

    def test_by_a_deprecated_name_with_a_warning(self, registry: Registry) -> None:
        with pytest.warns(FutureWarning, match="relaxation 'fcn' is now called 'efcn'"):
            assert registry.find("relaxation", "fcn") is EFCN

    def test_of_two_owners_the_user_picks_one(self, registry: Registry) -> None:
        with pytest.raises(ComponentConflictError, match=r"provided by anarch and anarch_Local; write lcn@anarch or lcn@anarch_Local"):
            registry.find("relaxation", "lcn")
        assert registry.find("relaxation", "lcn@anarch-local") is OTHER_LCN
        assert registry.owner(OTHER_LCN) == ("anarch_Local", "1.0")
        assert registry.owner(LCN) == ("anarch", "1.0")

    @pytest.mark.parametrize(
        ("kind", "name", "message", "suggestions"),
        [
            ("relaxation", "efnc", "unknown relaxation 'efnc'; did you mean 'efcn'?", ("efcn",)),
            ("relaxation", "hessian", "unknown relaxation 'hessian': 'hessian' names a probe, use --probe hessian", ()),
            ("probe", "zzzz", "unknown probe 'zzzz' (known: hessian)", ()),
            ("model", "zzzz", "unknown model 'zzzz' (known: none); give a function of your own as package.module:function", ()),
            ("relaxation", "efcn@nobody", "unknown relaxation 'efcn@nobody': distribution 'nobody' provides none of that name", ("efcn",)),
        ],
    )
    def test_an_unknown_one_gets_a_hint(self, registry: Registry, kind: str, name: str, message: str, suggestions: tuple[str, ...]) -> None:
        with pytest.raises(UnknownComponentError) as caught:
            registry.find(kind, name)
        assert str(caught.value) == message
        assert (caught.value.kind, caught.value.name, caught.value.suggestions) == (kind, name, suggestions)

    def test_all_unknown_ones_are_told_together(self, registry: Registry) -> None:
        with pytest.raises(UnknownComponentError, match=r"unknown relaxation 'efnc'.*; unknown probe 'hesian'"):
            registry.find_all([("relaxation", "efnc"), ("schedule", "log"), ("probe", "hesian")])
        assert registry.find_all([("relaxation", "efcn"), ("schedule", "log")]) == [EFCN, LOG]

    def test_a_plugin_that_failed_is_mentioned(self) -> None:
        registry = Registry((record("anarch", EFCN), record("x", status=Status.BROKEN, name="my_probe", error="ValueError: no")))
        with pytest.raises(UnknownComponentError, match=r"\(1 plugin could not be loaded: see 'anarch plugins doctor'\)"):
            registry.find("relaxation", "efnc")
        with pytest.raises(UnknownComponentError) as caught:
            registry.find_all([("relaxation", "efnc"), ("probe", "zzzz")])
        assert str(caught.value).count("could not be loaded") == 1
        with pytest.raises(UnknownComponentError, match=r"'my-probe': plugin 'my_probe' \(x 1.0\) is broken \(ValueError: no\); see"):
            registry.find("probe", "my-probe")

    def test_a_kind_that_is_none_is_a_mistake_of_the_caller(self, registry: Registry) -> None:
        with pytest.raises(ValueError, match="'probes' is not a kind of component"):
            registry.names("probes")


class TestOptionsAndTargets:
    def test_options_by_mapping_instance_or_default(self, registry: Registry) -> None:
        options = LogOptions(saves=3)
        assert registry.parse_options(LOG, {"saves": 3}) == options
        assert registry.parse_options(LOG, options) is options
        assert registry.parse_options(LOG) == LogOptions()
        assert registry.parse_options(EFCN, {}) is None

    @pytest.mark.parametrize(
        ("info", "options", "message"),
        [
            (EFCN, {"steps": 3}, r"\[efcn\] has no options, so nothing can be set"),
            (LOG, {"savez": 3}, r"\[log\] has no option 'savez'; did you mean 'saves'\?"),
            (LOG, 20, r"\[log\] takes LogOptions or a mapping: 20"),
        ],
    )
    def test_options_that_do_not_fit(self, registry: Registry, info: RelaxationInfo, options: object, message: str) -> None:
        with pytest.raises(OptionError, match=message):
            registry.parse_options(info, options)

    def test_options_are_checked_before_anything_is_imported(self, registry: Registry) -> None:
        with pytest.raises(OptionError):
            registry.create("schedule", "log", {"savez": 3})

    def test_a_target_that_cannot_be_imported(self, registry: Registry) -> None:
        message = r"relaxation 'efcn' of plugin 'anarch' \(anarch 1.0\): cannot import 'nowhere:Efcn': ModuleNotFoundError"
        with pytest.raises(PluginError, match=message):
            registry.create("relaxation", "efcn")

    def test_a_target_that_breaks_its_promise(self, registry: Registry) -> None:
        with pytest.raises(PluginError, match=r"'collections:OrderedDict' must be a subclass of anarch_core.probe.base.AbstractProbe"):
            registry.target(HESSIAN)

    def test_every_built_in_schedule_can_be_made(self) -> None:
        registry = Registry.load(disabled=(), builtin_only=True)
        for name in ("log", "plateau"):
            assert registry.create("schedule", name).moments


class TestDiagnosis:
    def test_says_what_to_do(self) -> None:
        slow = attrs.evolve(record("slow", EFCN), imports_torch=True)
        empty, off = record("empty"), record("off", status=Status.DISABLED)
        stale = record("stale", status=Status.BROKEN, error="ModuleNotFoundError: No module named 'stale'")
        registry = Registry((slow, empty, off, stale))
        texts = [[problem.text for problem in plugin_problems(registry, plugin)] for plugin in registry.plugins]
        assert texts == [
            ["imports torch when it is loaded, which slows every command down by seconds"],
            ["registers no component"],
            [],
            ["broken: ModuleNotFoundError: No module named 'stale'"],
        ]
        assert plugin_problems(registry, stale)[0].advice == "the installation of stale is out of date: install it again"

    def test_imports_targets_on_request(self, registry: Registry) -> None:
        problems = plugin_problems(registry, registry.plugins[1], targets=True)
        assert "cannot import 'nowhere:Lcn'" in problems[0].text

    def test_figures_have_names_of_their_own(self) -> None:
        figure = FigureInfo(name="hessian", summary="A figure.", title="Curvature", target="somewhere:Curvature")
        assert registry_problems(Registry((record("anarch", HESSIAN, figure),))) == []
        [clash] = registry_problems(Registry((record("anarch", HESSIAN, figure), record("anarch_Local", figure))))
        assert clash.text == "the figure 'hessian' is drawn by 'anarch' (anarch 1.0) and 'anarch_Local' (anarch_Local 1.0)"

    def test_finds_names_used_twice(self, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ANARCH_DISABLE_PLUGINS", "ghost")
        clash, ghost = registry_problems(registry)
        assert clash.text == "the name 'lcn' is used by 'anarch' (anarch 1.0) and 'anarch_Local' (anarch_Local 1.0)"
        assert ghost.text == "ANARCH_DISABLE_PLUGINS names 'ghost', which is not installed"
