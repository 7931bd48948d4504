"""A promise, many generated tries to break it, and the count of those that did."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import attrs


@attrs.frozen
class Try:
    """One abuse.

    Attributes:
        name: what is done, in words that allow to do it again.
        held: does it in an empty folder; returns if the promise held and raises, an AssertionError or whatever came, if it broke.
    """

    name: str
    held: Callable[[Path], None]

    @classmethod
    def of(cls, abuse: Callable[..., None], **how: object) -> Try:
        """``abuse(folder, **how)``, named by its arguments."""
        words = ", ".join(f"{name} {getattr(value, 'name', value)}" for name, value in how.items())
        return cls(words, lambda folder: abuse(folder, **how))


@attrs.frozen
class Campaign:
    """Tries of one kind.

    Attributes:
        promise: what must hold, in a sentence.
        tries: generates them from a source of random numbers, the most telling first; they may be endless.
        count: how many make a whole campaign.
        in_suite: how many of them the test suite takes; none where one alone takes too long for it.
        limit: seconds that one of them may take; a longer one has broken the promise.
        missing: says what the tries need that is not here; None if they can be done.
    """

    promise: str
    tries: Callable[[random.Random], Iterator[Try]]
    count: int
    in_suite: int
    limit: float = 60.0
    missing: Callable[[], str | None] = lambda: None

    def run(self, seed: int, count: int | None = None) -> Tally:
        """Do the first tries of a seed.

        Args:
            seed: of what is generated; equal seeds give equal tries.
            count: how many, :attr:`count` by default.
        """
        broken: dict[str, str] = {}
        number = 0
        for number, attempt in enumerate(itertools.islice(self.tries(random.Random(seed)), self.count if count is None else count), 1):
            with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
                try:
                    with _within(self.limit):
                        attempt.held(Path(folder))
                except (Exception, SystemExit, KeyboardInterrupt, OvertimeError) as error:  # whatever comes, it is not what was promised
                    broken[f"{number}: {attempt.name}"] = _in_short(error)
        return Tally(number, broken)


@attrs.frozen
class Tally:
    """How a campaign ended.

    Attributes:
        tries: how many there were.
        broken: how each of those that broke the promise did, by its number and name.
    """

    tries: int
    broken: dict[str, str]


class OvertimeError(BaseException):
    """A try takes too long; nothing that is tried takes this for an error of its own and goes on."""


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise OvertimeError(f"not done after {seconds:.0f} s")

    found = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, found)


def _in_short(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]} ({Path(where.filename).name}:{where.lineno})"
