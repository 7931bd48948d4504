"""Options of components: strict types, one-line errors, and a round trip through JSON, TOML and text."""

from __future__ import annotations

import datetime
import enum
import json
import tomllib
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
import tomli_w
from attrs import validators
from hypothesis import given
from hypothesis import strategies as st

from anarch_core.bounds import between
from anarch_core.errors import OptionError, PluginError
from anarch_core.files.tables import canonical_json
from anarch_core.plugin.option_types import LARGEST
from anarch_core.plugin.options import build, opt, option_fields, parse_spec, spec_options, to_dict


class Padding(enum.Enum):
    ZEROS = "zeros"
    CIRCULAR = "circular"


@attrs.frozen(kw_only=True)
class Options:
    steps: int = attrs.field(default=100, validator=validators.gt(0), metadata=opt("Steps."))
    lr: float = attrs.field(default=0.1, converter=float, validator=validators.gt(0.0), metadata=opt("Learning rate."))
    freeze_head: bool = attrs.field(default=False, metadata=opt("Keep the head."))
    label: str = attrs.field(default="", metadata=opt("A label."))
    init: Literal["exact", "noisy"] = attrs.field(default="exact", metadata=opt("Start."))
    order: Literal[1, 2] = attrs.field(default=2, metadata=opt("Order."))
    padding: Padding = attrs.field(default=Padding.ZEROS, metadata=opt("Padding."))
    file: Path | None = attrs.field(default=None, metadata=opt("A file."))
    period: tuple[int, ...] = attrs.field(default=(2,), metadata=opt("Period."))


class TestBuild:
    def test_takes_defaults_for_what_is_not_given(self) -> None:
        assert build(Options, {}, name="efcn") == Options()

    def test_takes_the_forms_that_toml_has(self) -> None:
        options = build(Options, {"lr": 1, "padding": "circular", "file": "a/b", "period": [3, 4]}, name="efcn")
        assert options == Options(lr=1.0, padding=Padding.CIRCULAR, file=Path("a/b"), period=(3, 4))
        assert isinstance(options.lr, float)

    @pytest.mark.parametrize(
        ("given_value", "message"),
        [
            ({"steps": True}, "[efcn] 'steps' must be a whole number: True"),
            ({"steps": 3.0}, "[efcn] 'steps' must be a whole number: 3.0"),
            ({"steps": "3"}, "[efcn] 'steps' must be a whole number: '3'"),
            ({"steps": 0}, "[efcn] 'steps' must be > 0: 0"),
            ({"lr": -1}, "[efcn] 'lr' must be > 0.0: -1.0"),
            ({"lr": False}, "[efcn] 'lr' must be a finite number: False"),
            ({"lr": float("nan")}, "[efcn] 'lr' must be a finite number: nan"),
            ({"freeze_head": 1}, "[efcn] 'freeze_head' must be true or false: 1"),
            ({"label": 3}, "[efcn] 'label' must be a text: 3"),
            ({"init": "loud"}, "[efcn] 'init' must be one of 'exact', 'noisy': 'loud'"),
            ({"order": True}, "[efcn] 'order' must be one of 1, 2: True"),
            ({"padding": "same"}, "[efcn] 'padding' must be one of 'zeros', 'circular': 'same'"),
            ({"file": 3}, "[efcn] 'file' must be a path or 'none': 3"),
            ({"period": 3}, "[efcn] 'period' must be a list, each item a whole number: 3"),
            ({"period": [3, False]}, "[efcn] 'period' must be a list, each item a whole number: [3, False]"),
            ({"stepz": 3}, "[efcn] has no option 'stepz'; did you mean 'steps'?"),
        ],
    )
    def test_says_in_one_line_what_is_wrong(self, given_value: dict[str, Any], message: str) -> None:
        with pytest.raises(OptionError) as caught:
            build(Options, given_value, name="efcn")
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)

    def test_names_options_that_have_no_default(self) -> None:
        @attrs.frozen(kw_only=True)
        class Required:
            path: Path = attrs.field(metadata=opt("A file."))

        with pytest.raises(OptionError, match=r"\[tensors\] needs a value for 'path'"):
            build(Required, {}, name="tensors")

    def test_rules_between_options_are_told_in_one_line(self) -> None:
        @attrs.frozen(kw_only=True)
        class Between:
            low: int = attrs.field(default=1, metadata=opt("Low."))
            high: int = attrs.field(default=2, metadata=opt("High."))

            def __attrs_post_init__(self) -> None:
                if self.low > self.high:
                    msg = f"'low' must not be above 'high':\n{self.low} > {self.high}"
                    raise ValueError(msg)

        with pytest.raises(OptionError) as caught:
            build(Between, {"low": 3}, name="x")
        assert str(caught.value) == "[x] 'low' must not be above 'high': 3 > 2"


def options_of() -> st.SearchStrategy[Options]:
    """Options of every kind."""
    return st.builds(
        Options,
        steps=st.integers(1, LARGEST),
        lr=st.floats(min_value=1e-9, max_value=1e9),
        freeze_head=st.booleans(),
        label=st.text(st.characters(codec="utf-8", exclude_characters="\0")),
        init=st.sampled_from(["exact", "noisy"]),
        order=st.sampled_from([1, 2]),
        padding=st.sampled_from(Padding),
        file=st.none() | st.from_regex(r"[a-m/]{1,8}", fullmatch=True).map(Path),
        period=st.lists(st.integers(-LARGEST, LARGEST)).map(tuple),
    )


class TestRoundTrip:
    @given(options_of())
    def test_json(self, options: Options) -> None:
        assert build(Options, json.loads(canonical_json(to_dict(options))), name="x") == options

    @given(options_of())
    def test_what_changed_is_enough(self, options: Options) -> None:
        assert build(Options, to_dict(options, only_changed=True), name="x") == options

    @given(options_of())
    def test_toml_with_none_as_text(self, options: Options) -> None:
        table = {key: "none" if value is None else value for key, value in to_dict(options).items()}
        assert build(Options, tomllib.loads(tomli_w.dumps(table)), name="x") == options

    def test_only_changed_leaves_out_defaults_so_that_new_options_keep_old_identities(self) -> None:
        assert to_dict(Options(), only_changed=True) == {}
        assert to_dict(Options(steps=7, padding=Padding.CIRCULAR), only_changed=True) == {"steps": 7, "padding": "circular"}

    def test_canonical_json_does_not_depend_on_order(self) -> None:
        assert canonical_json({"b": 1, "a": [1.5, "ü"]}) == canonical_json({"a": [1.5, "ü"], "b": 1}) == '{"a":[1.5,"ü"],"b":1}'
        with pytest.raises(ValueError, match="JSON"):
            canonical_json(float("inf"))


class TestText:
    @pytest.mark.parametrize(
        ("field", "text", "value"),
        [
            ("steps", "7", 7),
            ("lr", "1e-3", 1e-3),
            ("freeze_head", "true", True),
            ("label", "a,b", "a,b"),
            ("init", "noisy", "noisy"),
            ("order", "1", 1),
            ("padding", "circular", Padding.CIRCULAR),
            ("file", "x/y", Path("x/y")),
            ("file", "none", None),
            ("period", "0, 10,40", (0, 10, 40)),
            ("period", "", ()),
        ],
    )
    def test_is_read_as_the_type_of_the_field(self, field: str, text: str, value: object) -> None:
        assert {field.name: field.type for field in option_fields(Options)}[field].parse(text) == value

    @pytest.mark.parametrize(
        ("field", "text"), [("steps", "7.5"), ("lr", "fast"), ("lr", "inf"), ("freeze_head", "1"), ("order", "3"), ("period", "1,x")]
    )
    def test_that_is_no_value_is_refused(self, field: str, text: str) -> None:
        kind = {field.name: field.type for field in option_fields(Options)}[field]
        with pytest.raises(ValueError, match="must be") as caught:
            kind.parse(text)
        assert repr(text) in str(caught.value)


class TestEdges:
    """Values that no component should ever meet."""

    @pytest.mark.parametrize(
        ("given_value", "message"),
        [
            ({"steps": 10**400}, "'steps' must be a whole number: an integer of 401 digits"),
            ({"steps": 10**5000}, "'steps' must be a whole number: an integer of 5001 digits"),
            ({"lr": 10**400}, "'lr' must be a finite number: an integer of 401 digits"),
            ({"lr": float("inf")}, "'lr' must be a finite number: inf"),
            ({"label": "a\0b"}, "'label' must be a text: this one holds the character NUL: 'a\\x00b'"),
            ({"label": "\udcff"}, "'label' must be a text: this one is not UTF-8: '\\udcff'"),
            ({"label": "x" * 100_000}, "'label' must be a text: this one has 100,000 characters, expected at most 4,096"),
            ({"file": "~nobody-here/x"}, "'file' must be a path or 'none': this one starts with the home of a user who is not known here"),
            ({"file": "x" * 300}, "'file' must be a path or 'none': this one has a name of more than 255 bytes"),
            ({"period": [0] * 2000}, "'period' must be a list, each item a whole number: this one has 2,000 items, and at most 1,000"),
            ({"label": {"a": datetime.date(2026, 1, 1)}}, "'label' must be a text: {'a': datetime.date(2026, 1, 1)}"),
        ],
    )
    def test_are_refused_in_few_words(self, given_value: dict[str, Any], message: str) -> None:
        with pytest.raises(OptionError) as caught:
            build(Options, given_value, name="efcn")
        assert str(caught.value).startswith(f"[efcn] {message}")
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize(
        ("field", "text"), [pytest.param("steps", "9" * 5000, id="long"), ("steps", "٣"), ("lr", "1e400"), ("lr", "٣.٥"), ("lr", "-nan")]
    )
    def test_as_text_are_refused_in_few_words(self, field: str, text: str) -> None:
        kind = {field.name: field.type for field in option_fields(Options)}[field]
        with pytest.raises(ValueError, match="must be") as caught:
            kind.parse(text)
        assert len(str(caught.value)) < 200

    def test_a_zero_has_no_sign(self) -> None:
        assert str({field.name: field.type for field in option_fields(Options)}["lr"].check(-0.0)) == "0.0"

    def test_a_range_is_known_for_help(self) -> None:
        @attrs.frozen(kw_only=True)
        class Ranged:
            share: float = attrs.field(
                default=0.5, converter=float, validator=[between(0, 1, above=True), attrs.validators.ge(0)], metadata=opt("A share.")
            )

        (field,) = option_fields(Ranged)
        assert str(field.range) == "above 0 and up to 1"
        with pytest.raises(OptionError, match=r"\[x\] 'share' must be above 0 and up to 1: 0.0"):
            build(Ranged, {"share": 0}, name="x")


class TestSpec:
    @pytest.mark.parametrize(("text", "parts"), [("log", ("log", None)), ("log:20", ("log", "20")), (" at:0,10:5 ", ("at", "0,10:5"))])
    def test_is_a_name_and_perhaps_a_value(self, text: str, parts: tuple[str, str | None]) -> None:
        assert parse_spec(text) == parts

    @pytest.mark.parametrize("text", ["", ":20", "log:"])
    def test_needs_a_name_and_something_behind_its_colon(self, text: str) -> None:
        with pytest.raises(OptionError, match="write 'name' or 'name:value'"):
            parse_spec(text)

    def test_value_goes_to_the_first_option(self) -> None:
        assert spec_options(Options, "20", name="log") == {"steps": 20}
        with pytest.raises(OptionError, match=r"\[log\] 'steps' must be a whole number: 'many'"):
            spec_options(Options, "many", name="log")

    def test_value_for_a_component_without_options_is_refused(self) -> None:
        with pytest.raises(OptionError, match=r"\[lcn\] has no options, so 'lcn:3' means nothing; write 'lcn'"):
            spec_options(None, "3", name="lcn")


class TestOptionClass:
    """What the author of a plugin may write."""

    @pytest.mark.parametrize(
        "annotation",
        [
            dict,
            complex,
            "int | str",
            tuple[int, int],
            tuple[tuple[int, ...], ...],
            "tuple[int | None, ...]",
            Literal[1.5],
            list[int],
            "Missing",
        ],
    )
    def test_other_types_are_refused_by_class_and_field(self, annotation: Any) -> None:
        wrong = attrs.make_class(
            "Wrong", {"field": attrs.field(default=None, type=annotation, metadata=opt("Help."))}, kw_only=True, frozen=True
        )
        with pytest.raises(PluginError, match="option class Wrong"):
            option_fields(wrong)

    @pytest.mark.parametrize(
        ("field", "message"),
        [
            (attrs.field(default=1, type=int), "no help text"),
            (attrs.field(default="1", type=int, metadata=opt("Help.")), "the default must be a whole number: '1'"),
            (attrs.field(init=False, default=1, type=int, metadata=opt("Help.")), "kw_only=True"),
            (
                attrs.field(default=attrs.Factory(lambda self: 1, takes_self=True), type=int, metadata=opt("Help.")),
                "depend on other options",
            ),
        ],
    )
    def test_mistakes_are_found_when_the_plugin_is_loaded(self, field: Any, message: str) -> None:
        wrong = attrs.make_class("Wrong", {"size": field}, kw_only=True, frozen=True)
        with pytest.raises(PluginError, match=f"option class Wrong, field 'size': .*{message}"):
            option_fields(wrong)

    def test_positional_options_are_refused(self) -> None:
        wrong = attrs.make_class("Wrong", {"size": attrs.field(default=1, type=int, metadata=opt("Help."))}, frozen=True)
        with pytest.raises(PluginError, match="kw_only=True"):
            option_fields(wrong)
