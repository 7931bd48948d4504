"""The exception tree. Every message says what is wrong, the value, what was expected and what to do."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import ClassVar

__all__ = [
    "AnarchError",
    "CheckpointError",
    "ComponentConflictError",
    "ConfigError",
    "DataError",
    "InexactRelaxationWarning",
    "LostProcessError",
    "MissingDependencyError",
    "NoEffectWarning",
    "OptimizerStateWarning",
    "OptionError",
    "OtherVersionWarning",
    "OutOfMemoryError",
    "PenaltyError",
    "PluginError",
    "ProbeError",
    "RunError",
    "Stopped",
    "SurgeryError",
    "UnknownComponentError",
    "close_matches",
    "did_you_mean",
]


class AnarchError(Exception):
    """Base of every error that a user can cause. The command line prints its text alone.

    Attributes:
        exit_code: what the command line exits with.
    """

    exit_code: ClassVar[int] = 1

    def _render_traceback_(self) -> list[str]:
        """What IPython shows for it: the caller's own lines and the message, as the command line shows the message alone."""
        return own_traceback(self)


class UnknownComponentError(AnarchError, LookupError):
    """A name that no plugin provides.

    Attributes:
        kind: the kind that was asked for, e.g. ``"relaxation"``.
        name: the name as the user wrote it.
        suggestions: close matches, best first.
    """

    def __init__(self, message: str, *, kind: str, name: str, suggestions: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.name = name
        self.suggestions = tuple(suggestions)


class ComponentConflictError(AnarchError):
    """Two plugins provide the same name, and the user did not say whose is meant."""


class PluginError(AnarchError):
    """A plugin could not be loaded, or broke a promise of its interface."""


class OptionError(AnarchError, ValueError):
    """An option of a component is unknown or has a value that is not allowed."""


class ConfigError(AnarchError, ValueError):
    """A configuration file, a flag or a combination of settings is not usable."""


class DataError(AnarchError, ValueError):
    """A data set is missing, unreadable, or not what the model needs."""


class MissingDependencyError(AnarchError, ImportError):
    """A package that this one thing needs is missing or broken; everything else works without it."""


class SurgeryError(AnarchError, ValueError):
    """A module cannot be replaced exactly. The message names it by path.

    Attributes:
        paths: the modules that were refused.
    """

    def __init__(self, message: str, *, paths: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.paths = tuple(paths)


class OutOfMemoryError(AnarchError, MemoryError):
    """A relaxation would need more memory than there is; raised before anything is allocated.

    Attributes:
        needed: bytes that would be allocated.
        available: bytes that are free.
    """

    def __init__(self, message: str, *, needed: int, available: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available


class CheckpointError(AnarchError, ValueError):
    """A checkpoint is truncated, altered, of another schema, or does not fit the model."""


class ProbeError(AnarchError, ValueError):
    """A network or its data does not allow a measurement."""


class PenaltyError(AnarchError, ValueError):
    """A network does not allow a penalty on its layers."""


class RunError(AnarchError, RuntimeError):
    """A run directory cannot be used: it holds another experiment, or a segment failed."""


class LostProcessError(RunError):
    """Another process that holds a part of the same network is gone, or does not answer; it says nothing about the network."""


class Stopped(BaseException):
    """Ends what is under way because the run was asked to stop. No error, so that what survives errors does not survive it."""


def close_matches(name: str, known: Iterable[str]) -> list[str]:
    """Which of the known names an unknown one was probably meant for: at most three, best first."""
    return difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)


def did_you_mean(close: Sequence[str]) -> str:
    """How a message on an unknown name goes on: ``"; did you mean 'sgd'?"``, or empty where no name is close."""
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


class NoEffectWarning(UserWarning):
    """A relaxation found nothing to replace."""


class InexactRelaxationWarning(UserWarning):
    """A relaxed network differs from its parent by more than rounding."""


class OtherVersionWarning(UserWarning):
    """A file was made with another version of a plugin, and whether that one did the same cannot be seen."""


class OptimizerStateWarning(UserWarning):
    """State of an optimizer that was to be carried over a switch starts anew."""


def plain(text: object, longest: int = 500) -> str:
    r"""What somebody else wrote, as one line that a terminal shows as it is.

    Line breaks and other space become one space each run; control characters, also those that turn the direction of writing, and halves of
    surrogate pairs become escapes such as ``\x1b``; what is longer than ``longest`` is cut. What has no text is its class in brackets.
    """
    try:
        whole = str(text)[: 4 * longest]
    except Exception:
        whole = f"<{type(text).__name__}>"
    shown = "".join(map(_visible, " ".join(whole.split())))
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def legible(text: object, longest: int = 20_000) -> str:
    """What somebody else wrote, such as a traceback: as :func:`plain`, but lines and spaces are kept."""
    whole = str(text)
    cut = whole if len(whole) <= longest else f"{whole[: longest // 2]}\n…\n{whole[-longest // 2 :]}"
    return "".join(character if character == "\n" else _visible(character) for character in cut.expandtabs())


_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _UNSEEN:
        return character
    return character.encode("ascii", "backslashreplace").decode() if ord(character) > 127 else f"\\x{ord(character):02x}"


def own_traceback(error: BaseException) -> list[str]:
    """Where an exception was caused by the caller's own lines, and what it says; what a component raised is shown whole."""
    inside, cause = os.path.dirname(__file__), error.__cause__  # noqa: PTH120
    frames = list(traceback.extract_tb(error.__traceback__))
    shell = max((index for index, frame in enumerate(frames) if "IPython" in frame.filename), default=-1)
    own = [frame for frame in frames[shell + 1 :] if not frame.filename.startswith(inside)]
    whole = [] if cause is None or isinstance(cause, AnarchError) else [*traceback.format_exception(cause), "\nwhich became\n"]
    return [text.rstrip("\n") for text in (*whole, *traceback.format_list(own), f"{type(error).__name__}: {error}")]


def first_line(error: BaseException) -> str:
    """What an exception says, of several lines the first; the name of its class where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def one_line(error: BaseException) -> str:
    """The class of an exception, and the first line of what it says."""
    return f"{type(error).__name__}: {first_line(error)}" if str(error).strip() else first_line(error)


def warn(message: str, category: type[Warning]) -> None:
    """Warn of the line that called anarch, however many calls of its own, and decorators of PyTorch, lie between."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("anarch_core", "torch"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
