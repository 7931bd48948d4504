"""A component raises, or answers with rubbish: it is named with its plugin, distribution and version, and there is no traceback."""

from __future__ import annotations

import asyncio
import functools
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import click
import torch
from campaign import Campaign, Try
from command import here
from safetensors.torch import save_file

from anarch_core import hookimpl
from anarch_core.data import TensorData
from anarch_core.errors import AnarchError
from anarch_core.plugin.options import opt
from anarch_core.plugin.records import (
    CommandInfo,
    DatasetInfo,
    FigureInfo,
    ModelInfo,
    OptimizerInfo,
    ProbeInfo,
    RelaxationInfo,
    ScheduleInfo,
)
from anarch_core.plugin.registry import get_registry
from anarch_core.probe.base import AbstractProbe, Measurement, ProbeContext
from anarch_core.report.figure import AbstractFigure
from anarch_core.schedule import AbstractSchedule, Clock, Moment
from anarch_plugins.relaxations.efcn.relaxation import FullyConnectedRelaxation

OWNER = "(failing 1.2)"


class Evil(BaseException):
    """Of nobody's family."""


class OwnError(AnarchError):
    """Explains itself."""


RAISED: Sequence[Callable[[], BaseException]] = (
    lambda: ValueError("odd \x1b[31m\nlines"),
    lambda: KeyError("x"),
    lambda: SystemExit(3),
    lambda: GeneratorExit(),
    lambda: asyncio.CancelledError(),
    lambda: Evil("evil"),
    lambda: RecursionError("deep"),
    lambda: MemoryError(),
    lambda: AssertionError("x" * 100_000),
    lambda: NotImplementedError(),
    lambda: FileNotFoundError(2, "No such file", "nowhere"),
    lambda: StopIteration(),
    lambda: OwnError("own words"),
)

does: dict[str, Callable[[], Any]] = {}
"""What a place does instead of what it should."""


def place(name: str, otherwise: Callable[[], Any]) -> Any:
    return does[name]() if name in does else otherwise()


class Relaxation(FullyConnectedRelaxation):  # type: ignore[misc,valid-type]
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        place("relaxation made", lambda: None)

    def refusal(self, site: Any) -> Any:
        return place("refusal", lambda: super(Relaxation, self).refusal(site))

    def cost(self, site: Any) -> Any:
        return place("cost", lambda: super(Relaxation, self).cost(site))

    def lift(self, site: Any) -> Any:
        return place("lift", lambda: super(Relaxation, self).lift(site))

    def transport(self, *arguments: Any) -> Any:
        return place("transport", lambda: super(Relaxation, self).transport(*arguments))


class Probe(AbstractProbe):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        place("probe made", lambda: None)

    @property
    def needs(self) -> Any:  # type: ignore[override]
        return place("needs", frozenset)

    def memory(self, rehearsal) -> float:
        return place("memory", lambda: 1.0)  # type: ignore[no-any-return]

    def measure(self, context: ProbeContext) -> Measurement:
        return place("measure", lambda: Measurement(scalars={"one": 1.0}))  # type: ignore[no-any-return]


class Schedule(AbstractSchedule):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        place("schedule made", lambda: None)

    def moments(self, clock: Clock) -> tuple[Moment, ...]:
        return place("moments", lambda: (Moment(0, clock.iterations_per_epoch),))  # type: ignore[no-any-return]

    def switches_now(self, history: Any) -> bool:
        return place("switches_now", lambda: False)  # type: ignore[no-any-return]


class Figure(AbstractFigure):
    heading = "Odd"

    def draw(self, runs: Any, *, narrow: bool = False) -> Any:
        def drawn() -> Any:
            from matplotlib.figure import Figure as Drawing

            return Drawing()

        return place("draw", drawn)

    def caption(self, runs: Any) -> str:
        return place("caption", lambda: "Odd.")  # type: ignore[no-any-return]


def model(input_shape: Any, classes: int, options: Any) -> Any:
    def built() -> Any:
        channels, length = input_shape
        return torch.nn.Sequential(torch.nn.Conv1d(channels, 2, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(2 * length, classes))

    return place("model", built)


def dataset(root: Any, options: Any) -> Any:
    def loaded() -> Any:
        x, y = torch.randn(20, 1, 16, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
        return TensorData(name="odd", x_train=x, y_train=y, x_test=x.clone(), y_test=y.clone(), classes=3)

    return place("dataset", loaded)


class Stepping(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        return place("step", lambda: super(Stepping, self).step(closure))


def optimizer(parameters: Any, lr: float, options: Any) -> Any:
    return place("optimizer", lambda: Stepping([parameter for _, parameter in parameters], lr=lr, momentum=0.9))


def checked(instance: Any, attribute: Any, value: Any) -> None:
    place("option", lambda: None)


@attrs.frozen(kw_only=True)
class Options:
    """One."""

    size: int = attrs.field(default=1, validator=checked, metadata=opt("A number."))


@click.command()
def command() -> None:
    """Odd."""
    place("command", lambda: None)


def names() -> Any:
    return place("zoo", lambda: ["odd-one"])


def text(name: str) -> dict[str, str]:
    return {"summary": "Odd.", "target": f"failing_components:{name}"}


@hookimpl
def anarch_relaxations() -> list[RelaxationInfo]:
    return [RelaxationInfo(name="odd-relaxation", **text("Relaxation"))]  # type: ignore[arg-type]


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    return [ProbeInfo(name="odd-probe", options=Options, **text("Probe"))]  # type: ignore[arg-type]


@hookimpl
def anarch_schedules() -> list[ScheduleInfo]:
    return [ScheduleInfo(name="odd-schedule", **text("Schedule"))]  # type: ignore[arg-type]


@hookimpl
def anarch_models() -> list[ModelInfo]:
    zoo = ModelInfo(name="odd-zoo", options=Options, zoo="failing_components:names", **text("model"))  # type: ignore[arg-type]
    return [ModelInfo(name="odd-model", **text("model")), zoo]  # type: ignore[arg-type]


@hookimpl
def anarch_datasets() -> list[DatasetInfo]:
    return [DatasetInfo(name="odd-data", **text("dataset"))]  # type: ignore[arg-type]


@hookimpl
def anarch_optimizers() -> list[OptimizerInfo]:
    return [OptimizerInfo(name="odd-optimizer", roles={"momentum_buffer": "gradient"}, **text("optimizer"))]  # type: ignore[arg-type]


@hookimpl
def anarch_figures() -> list[FigureInfo]:
    return [FigureInfo(name="odd-figure", title="Odd one", order=1, **text("Figure"))]  # type: ignore[arg-type]


@hookimpl
def anarch_commands() -> list[CommandInfo]:
    return [CommandInfo(name="odd-command", **text("command"))]  # type: ignore[arg-type]


RUN = (
    "run --data tensors:{waves} --model cnn1d --cnn1d-channels 3 --relax odd-relaxation --epochs 1 --branch-epochs 1 --batch-size 10 "
    "--control none --jobs 1 --threads 1 --device cpu --out run"
)
PLAN = RUN.replace("run --data", "plan --data", 1).replace(" --out run", "")
# By place: the command that comes there, and rubbish that it can answer with.
NOTHING: Sequence[Any] = (None, 5, "text", [], object())
PLACES: dict[str, tuple[str, Sequence[Any]]] = {
    "relaxation made": (PLAN + " --switch at:0", ()),
    "refusal": (PLAN + " --switch at:0", (5, [], object())),
    "cost": (PLAN + " --switch at:0", NOTHING),
    "lift": (RUN + " --switch at:0", NOTHING),
    "transport": (RUN + " --switch at:1 --optimizer odd-optimizer --optimizer-state carry", (5, "text", object())),
    "probe made": (RUN + " --switch at:0 --probe odd-probe", ()),
    "needs": (RUN + " --switch at:0 --probe odd-probe", (None, 5, {"everything"}, [object()])),
    "memory": (PLAN + " --switch at:0 --probe odd-probe", (None, "text", object())),
    "measure": (RUN + " --switch at:0 --probe odd-probe", (*NOTHING, Measurement(scalars={"a": "b"}), Measurement(scalars={3: 1.0}))),  # type: ignore[dict-item]
    "option": (PLAN + " --switch at:0 --probe odd-probe --odd-probe-size 3", ()),
    "schedule made": (PLAN + " --switch odd-schedule", ()),
    "moments": (PLAN + " --switch odd-schedule", (None, 5, (1, 2), (None,), (Moment(5, 7),))),
    "switches_now": (RUN + " --switch odd-schedule", ()),
    "model": (PLAN.replace("cnn1d --cnn1d-channels 3", "odd-model") + " --switch at:0", (None, 5, "text", object())),
    "zoo": (PLAN.replace("cnn1d --cnn1d-channels 3", "odd-one") + " --switch at:0", (None, 5, [1], [None])),
    "dataset": (PLAN.replace("tensors:{waves}", "odd-data") + " --switch at:0", NOTHING),
    "optimizer": (PLAN + " --switch at:0 --optimizer odd-optimizer", NOTHING),
    "step": (RUN + " --switch at:0 --optimizer odd-optimizer", ()),
    "command": ("odd-command", ()),
}


@functools.cache
def waves() -> Path:
    """A data set; and this module is installed as the plugin of a distribution."""
    folder = Path(tempfile.mkdtemp(prefix="campaign-failing-"))
    y = torch.arange(30) % 3
    x = torch.sin(torch.arange(16) * (y[:, None] + 1) * 0.7)[:, None].contiguous()
    save_file({"x": x[:20].clone(), "y": y[:20].clone(), "x_test": x[20:].clone(), "y_test": y[20:].clone()}, folder / "waves.safetensors")
    info = folder / "failing-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: failing\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[anarch.plugins]\nfailing = failing_components\n")
    sys.path.append(str(folder))
    return folder / "waves.safetensors"


def attempt(where: str, what: str, act: Callable[[], Any], own: bool) -> Try:
    line, _ = PLACES[where]

    def held(folder: Path) -> None:
        arguments = line.format(waves=waves()).split()
        get_registry.cache_clear()
        does[where] = act
        try:
            ended = here(*arguments, folder=folder)
        except BaseException as error:
            msg = f"came through as it was: {type(error).__name__}"
            raise AssertionError(msg) from error
        finally:
            does.clear()
            get_registry.cache_clear()
            sys.path.remove(str(waves().parent))
            waves.cache_clear()
        said = " ".join((ended.err + ended.out).split())
        assert "Traceback" not in said, said[-500:]
        assert len(ended.err) < 4000, f"{len(ended.err)} characters"
        odd = {character for character in ended.err + ended.out if ord(character) < 32 and character != "\n"}
        assert not odd, f"control characters {odd}"
        if where == "command" and ended.code == 3:  # a command says by what it leaves with
            return
        assert ended.code in (0, 1, 2), ended.code
        named = OWNER in said or (where == "option" and "[odd-probe]" in said)  # a ValueError is how an option refuses a value
        assert "own words" in said if own else named, f"{ended.code}: {said[-600:]}"

    return Try(f"{where} {what}", held)


def raising(where: str, make: Callable[[], BaseException]) -> Try:
    def act() -> Any:
        raise make()

    error = make()
    return attempt(where, f"raises {type(error).__name__}", act, isinstance(error, OwnError))


def tries(source: random.Random) -> Iterator[Try]:
    yield raising("refusal", RAISED[0])
    yield attempt("moments", "gives a number", lambda: 5, own=False)
    yield raising("command", RAISED[4])
    every = [raising(where, make) for where in PLACES if where != "memory" for make in RAISED]
    every += [
        attempt(where, f"gives {repr(rubbish)[:60]}", lambda rubbish=rubbish: rubbish, own=False)  # type: ignore[misc]
        for where, (_, answers) in PLACES.items()
        for rubbish in answers
    ]
    source.shuffle(every)
    yield from every


CAMPAIGN = Campaign(
    promise="what goes wrong in a component is told with its plugin, distribution and version, and without a traceback",
    tries=tries,
    count=120,
    in_suite=3,
)
