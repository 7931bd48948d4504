"""What goes wrong in a component is told with its name and its plugin."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from anarch_core.errors import ConfigError, PluginError, legible, plain
from anarch_core.plugin.blame import answering, on_behalf_of, sign


class Component:
    def answer(self, value: Any) -> Any:
        if isinstance(value, BaseException):
            raise value
        return value


@pytest.fixture
def component() -> Component:
    made = Component()
    sign(made, "probe 'x' of plugin 'y' (z 1.2)")
    return made


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ValueError("two\nlines"), "ValueError: two lines"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (SystemExit(3), "SystemExit: 3"),
        (GeneratorExit(), "GeneratorExit"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
def test_whatever_a_component_raises_becomes_an_error_with_its_name(component: Component, raised: BaseException, told: str) -> None:
    with pytest.raises(PluginError) as error:
        answering(component.answer)(raised)
    assert str(error.value) == f"probe 'x' of plugin 'y' (z 1.2): {told}"
    assert error.value.__cause__ is raised


@pytest.mark.parametrize("raised", [ConfigError("explains itself"), KeyboardInterrupt()])
def test_an_error_that_explains_itself_and_an_interrupt_pass(component: Component, raised: BaseException) -> None:
    with pytest.raises(type(raised)) as error:
        answering(component.answer)(raised)
    assert error.value is raised


def test_an_answer_of_the_wrong_type_is_refused(component: Component) -> None:
    assert answering(component.answer, str, type(None))(None) is None
    with pytest.raises(PluginError, match=r"^probe 'x' of plugin 'y' \(z 1.2\): answer\(\) gave a int, expected str or None$"):
        answering(component.answer, str, type(None))(3)


def test_what_was_made_by_hand_goes_by_its_class() -> None:
    with pytest.raises(PluginError, match=r"test_blame.Component: answer\(\) gave a int, expected str"):
        answering(Component().answer, str)(3)


def test_what_was_tried_can_be_said() -> None:
    with pytest.raises(PluginError, match=r"^zoo: cannot list its models: KeyError: 1$"), on_behalf_of("zoo", "cannot list its models"):
        {}[1]


def test_texts_of_others_are_shown_as_they_are() -> None:
    assert plain("a\n b\t\x1b[31mc\u202e\ud800é") == "a b \\x1b[31mc\\u202e\\ud800é"
    assert plain("x" * 600) == "x" * 499 + "…"
    assert legible("  a\n\tb\x07") == "  a\n        b\\x07"
