"""A plugin does what it must not while it is imported: the command line goes on without it, and the doctor says what it does."""

from __future__ import annotations

import json
import os
import random
import signal
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from campaign import Campaign, Try
from command import Ended, apart

RECORD = """
from anarch_core import hookimpl
from anarch_core.plugin.records import ProbeInfo, FigureInfo, CommandInfo

@hookimpl
def anarch_probes():
    return [ProbeInfo(name="evil-probe", summary={summary!r}, target="{target}")]
"""
GOOD = RECORD.format(summary="A probe.", target="evil_target:Probe")
TARGET = """
from anarch_core.probe.base import AbstractProbe, Measurement

class Probe(AbstractProbe):
    def measure(self, context):
        return Measurement(scalars={"one": 1.0})
"""

# By what is done while the plugin is imported: the code, whether it can still be used, and words that the doctor finds.
SURVIVED: dict[str, tuple[str, bool, str]] = {
    "hangs": ("import time; time.sleep(1000)", False, "not done after"),
    "hangs in a loop": ("while True: pass", False, "not done after"),
    "hangs and catches": (
        "import time\nwhile True:\n    try:\n        time.sleep(1000)\n    except Exception: pass",
        False,
        "not done after",
    ),
    "waits for a lock": ("import threading; l = threading.Lock(); l.acquire(); l.acquire()", False, "not done after"),
    "waits in C": ("import ctypes; ctypes.CDLL(None).pause()", False, "not done after"),
    "reads from the keyboard": ("import sys; sys.stdin.read(); raise EOFError('nothing')", False, "EOFError"),
    "prints": ("print('{\"a\": 1}' * 20)", True, "writes to standard output"),
    "writes to the descriptor": ("import os; os.write(1, b'\\x1b[31mhello')", True, "writes to standard output"),
    "prints in a child": ("import os; os.system('echo hello')", True, "writes to standard output"),
    "closes standard output": ("import sys; sys.stdout.close()", True, "closes standard output"),
    "closes the descriptor": ("import os; os.close(1)", True, "closes standard output"),
    "closes both": ("import os; os.close(1); os.close(2)", True, "closes standard error"),
    "closes the first standard output": ("import sys; sys.__stdout__.close()", True, "closes standard output"),
    "replaces standard output": ("import sys, io; sys.stdout = io.StringIO()", True, ""),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", False, "KeyboardInterrupt"),
    "SystemExit": ("import sys; sys.exit()", False, "SystemExit"),
    "SystemExit with text": ("import sys; sys.exit('gone [bold]')", False, "SystemExit: gone"),
    "GeneratorExit": ("raise GeneratorExit", False, "GeneratorExit"),
    "CancelledError": ("import asyncio; raise asyncio.CancelledError", False, "CancelledError"),
    "own BaseException": ("class Evil(BaseException):\n    def __str__(self): raise ValueError\nraise Evil", False, "Evil"),
    "a long message": ("raise ValueError('x' * 10**6)", False, "ValueError"),
    "a coloured message": ("raise ValueError('\\x1b[31m[/bold]\\r\\n\\u202e')", False, "ValueError"),
    "recursion": ("def f(): f()\nf()", False, "RecursionError"),
    "no memory": ("raise MemoryError", False, "MemoryError"),
    "syntax": ("def (", False, "SyntaxError"),
    "null bytes": ("\0", False, "SyntaxError"),
    "missing module": ("import evil_nothing", False, "ModuleNotFoundError"),
    "for ever in a hook": (GOOD.replace("return [", "while True: yield ").replace(")]", ")"), False, "1000 records"),
    "hook that hangs": (GOOD.replace("return [", "import time; time.sleep(1000); return ["), False, "not done after"),
    "hook raises KeyboardInterrupt": (GOOD.replace("return [", "raise KeyboardInterrupt; return ["), False, "KeyboardInterrupt"),
    "a million records": (GOOD.replace("return [", "return 10**6 * [").replace(")]", ")]"), False, "1000 records"),
    "records of the wrong type": (GOOD.replace("return [ProbeInfo", "return [dict"), False, "ProbeInfo"),
    "a record that cannot be shown": (
        GOOD.replace("return [", "class E:\n        def __repr__(self): raise SystemExit\n    return [E(), "),
        False,
        "",
    ),
    "markup": (RECORD.format(summary="[bold] [/] :smile: [link=x]", target="evil_target:Probe"), True, ""),
    "escapes": (RECORD.format(summary="\x1b[2J\x1b]0;x\x07 \b \r gone\n\nlines\u202e back", target="evil_target:Probe"), True, ""),
    "half a character": (RECORD.format(summary="\ud800 half", target="evil_target:Probe"), True, ""),
    "a long summary": (RECORD.format(summary="word " * 10**5, target="evil_target:Probe"), True, ""),
    "summary that is none": (RECORD.format(summary=5, target="evil_target:Probe"), False, "summary"),
    "references that are none": (GOOD.replace("target=", "references=[object()], target="), False, "references"),
    "aliases that are none": (GOOD.replace("target=", "aliases=['[/]', 3], target="), False, "aliases"),
}
CRASHES: dict[str, tuple[str, str]] = {
    "segmentation fault": ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    "os.abort": ("import os; os.abort()", "SIGABRT"),
    "os._exit": ("import os; os._exit(3)", "exit code 3"),
    "os._exit 0": ("import os; os._exit(0)", "exit code 0"),
    "bus error": ("import os, signal; os.kill(os.getpid(), signal.SIGBUS)", "SIGBUS"),
    "floating point": ("import os, signal; os.kill(os.getpid(), signal.SIGFPE)", "SIGFPE"),
}
KILLED: dict[str, str] = {
    "SIGKILL": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "SIGTERM": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "SIGHUP": "import os, signal; os.kill(os.getpid(), signal.SIGHUP)",
    "Ctrl-C": "import os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(5)",
}
TARGETS: dict[str, tuple[str, str]] = {
    "raises": ("raise ZeroDivisionError('no [bold] \\x1b luck')", "ZeroDivisionError"),
    "exits": ("import sys; sys.exit(4)", "SystemExit"),
    "leaves": ("import os; os._exit(4)", "exit code 4"),
    "crashes": ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    "hangs": ("import time; time.sleep(1000)", "not done after"),
    "is missing": ("", "has no attribute 'Probe'"),
    "is no class": ("Probe = 5", "must be a subclass of"),
    "is another class": ("class Probe: pass", "must be a subclass of"),
    "lacks a method": ("from anarch_core.probe.base import AbstractProbe\nclass Probe(AbstractProbe): pass", "lacks measure()"),
    "raises outside Exception": ("raise GeneratorExit", "GeneratorExit"),
    "raises KeyboardInterrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
}
METADATA: dict[str, tuple[str, str]] = {
    "no name": ("", "[anarch.plugins]\nevil = evil\n"),
    "coloured name": ("Metadata-Version: 2.1\nName: e\x1b[31m[bold]vil\nVersion: 1\n", "[anarch.plugins]\nevil = evil\n"),
    "no version": ("Metadata-Version: 2.1\nName: evil\n", "[anarch.plugins]\nevil = evil\n"),
    "no section": ("Metadata-Version: 2.1\nName: evil\nVersion: 1\n", "evil = evil\n"),
    "no value": ("Metadata-Version: 2.1\nName: evil\nVersion: 1\n", "[anarch.plugins]\nevil\n"),
    "odd value": ("Metadata-Version: 2.1\nName: evil\nVersion: 1\n", "[anarch.plugins]\nevil = a b c :: [\n"),
    "odd key": ("Metadata-Version: 2.1\nName: evil\nVersion: 1\n", "[anarch.plugins]\n\x1b[31m[/bold] = evil\n"),
    "twice": ("Metadata-Version: 2.1\nName: evil\nVersion: 1\n", "[anarch.plugins]\nevil = evil\nevil = evil\n"),
}

COMMANDS: Sequence[tuple[str, ...]] = (("--help",), ("plugins", "list"), ("plugins", "list", "--json"), ("run", "--help"))


def install(folder: Path, plugin: str, target: str = TARGET, metadata: str | None = None, points: str | None = None) -> dict[str, str]:
    site = folder / "site"
    info = site / "evil_dist-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(metadata if metadata is not None else "Metadata-Version: 2.1\nName: evil-dist\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(points if points is not None else "[anarch.plugins]\nevil = evil\n")
    (site / "evil.py").write_text(textwrap.dedent(plugin), errors="surrogatepass")
    (site / "evil_target.py").write_text(textwrap.dedent(target))
    path = os.pathsep.join([str(site), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    return {"PYTHONPATH": path, "XDG_STATE_HOME": str(folder / "state"), "ANARCH_PLUGIN_SECONDS": "1.5", "HOME": str(folder)}


def clean(text: str) -> None:
    """Nothing in it moves the cursor, colours or turns a line."""
    odd = {character for character in text if (ord(character) < 32 and character not in "\n") or character in "\u202e\x7f\ud800"}
    assert not odd, f"control characters {odd}"


def says(text: str, *words: str) -> None:
    for word in words:
        assert word in text, f"{word!r} is not in: {text[-800:]}"


def judged(ended: Ended, command: Sequence[str], usable: bool, component: str = "evil-probe") -> None:
    ended.done()
    clean(ended.out)
    assert len(ended.out) < 120_000, f"{len(ended.out)} characters"
    if command[-1] == "--json":
        names = [component["name"] for plugin in json.loads(ended.out) for component in plugin["components"]]
        assert ("efcn" in names, component in names) == (True, usable), names
    if command == ("plugins", "list"):
        assert ("efcn" in ended.out, component in ended.out) == (True, usable), ended.out[-600:]
    if command == ("--help",):
        assert "resume" in ended.out, ended.out


def survived(name: str, command: Sequence[str]) -> Try:
    code, usable, _ = SURVIVED[name]
    whole = code if "@hookimpl" in code else GOOD + "\n" + code

    def held(folder: Path) -> None:
        judged(apart(*command, folder=folder, environment=install(folder, whole)), command, usable)

    return Try(f"{name}: {' '.join(command)}", held)


def told(name: str) -> Try:
    code, _, words = SURVIVED[name]
    whole = code if "@hookimpl" in code else GOOD + "\n" + code

    def held(folder: Path) -> None:
        ended = apart("plugins", "doctor", folder=folder, environment=install(folder, whole) | {"ANARCH_PLUGIN_SECONDS": "9"})
        assert ended.code in ((0, 1) if not words else (1,)), ended.err[-500:]
        clean(ended.out)
        assert words in ended.out, ended.out[-800:]
        assert not words or "evil (evil, evil-dist 1.2)" in ended.out, ended.out[-800:]

    return Try(f"{name}: plugins doctor", held)


def crashed(name: str, command: Sequence[str]) -> Try:
    code, words = CRASHES[name]

    def held(folder: Path) -> None:
        environment = install(folder, GOOD + "\n" + code)
        apart(*command, folder=folder, environment=environment)
        second = apart("--help", folder=folder, environment=environment)
        says(second.err, "'evil' (evil-dist 1.2)", "ANARCH_DISABLE_PLUGINS=evil")
        third = apart("--help", folder=folder, environment=environment | {"ANARCH_DISABLE_PLUGINS": "evil"})
        fourth = apart("--help", folder=folder, environment=environment | {"ANARCH_DISABLE_PLUGINS": "evil"})
        judged(third, ("--help",), usable=False)
        judged(fourth, ("--help",), usable=False)
        assert not fourth.err, fourth.err
        doctor = apart("plugins", "doctor", folder=folder, environment=environment | {"ANARCH_PLUGIN_SECONDS": "20"})
        assert doctor.code == 1, doctor.err
        says(doctor.out, words, "evil-dist 1.2")

    return Try(f"{name}: {' '.join(command)}", held)


def killed(name: str) -> Try:
    def held(folder: Path) -> None:
        environment = install(folder, GOOD + "\n" + KILLED[name])
        first = apart("--help", folder=folder, environment=environment)
        if name == "Ctrl-C" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # else those that are started here ignore it too
            assert first.told().code == 130, first.err
            says(first.err, "'evil' (evil-dist 1.2)")
        second = apart("--help", folder=folder, environment=environment | {"ANARCH_DISABLE_PLUGINS": "evil"})
        judged(second, ("--help",), usable=False)
        assert not second.err, f"blamed: {second.err}"

    return Try(f"killed by {name} while importing", held)


def targeted(name: str, arguments: Sequence[str]) -> Try:
    code, words = TARGETS[name]

    def held(folder: Path) -> None:
        environment = install(folder, GOOD, target=code) | {"ANARCH_PLUGIN_SECONDS": "12"}
        ended = apart("plugins", "doctor", *arguments, folder=folder, environment=environment)
        clean(ended.out + ended.err)
        assert ended.code == 1, ended.err
        says(ended.out, words, "evil_target:Probe")

    return Try(f"target {name}: plugins doctor {' '.join(arguments)}", held)


def described(name: str, command: Sequence[str]) -> Try:
    metadata, points = METADATA[name]

    def held(folder: Path) -> None:
        ended = apart(*command, folder=folder, environment=install(folder, GOOD, metadata=metadata, points=points))
        clean(ended.out + ended.err)
        assert ended.code in ((0, 1) if command[-1] == "doctor" else (0,)), ended.err
        if command[-1] == "--json":
            assert json.loads(ended.out)

    return Try(f"metadata with {name}: {' '.join(command)}", held)


def tries(source: random.Random) -> Iterator[Try]:
    yield survived("prints", ("plugins", "list", "--json"))
    yield killed("Ctrl-C")
    yield crashed("segmentation fault", ("--help",))
    yield survived("hangs", ("--help",))
    every = [survived(name, command) for name in SURVIVED for command in COMMANDS]
    every += [told(name) for name in SURVIVED]
    every += [crashed(name, command) for name in CRASHES for command in COMMANDS[1:]]
    every += [killed(name) for name in KILLED]
    every += [targeted(name, arguments) for name in TARGETS for arguments in ((), ("evil",), ("evil-probe",))]
    every += [described(name, command) for name in METADATA for command in (*COMMANDS[:3], ("plugins", "doctor"))]
    source.shuffle(every)
    yield from every


CAMPAIGN = Campaign(
    promise="the command line survives a plugin that does what it must not, and the doctor and the next start name it",
    tries=tries,
    count=100,
    in_suite=2,
)
