"""Files that try to have code run: configurations, run directories, checkpoints, results, and what lies in the working directory."""

from __future__ import annotations

import json
import os
import pickle
import tomllib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import hostile_run
import tomli_w
import torch
from campaign import Campaign, Try
from command import Ended, apart, here
from hostile_run import checkpoint, copied, rewritten, table, unfinished

WITNESS = "code-was-run"
TOUCH = f"import pathlib\npathlib.Path({WITNESS!r}).touch()\n"
LISTS = ("relax", "probe", "control", "path", "layers")
SETTINGS = ("model", "data", "optimizer", "switch", "recipe", "precision", "device", "lr_schedule", *LISTS)


def factories(number: int) -> list[tuple[str, dict[str, Any]]]:
    """Names of functions, and the options with which calling one would leave a trace. The module is one that no other try has loaded."""
    touch = f"touch {WITNESS}"
    return [
        ("os:system", {"command": touch}),
        ("subprocess:check_output", {"args": ["touch", WITNESS]}),
        (f"hostile_{number}:make", {}),
        (f"hostile_{number}:Missing", {}),
        ("builtins:exec", {"source": TOUCH}),
        ("pathlib:Path.touch", {"self": WITNESS}),
        ("torch.hub:load", {"repo_or_dir": ".", "model": "make", "source": "local"}),
    ]


def plant(folder: Path, number: int) -> None:
    """The module that the factories name, where a program would look for it."""
    text = TOUCH + "def make(*_, **__):\n    " + TOUCH.replace("\n", "\n    ") + "\n"
    for name in (f"hostile_{number}.py", "hubconf.py"):
        (folder / name).write_text(text)


def clean(folder: Path) -> None:
    """Nothing left its trace."""
    found = [str(path) for path in folder.rglob(WITNESS)]
    assert not found, "code of a file was run"


def settings_of(name: str, value: str, options: dict[str, Any]) -> dict[str, Any]:
    """A configuration in which a setting has a value, with options for it."""
    tables = {name: {value: options}} if name in ("model", "data", "optimizer", "switch", "relax", "probe") and options else {}
    return {"run": {"epochs": 1, name: [value] if name in LISTS else value}, **tables}


def configured(number: int, name: str, factory: tuple[str, dict[str, Any]], command: str) -> Try:
    """A configuration file names a function."""

    def held(folder: Path) -> None:
        plant(folder, number)
        (folder / "a.toml").write_text(tomli_w.dumps(settings_of(name, *factory)))
        out = () if command == "plan" else ("--out", "out")
        ended = here(command, "--config", "a.toml", *out, folder=folder)
        clean(folder)
        ended.refused(*(("--model",) if name == "model" and "." not in factory[0].partition(":")[2] else ()))

    return Try(f"anarch {command} --config with {name} = {factory[0]!r}", held)


def resumed(number: int, name: str, factory: tuple[str, dict[str, Any]], command: str) -> Try:
    """The configuration in a run directory names a function."""

    def held(folder: Path) -> None:
        run = copied(folder)
        plant(folder, number)
        plant(run, number)
        content = tomllib.loads((run / "config.toml").read_text())
        changed = settings_of(name, *factory)
        content["run"][name] = changed["run"][name]
        content |= {key: value for key, value in changed.items() if key != "run"}
        (run / "config.toml").write_text(tomli_w.dumps(content))
        unfinished(run)
        ended = _on_run(command, run, folder)
        clean(folder)
        if command != "report":
            ended.refused()

    return Try(f"anarch {command} of a run directory with {name} = {factory[0]!r}", held)


def _on_run(command: str, run: Path, folder: Path) -> Ended:
    if command in ("resume", "report"):
        return here(command, "run", folder=folder).told()
    out = ("--out", "run") if command == "run" else ()
    return here(command, "--config", run / "config.toml", *out, folder=folder).told()


def described(number: int, what: str, command: str, factory: tuple[str, dict[str, Any]]) -> Try:
    """The metadata of a checkpoint name a function."""

    def change(metadata: dict[str, str]) -> None:
        name, options = factory
        if what == "model":
            table(metadata, "anarch.model", lambda record: record.update(name=name, options=options))
        elif what == "options":
            table(metadata, "anarch.model", lambda record: record.update(options={**record["options"], **options, "weights": name}))
        elif what in ("name", "distribution", "version"):
            table(metadata, "anarch.relaxations", lambda records: records[0].update({what: name, "options": options}))
        else:
            metadata[what] = json.dumps({"name": name, "options": options})

    def held(folder: Path) -> None:
        plant(folder, number)
        file = rewritten(checkpoint(), folder / "a.safetensors", change)
        on_checkpoint(command, file, folder).told()
        clean(folder)

    return Try(f"anarch {command} of a checkpoint whose {what} is {factory[0]!r}", held)


def on_checkpoint(command: str, file: Path, folder: Path) -> Ended:
    """A command that reads a checkpoint."""
    data = ("--data", f"tensors:{hostile_run.finished().parent / 'signals.safetensors'}")
    more: dict[str, tuple[object, ...]] = {
        "relax": ("--to", "efcn", "--out", "relaxed"),
        "project": ("--out", "projected"),
        "probe": ("--probe", "delta", *data),
        "interpolate": (checkpoint(), *data),
    }
    return here(command, file, *more.get(command, ()), folder=folder)


class Pickled:
    """What leaves a trace when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {WITNESS}",)


def unpickled(ending: str, writer: str, command: tuple[object, ...]) -> Try:
    """A pickle where another file is expected."""

    def held(folder: Path) -> None:
        file = folder / f"evil{ending}"
        if writer == "torch":
            torch.save({"x": Pickled(), "weight": Pickled()}, file)
        elif writer == "old torch":
            torch.save({"x": Pickled()}, file, _use_new_zipfile_serialization=False)
        else:
            file.write_bytes(pickle.dumps(Pickled()))
        ended = here(*(str(word).replace("FILE", str(file)) for word in command), folder=folder)
        clean(folder)
        ended.refused(file.name)

    return Try(f"anarch {' '.join(map(str, command))} with a pickle ({writer}) as FILE{ending}", held)


def beside(name: str, text: str, command: str) -> Try:
    """A file of a telling name lies in the working directory, and in the run directory."""

    def held(folder: Path) -> None:
        run = copied(folder)
        unfinished(run)
        for place in (folder, run):
            file = place / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        words = {"--help": ("--help",), "plan": ("plan", "--relax", "lcn", "--no-time")}.get(command, (command, "run"))
        apart(*words, folder=folder).done()
        clean(folder)

    return Try(f"anarch {command} where {name} lies", held)


MODULES = ("torch", "numpy", "json", "attrs", "pluggy", "tomli_w", "rich", "anarch_plugins", "sitecustomize", "usercustomize", "hostile")
INFO = "[anarch.plugins]\nhostile = hostile\n"
BESIDE = [
    ("hostile-1.0.dist-info/entry_points.txt", INFO),
    ("hostile.egg-info/entry_points.txt", INFO),
    ("matplotlibrc", "text.usetex: True\nbackend: module://hostile\n"),
    (".numba_config.yaml", "cache_dir: .\n"),
    ("hostile.pth", f"import pathlib; pathlib.Path({WITNESS!r}).touch()\n"),
    *((f"{module}.py", TOUCH) for module in MODULES),
]

MARKUP = (
    "<script>alert(1)</script>",
    "</pre></code><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "<a href='javascript:alert(1)'>x</a>",
    "]]></style><script>alert(1)</script>",
    "\x1b]0;title\x07\x1b[2J\x1b[31m",
    "[link=https://x]a[/link][bold]",
    "$\\alpha^{<script>}$",
    "\u202egnp.exe",
)


class Page(HTMLParser):
    """Refuses what a page without scripts has not."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "iframe", "object", "embed", "base", "link", "form"), f"the page has <{tag}>"
        for name, value in attrs:
            assert not name.startswith("on"), f"the page has <{tag} {name}>"
            assert not (value or "").strip().lower().startswith("javascript:"), f"the page links to {value}"
            assert not (tag == "img" and not (value or "").startswith("data:") and name == "src"), f"the page loads {value}"


def shown(where: str, text: str, command: str) -> Try:
    """Markup in what a page or a terminal shows."""

    def held(folder: Path) -> None:
        run = copied(folder)
        file = run / where
        if where.endswith(".json"):
            file.write_text(json.dumps(_marked(json.loads(file.read_text()), text)))
        else:
            file.write_text(f"# {json.dumps(text)[1:-1]}\n" + file.read_text().replace('"cnn1d"', json.dumps(text), 1))
        _harmless(here(command, "run", folder=folder).told(), run)

    return Try(f"anarch {command} of a run directory with {text!r} in {where}", held)


def _marked(value: Any, text: str, key: str = "") -> Any:
    """A JSON value with a text in the place of every string that may be any."""
    if isinstance(value, dict):
        return {name: _marked(inner, text, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_marked(inner, text, key) for inner in value]
    return text if isinstance(value, str) and key not in ("schema", "kind", "id", "parent", "data_sha256") else value


def inspected(text: str, where: str) -> Try:
    """Markup and control characters in a checkpoint."""

    def change(metadata: dict[str, str]) -> None:
        if where == "model":
            table(metadata, "anarch.model", lambda record: record.update(name=text, options={text: text}))
        elif where == "relaxation":
            table(metadata, "anarch.relaxations", lambda records: records[0].update(name=text, version=text, layers={text: [1, 16]}))
        else:
            metadata[f"note {text}"] = text

    def held(folder: Path) -> None:
        file = rewritten(checkpoint(), folder / "a.safetensors", change)
        for command in ("inspect", "project"):
            _harmless(on_checkpoint(command, file, folder).told(), folder)

    return Try(f"anarch inspect and project of a checkpoint with {text!r} in its {where}", held)


def _harmless(ended: Ended, folder: Path) -> None:
    said = ended.out + ended.err
    unseen = {each for each in said if not each.isprintable()} - {"\n", "\t"}
    assert not unseen, f"the terminal is given {unseen}"
    for page in folder.glob("*.html"):
        Page().feed(page.read_text())
    for drawing in folder.glob("figures/*.svg"):
        Page().feed(drawing.read_text())


def tries(random: Random) -> Iterator[Try]:
    """The known ways first, then any setting with any function, any file with any text."""
    numbers = iter(range(10**9))

    yield configured(next(numbers), "model", factories(0)[0], "plan")
    yield resumed(next(numbers), "model", factories(0)[0], "resume")
    yield unpickled(".safetensors", "torch", ("inspect", "FILE"))
    yield described(next(numbers), "model", "project", factories(0)[0])
    yield shown("results.json", MARKUP[0], "report")
    for index in (1, 2, 4, 6):
        number = next(numbers)
        yield configured(number, "model", factories(number)[index], "run")
        number = next(numbers)
        yield resumed(number, "model", factories(number)[index], random.choice(("resume", "run", "plan", "report")))
    for ending, words in (
        (".safetensors", ("relax", "FILE", "--to", "efcn", "--model", "cnn1d", "--input-shape", "1,16", "--classes", "2")),
        (".safetensors", ("plan", "--data", "tensors:FILE", "--model", "cnn1d")),
        (".npy", ("plan", "--data", "tensors:FILE", "--model", "cnn1d")),
        (".pt", ("inspect", "FILE")),
        (".pt", ("interpolate", "FILE", "FILE", "--data", "tensors:FILE")),
    ):
        for writer in ("torch", "old torch", "pickle"):
            yield unpickled(ending, writer, words)
    for name, text in BESIDE:
        yield beside(name, text, "report" if "matplotlib" in name or "numba" in name else random.choice(("resume", "plan", "--help")))
    for text in MARKUP:
        yield shown(random.choice(("results.json", "config.toml", "run.json")), text, "report")
        yield inspected(text, random.choice(("model", "relaxation", "note")))
    while True:
        number = next(numbers)
        chosen = random.choice(factories(number))
        way = random.randrange(5)
        if way == 0:
            yield configured(number, random.choice(SETTINGS), chosen, random.choice(("plan", "run")))
        elif way == 1:
            yield resumed(number, random.choice(SETTINGS), chosen, random.choice(("resume", "run", "plan", "report")))
        elif way == 2:
            whats = ("model", "options", "name", "distribution", "version", "anarch.x.hostile.code")
            commands = ("inspect", "relax", "project", "probe", "interpolate")
            yield described(number, random.choice(whats), random.choice(commands), chosen)
        elif way == 3:
            yield inspected(random.choice(MARKUP), random.choice(("model", "relaxation", "note")))
        else:
            files = ("results.json", "config.toml", "run.json")
            yield shown(random.choice(files), random.choice(MARKUP), random.choice(("report", "resume")))


CAMPAIGN = Campaign(
    promise="no file has code imported or called, and no text of one acts on a page or a terminal",
    tries=tries,
    count=100,
    in_suite=4,
)
