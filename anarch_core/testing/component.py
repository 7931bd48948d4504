"""What holds for every kind of component: it is found, imports nothing heavy, and its options travel."""

from __future__ import annotations

import functools
import inspect
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from typing import Any, ClassVar

import click
import pytest
import tomli_w

from anarch_core.cli.components import ComponentOption, component_options
from anarch_core.errors import AnarchError
from anarch_core.files.tables import canonical_json
from anarch_core.plugin.hooks import RECORDS
from anarch_core.plugin.option_types import NONE_TEXT, BoolType, ChoiceType, OptionalType
from anarch_core.plugin.options import OptionField, build, option_fields, to_dict
from anarch_core.plugin.records import NAME_PATTERN, ComponentInfo
from anarch_core.plugin.registry import Registry, get_registry

HEAVY = ("torch", "torchvision", "numpy", "scipy", "matplotlib")

_LOADED_BY = "import json, sys\n{statement}\nprint(json.dumps([name for name in {heavy} if name in sys.modules]))"


class ComponentConformance:
    """Base of the conformance classes; subclass the one of your kind, not this.

    Attributes:
        name: the component, as users call it.
        options: options to test it with, by field name; those that have no default must be here.
        expected_failures: checks that are known to fail, with the reason; such a check that passes is an error.
    """

    kind: ClassVar[str]
    arguments: ClassVar[tuple[str, ...]] = ()

    name: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    expected_failures: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        unknown = [check for check in cls.expected_failures if not callable(getattr(cls, check, None))]
        if unknown:
            msg = f"{cls.__name__}.expected_failures names {unknown[0]!r}, which is no check of {cls.__mro__[1].__name__}"
            raise TypeError(msg)

    @pytest.fixture(autouse=True)
    def _mark_expected_failure(self, request: pytest.FixtureRequest) -> None:
        reason = self.expected_failures.get(request.node.originalname)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    @property
    def registry(self) -> Registry:
        """Where the component is looked up: the installed plugins."""
        return get_registry()

    @property
    def info(self) -> Any:
        """The component's record."""
        try:
            return self.registry.find(self.kind, self.name)
        except AnarchError as error:
            msg = (
                f"{error}. Set `name` of {type(self).__name__} to the name in your record, return that record from the hook "
                f'{self._hook!r}, name your module under [project.entry-points."anarch.plugins"], and install the '
                "distribution again (entry points are read at installation, also of an editable one)"
            )
            raise AssertionError(msg) from error

    @property
    def _hook(self) -> str:
        return next(hook for hook, record in RECORDS.items() if record.kind == self.kind)

    @property
    def called_with(self) -> tuple[str, ...]:
        """Arguments of the target, where it is a function."""
        return self.arguments

    @property
    def parsed_options(self) -> Any:
        """An instance of the option class; None for a component without options."""
        return self.registry.parse_options(self.info, dict(self.options))

    def test_is_registered(self) -> None:
        """The component is found by its name, and its name is nobody else's."""
        owners = self.registry.clashes(self.info.namespace).get(self.info.name, [])
        assert not owners, (
            f"the name {self.name!r} is used by {' and '.join(f'{owner.name!r} ({owner.owner})' for owner in owners)}; "
            "all kinds but commands and figures share one set of names: choose another"
        )

    def test_import_is_light(self) -> None:
        """Finding the component imports neither torch nor anything else that is slow."""
        plugin = self.registry.plugin_of(self.info)
        heavy = _imported_by("from anarch_core.plugin.registry import Registry; Registry.load()") and _imported_by(
            f"import {plugin.module}"
        )
        assert not heavy, (
            f"importing {plugin.module} imports {', '.join(heavy)}, which every command would wait for; "
            "import it in the module that `target` names, and let __init__.py and options.py import neither it nor that module"
        )

    def test_record_is_complete(self) -> None:
        """The record has a one-line summary, valid aliases and textual references."""
        info: ComponentInfo = self.info
        assert info.summary.strip() and "\n" not in info.summary, f"`summary` must be one sentence for listings: {info.summary!r}"
        assert info.summary.strip().endswith("."), f"`summary` is a sentence and ends with a full stop: {info.summary!r}"
        wrong = [alias for alias in info.aliases if not NAME_PATTERN.fullmatch(alias) or alias == info.name]
        assert not wrong, f"`aliases` are former names, lower-case letters, digits and hyphens: {wrong}"
        texts = all(isinstance(reference, str) and reference.strip() for reference in info.references)
        assert texts, f"`references` are papers or addresses, as text: {info.references!r}"

    def test_target_is_what_its_kind_promises(self) -> None:
        """The target can be imported and is a final subclass of its interface, or takes the arguments it will be called with."""
        try:
            target = self.registry.target(self.info)
        except AnarchError as error:
            msg = f"{error}. Correct `target` of the record: 'package.module:Name'"
            raise AssertionError(msg) from error
        if self.called_with:
            signature = inspect.signature(target)
            try:
                signature.bind(*self.called_with)
            except TypeError as error:
                called = f"{self.info.target.partition(':')[2]}({', '.join(self.called_with)})"
                msg = f"the target is called as {called}, but its signature is {signature}: {error}"
                raise AssertionError(msg) from error
            return
        interface = next(base for base in reversed(target.__mro__) if inspect.isabstract(base))
        concrete = [
            base.__name__
            for base in target.__mro__[1:]
            if base is not interface and issubclass(base, interface) and not inspect.isabstract(base)
        ]
        assert not concrete, (
            f"{target.__name__} inherits from {', '.join(concrete)}, which can be used itself; a class is abstract or final: "
            "derive from the interface and share code through functions or an abstract base"
        )

    def test_options_are_documented(self) -> None:
        """The option class and every option say what they are for."""
        if self.info.options is None:
            return
        cls = self.info.options
        # attrs writes no docstring of its own.
        assert inspect.getdoc(cls), f"{cls.__name__} needs a docstring: one line on what is chosen with it"
        for field in option_fields(cls):
            assert field.help.strip().endswith("."), f"the help of {cls.__name__}.{field.name} is a sentence: {field.help!r}"

    def test_defaults_are_allowed(self) -> None:
        """The options that the test gives, with all other options at their defaults, are accepted by the option class."""
        try:
            assert (self.parsed_options is None) == (self.info.options is None)
        except AnarchError as error:
            msg = f"{error}. Mend the default, or give a value in `options` of {type(self).__name__}"
            raise AssertionError(msg) from error

    def test_options_survive_flags_and_toml(self) -> None:
        """Every option comes back the same from flags, from a TOML table and from JSON."""
        if self.info.options is None:
            return
        for options in self._variants():
            given = to_dict(options)
            flagged = _through_flags(self.info, options)
            assert flagged == options, f"flags give {flagged!r} for {options!r}; the class must keep the values it is given"
            table = {key: NONE_TEXT if value is None else value for key, value in given.items()}
            read = tomllib.loads(tomli_w.dumps({self.name: table}))[self.name]
            again = build(self.info.options, read, name=self.name)
            assert again == options, f"a TOML table gives {again!r} for {options!r}; the class must keep the values it is given"
            again = build(self.info.options, json.loads(canonical_json(given)), name=self.name)
            assert again == options, f"JSON gives {again!r} for {options!r}; the class must keep the values it is given"

    def test_flags_are_free(self) -> None:
        """No flag of the component is a flag of `anarch run` itself."""
        from anarch_core.cli.run import command

        taken = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        for field in option_fields(self.info.options) if self.info.options is not None else ():
            option = ComponentOption(self.info, field)
            clash = taken.intersection((*option.opts, *option.secondary_opts))
            assert not clash, (
                f"the option {field.name!r} would be {clash.pop()}, a flag of 'anarch run'; rename the option or the component"
            )

    def _variants(self) -> list[Any]:
        """The tested options, and for every choice, switch and optional value also the others, where the class allows them."""
        variants = [self.parsed_options]
        for field in option_fields(self.info.options):
            for value in _others(field):
                try:
                    variants.append(build(self.info.options, {**self.options, field.name: value}, name=self.name))
                except AnarchError:
                    continue  # not allowed together with the other options
        return variants


def _others(field: OptionField) -> list[Any]:
    if isinstance(field.type, BoolType):
        return [True, False]
    if isinstance(field.type, ChoiceType):
        return list(field.type.members.values())
    return [None] if isinstance(field.type, OptionalType) else []


def _through_flags(info: ComponentInfo, options: Any) -> Any:
    """What ``anarch run --<component>-<field>=...`` makes of the options."""
    assert info.options is not None
    fields = option_fields(info.options)
    arguments = []
    for field in fields:
        value = field.type.dump(getattr(options, field.name))
        stem = f"{info.name}-{field.name.replace('_', '-')}"
        if isinstance(field.type, BoolType):
            arguments.append(f"--{stem}" if value else f"--no-{stem}")
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else NONE_TEXT if value is None else str(value)
            arguments.append(f"--{stem}={text}")
    command = click.Command("run", params=[ComponentOption(info, field) for field in fields])
    with command.make_context("run", arguments) as context:
        return build(info.options, component_options(context).get(info.name, {}), name=info.name)


@functools.cache
def _imported_by(statement: str) -> tuple[str, ...]:
    """Which heavy packages a fresh process has imported after a statement."""
    return tuple(json.loads(in_fresh_process(_LOADED_BY.format(statement=statement, heavy=HEAVY)).splitlines()[-1]))


def in_fresh_process(code: str, *arguments: str) -> str:
    """What a new Python process that finds the same modules prints.

    Raises:
        AssertionError: it failed; the message ends with its traceback.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, f"in a fresh process:\n{ran.stderr}"
    return ran.stdout
