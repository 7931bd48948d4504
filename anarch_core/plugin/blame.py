"""Whose component it was: what is wrong in a plugin's code is told with the component, its plugin, distribution and version."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, TypeVar

from anarch_core.errors import AnarchError, PluginError, Stopped, plain

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_ORIGIN = "_anarch_origin"


def sign(made: Any, origin: str) -> None:
    """Note on an object where it comes from, as a message begins; what takes no attributes is left as it is."""
    with suppress(AttributeError, TypeError):
        object.__setattr__(made, _ORIGIN, origin)


def origin(made: Any) -> str:
    """Where an object comes from: what :func:`sign` noted, or the name of its class."""
    noted = getattr(made, _ORIGIN, None)
    return noted if isinstance(noted, str) else f"{type(made).__module__}.{type(made).__qualname__}"


def fault(who: str, error: BaseException, doing: str = "") -> BaseException:
    """What to raise for an exception that came out of a plugin's code.

    Args:
        who: see :func:`origin`.
        error: what came.
        doing: what was tried, where the exception alone would not tell.

    Returns:
        a PluginError with the name; the exception itself, if it is an AnarchError, which explains itself, or if the user wants to stop.
    """
    if isinstance(error, AnarchError | KeyboardInterrupt | Stopped):
        return error
    said = plain(error)
    cause = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return PluginError(f"{who}: {f'{doing}: ' if doing else ''}{cause}")


@contextmanager
def on_behalf_of(who: str, doing: str = "") -> Iterator[None]:
    """Run a plugin's code; see :func:`fault`.

    Raises:
        PluginError: the code raised, or wanted to leave the program.
    """
    try:
        yield
    except BaseException as error:
        raised = fault(who, error, doing)
        if raised is error:
            raise
        raise raised from error


def answering(method: Callable[P, R], *kinds: type) -> Callable[P, R]:
    """A component's method, which names the component in what it raises, and where its answer is none of some types.

    Args:
        method: bound to the component.
        kinds: what it may answer with; anything where none is named.
    """
    who = origin(getattr(method, "__self__", method))

    @functools.wraps(method)
    def asked(*args: P.args, **kwargs: P.kwargs) -> R:
        with on_behalf_of(who):
            answer = method(*args, **kwargs)
        if kinds:
            expected(who, f"{method.__name__}()", answer, *kinds)
        return answer

    return asked


def expected(who: str, what: str, answer: object, *kinds: type[T]) -> T:
    """An answer of a component, if it has one of some types.

    Raises:
        PluginError: it has another.
    """
    if not isinstance(answer, kinds):
        wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
        msg = f"{who}: {what} gave a {type(answer).__name__}, expected {wanted}"
        raise PluginError(msg)
    return answer
