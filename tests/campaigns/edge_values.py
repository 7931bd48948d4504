"""Values at the edge, for every setting and every option of the built-in components: as flags, in TOML files and from Python."""

from __future__ import annotations

import datetime
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import attrs
import torch
from campaign import Campaign, Try
from command import Ended, here
from safetensors.torch import save_file

import anarch_core
from anarch_core.config.files import KINDS, SETTINGS
from anarch_core.config.resolution import resolve
from anarch_core.errors import AnarchError
from anarch_core.models import model_spec
from anarch_core.plugin.option_types import BoolType
from anarch_core.plugin.options import OptionField, option_fields
from anarch_core.plugin.registry import get_registry

HUGE = "9" * 5000
BASE = {"data": "tensors:tiny.safetensors", "model": "cnn1d", "relax": "tiled", "epochs": "2", "branch-epochs": "1", "batch-size": "4"}
QUICK = ("--jobs", "1", "--threads", "1", "--device", "cpu")

TEXTS: tuple[str, ...] = (
    "1e308",
    HUGE[:400],
    HUGE,
    "inf",
    "-inf",
    "nan",
    "1e400",
    "-0.0",
    "0",
    "-1",
    "5e-324",
    "1.5",
    "true",
    "",
    " ",
    "٣",
    "１",
    "1_0",
    "0x10",
    "~nobody-here/x",
    "\udcff",
    "x" * 300,
    "x" * 100_000,
    "x/" * 5000,
    "1," * 50_000 + "1",
    "0-99999999",
    "5-1",
    "0-" + HUGE,
    "log:1000000000",
    "log:" + HUGE,
    "at:" + ",".join(map(str, range(100_000))),
    "at:" + HUGE,
    "at:0," + HUGE + "it",
    "plateau:" + HUGE,
    "step:" + HUGE,
    "step:1,2@1e300",
    "step:1@" + HUGE,
    "step:" + ",".join(map(str, range(1, 3000))) + "@1e6",
    "lcn@" + HUGE,
    "tiled:" + HUGE + "@1",
    "cuda:" + HUGE,
    "*" * 5000,
    "[" * 5000,
    "/dev/null",
    "/dev/null/x",
    ",",
    ":",
    "@",
    "!",
    "9223372036854775807",
    "9223372036854775808",
    "1000000000",
    "a\nb\x1b[31m",
    "%s%n{0}",
)
"""What is written behind a flag."""

TOML: tuple[str, ...] = (
    HUGE[:400],
    HUGE,
    "inf",
    "nan",
    "-nan",
    "1e400",
    "-0.0",
    "0",
    "-1",
    "true",
    "1979-05-27",
    "1979-05-27T07:32:00Z",
    "07:32:00",
    "{ a = 1 }",
    "{ a = { b = [1] } }",
    "[]",
    "[[1]]",
    "[" * 400 + "]" * 400,
    "[true, 1, 'x']",
    "[nan]",
    "'none'",
    "''",
    '"\\u0000"',
    '"~nobody-here/x"',
    '"a\\u0000b"',
    json.dumps("x" * 100_000),
    "[" + "1," * 100_000 + "1]",
    "[" + "'x'," * 100_000 + "'x']",
    "9223372036854775807",
    "9223372036854775808",
    "0x7fff_ffff_ffff_ffff",
    "'log:1000000000'",
    "'0-99999999'",
)
"""What is written behind a key."""

VALUES: tuple[Any, ...] = (
    10**400,
    10**5000,
    -(10**5000),
    math.inf,
    math.nan,
    -0.0,
    0,
    -1,
    True,
    b"x",
    object(),
    type,
    datetime.date(2026, 1, 1),
    {},
    {"a": 1},
    {1: {}},
    [],
    [[]],
    [[1]],
    [None],
    [10**5000],
    [math.nan],
    range(10**9),
    "\0",
    "\ud800",
    "",
    "x" * 100_000,
    Path("~nobody-here"),
    Path("x" * 5000),
    3 + 4j,
    torch.ones(2),
    torch.tensor(3),
    torch.ones(2).numpy(),
    {1, 2},
)
"""What a setting or an option is given in Python."""


@attrs.frozen
class Target:
    """A setting, or an option of a component.

    Attributes:
        name: as in TOML and Python.
        flag: as on the command line, without its dashes.
        key: of the table in TOML, as in ``run`` and ``optimizer.sgd``.
        choice: settings that choose its component.
        words: one of them must be in a refusal.
        boolean: whether the flag takes no value.
    """

    name: str
    flag: str
    key: str
    choice: dict[str, str]
    words: tuple[str, ...]
    boolean: bool = False


@cache
def targets() -> tuple[Target, ...]:
    """All of them: the settings, then the options."""
    found = []
    for name, field in SETTINGS.items():
        flag = name.replace("_", "-")
        kind = field.metadata["kind"]
        words = (
            name,
            flag,
            "layer pattern",
            "no layer is chosen",
            "there is no file",
            "is not a component",
            *((kind, *get_registry().names(kind)) if kind else ()),
        )
        found.append(Target(name, flag, "run", {}, words))
    for setting, kind in KINDS.items():
        for info in get_registry().infos(kind):
            if info.options is not None and info.options.__module__.startswith("anarch_plugins."):
                found += [_option(setting, info, field) for field in option_fields(info.options)]
    return tuple(found)


def _option(setting: str, info: Any, field: OptionField) -> Target:
    spec = {"tensors": BASE["data"], "torchvision": "torchvision:resnet18", "at": "at:0"}.get(info.name, info.name)
    flag = f"{info.name}-{field.name.replace('_', '-')}"
    words = (field.name, flag, field.name.replace("_", "-"), info.name)
    return Target(field.name, flag, f"{setting}.{info.name}", {setting: spec}, words, isinstance(field.type, BoolType))


@cache
def _tiny() -> Path:
    """A data set of a few signals of two classes."""
    path = Path(tempfile.mkdtemp(prefix="campaign-data-")) / "tiny.safetensors"
    generator = torch.Generator().manual_seed(0)
    save_file({"x": torch.randn(16, 1, 8, generator=generator), "y": torch.arange(16) % 2}, path)
    return path


@cache
def _network() -> Path:
    """The checkpoint of a network for it."""
    spec = model_spec("cnn1d", input_shape=(1, 8), classes=2, options={"channels": 2})
    path = _tiny().with_name("net.safetensors")
    anarch_core.save(spec.build(seed=0), path, model_spec=spec)
    return path


def _laid(folder: Path) -> Path:
    shutil.copy(_tiny(), folder)
    return folder


def _judged(ended: Ended, target: Target) -> None:
    """It was done, or the refusal names what is refused."""
    ended.told()
    assert ended.code == 0 or any(word in ended.err + ended.out for word in target.words), f"{target.words} not in: {ended.err}"


def _arguments(settings: dict[str, str]) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name}", value)]


def _as_flag(target: Target, text: str) -> Callable[[Path], None]:
    def held(folder: Path) -> None:
        settings = {name: value for name, value in {**BASE, **target.choice}.items() if name != target.flag}
        _judged(here("plan", *_arguments(settings), *QUICK, f"--{target.flag}={text}", folder=_laid(folder)), target)

    return held


def _in_a_file(target: Target, text: str) -> Callable[[Path], None]:
    target = attrs.evolve(target, words=(*target.words, "a.toml cannot be read"))

    def held(folder: Path) -> None:
        settings = {name: value for name, value in {**BASE, **target.choice}.items() if name != target.flag}
        (folder / "a.toml").write_text(f"[{target.key}]\n{target.name} = {text}\n")
        _judged(here("plan", "--config", "a.toml", *_arguments(settings), *QUICK, folder=_laid(folder)), target)

    return held


def _in_python(target: Target, value: Any) -> Callable[[Path], None]:
    def held(folder: Path) -> None:
        settings: dict[str, Any] = {name.replace("-", "_"): value for name, value in {**BASE, **target.choice}.items()}
        settings |= {name: int(settings[name]) for name in ("epochs", "branch_epochs", "batch_size")}
        if target.key == "run":
            settings[target.name] = value
        else:
            settings["options"] = {target.key.partition(".")[2]: {target.name: value}}
        try:
            resolve(settings)
        except AnarchError as error:
            said = str(error)
        else:
            return
        assert any(word in said for word in target.words), said
        assert len(said) < 2000, f"{len(said)} characters"

    return held


COMMANDS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("interpolate", "net.safetensors", "net.safetensors", "--data", BASE["data"], "--device", "cpu"),
        (
            "method",
            "points",
            "samples",
            "steps",
            "lr",
            "stiffness",
            "seed",
            "data",
            "data-root",
            "device",
            "model",
            "input-shape",
            "classes",
        ),
    ),
    (
        ("probe", "net.safetensors", "--probe", "gradient", "--data", BASE["data"], "--device", "cpu"),
        (
            "probe",
            "seed",
            "gradient-samples",
            "gradient-batch-size",
            "data",
            "data-root",
            "device",
            "reference",
            "parent",
            "json",
            "classes",
        ),
    ),
    (("relax", "net.safetensors", "--to", "tiled"), ("to", "layers", "out", "model", "input-shape", "classes", "tiled-period")),
    (("project", "net.safetensors"), ("layers", "out", "model", "input-shape", "classes")),
    (("inspect",), ("",)),
    (("report",), ("", "out")),
    (("resume",), ("",)),
    (("plugins", "new", "--kind", "probe"), ("", "dir")),
    (("plugins", "doctor"), ("",)),
)
"""What checkpoints, runs and plugins are asked for, and the flags that are given values; an empty one is the command's argument."""


def _of_a_command(command: tuple[str, ...], flag: str, text: str) -> Callable[[Path], None]:
    def held(folder: Path) -> None:
        shutil.copy(_network(), _laid(folder))
        here(*command, f"--{flag}={text}" if flag else text, folder=folder).told()

    return held


ENDS: tuple[tuple[str, ...], ...] = (
    ("--lr=5e-324",),
    ("--lr=1e6", "--branch-lr=1e6"),
    ("--lr=1e3", "--lr-schedule=step:1@1000"),
    ("--batch-size=1",),
    ("--batch-size=1000000000", "--train-limit=1000000000"),
    ("--seeds=9223372036854775807",),
    ("--validation=0.999999999",),
    ("--validation=0.000000001",),
    ("--validation=15",),
    ("--train-limit=1",),
    ("--switch=log:1000",),
    ("--switch=at:0,1it,1ep,2",),
    ("--switch=plateau:1", "--plateau-min-delta=1000000"),
    ("--switch=plateau:1000000",),
    ("--relax=tiled:10000",),
    ("--relax=tiled:1,tiled:2,tiled:3",),
    ("--cnn1d-channels=1",),
    ("--sgd-momentum=0.9999999999999999", "--sgd-nesterov"),
    ("--sgd-weight-decay=1000",),
    ("--optimizer=adam", "--adam-eps=5e-324", "--adam-betas=0,0"),
    ("--optimizer=adam", "--adam-eps=1", "--adam-betas=0.9999999999999999,0.9999999999999999"),
    ("--optimizer=adamw", "--adamw-weight-decay=1000", "--lr=1e6"),
    ("--precision=bfloat16", "--lr=1e6"),
    ("--precision=float64", "--lr=5e-324"),
    ("--threads=1024",),
    ("--path=tiled@1it,conv@2it",),
)
"""Flags whose values are allowed, at the ends of their ranges."""


def _run(flags: tuple[str, ...]) -> Callable[[Path], None]:
    def held(folder: Path) -> None:
        named = {flag.partition("=")[0].removeprefix("--") for flag in flags}
        settings = {name: value for name, value in {**BASE, "switch": "at:0", "out": "r"}.items() if name not in named}
        if "path" in named:
            del settings["relax"], settings["switch"]
        quick = (*QUICK[:2], *QUICK[4:], *(() if "threads" in named else QUICK[2:4]))
        here("run", *_arguments(settings), *quick, *flags, folder=_laid(folder)).told()

    return held


def _kinds(target: Target, random: Random) -> Iterator[Try]:
    """A value for a target in each of the three ways."""
    text, toml, value = random.choice(TEXTS), random.choice(TOML), random.choice(VALUES)
    if not target.boolean:
        yield Try(f"plan --{target.flag}={text[:40]!r}…", _as_flag(target, text))
    yield Try(f"[{target.key}] {target.name} = {toml[:40]}…", _in_a_file(target, toml))
    yield Try(f"resolve({target.key}: {target.name} = a {type(value).__name__})", _in_python(target, value))


def tries(random: Random) -> Iterator[Try]:
    """First what is known to have been a traceback, a hang or gigabytes; then every value and every target, in some order."""
    known = {target.flag: target for target in targets()}
    for flag, text in (
        ("seeds", "0-99999999"),
        ("switch", "log:1000000000"),
        ("lr", "1e308"),
        ("epochs", HUGE),
        ("data-root", "~nobody-here/x"),
        ("tensors-path", "~nobody-here/x"),
        ("out", "\udcff"),
        ("lr-schedule", "step:1,2@1e300"),
        ("jobs", HUGE[:400]),
        ("sgd-momentum", "nan"),
        ("layers", "x" * 100_000),
    ):
        yield Try(f"plan --{flag}={text[:40]!r}", _as_flag(known[flag], text))
    for flag, text in (("lr", HUGE), ("epochs", "1979-05-27"), ("sgd-momentum", HUGE[:400]), ("seeds", '"0-99999999"')):
        yield Try(f"{known[flag].name} = {text[:40]} in a file", _in_a_file(known[flag], text))
    for flag, value in (("lr", 10**400), ("data-root", "\0"), ("relax", range(10**9)), ("epochs", torch.ones(2))):
        yield Try(f"resolve({flag}=a {type(value).__name__})", _in_python(known[flag], value))
    yield from (Try(f"run {' '.join(flags)}", _run(flags)) for flags in random.sample(ENDS, 8))
    while True:
        for target in random.sample(targets(), len(targets())):
            yield from _kinds(target, random)
            command, flags = random.choice(COMMANDS)
            flag, text = random.choice(flags), random.choice(TEXTS)
            yield Try(f"{' '.join(command)} --{flag}={text[:40]!r}…", _of_a_command(command, flag, text))


CAMPAIGN = Campaign(
    promise="every value at the edge is done or refused in a few words that name the setting",
    tries=tries,
    count=1200,
    in_suite=19,
    limit=20,
)
