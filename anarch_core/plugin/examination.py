"""Looking at a plugin in a process of its own, which it may crash, hang or leave.

The other process is :mod:`anarch_core.plugin.examinee`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from anarch_core.errors import plain
from anarch_core.plugin.diagnosis import Problem
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.examinee import LARGEST
from anarch_core.plugin.guard import seconds_allowed

_CHILD = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from anarch_core.plugin.examinee import report; report(*sys.argv[2:])"


@attrs.frozen(kw_only=True)
class Examination:
    """What was found of one plugin.

    Attributes:
        record: what is known of it; without components, which stayed in the other process.
        components: kind, name and summary of each.
        problems: what is wrong.
        harmful: whether it must not be imported here: it crashed, left or blocked its process.
    """

    record: PluginRecord
    components: Sequence[tuple[str, str, str]]
    problems: Sequence[Problem]
    harmful: bool = False

    @classmethod
    def of(cls, record: PluginRecord, problems: Sequence[Problem]) -> Examination:
        """Of a plugin that was looked at in this process, or not at all."""
        return cls(record=record, components=[(info.kind, info.name, info.summary) for info in record.components], problems=problems)


def examined(record: PluginRecord) -> Examination:
    """Import a plugin and everything that its records name, elsewhere.

    Args:
        record: what is known of it without importing it.

    Raises:
        KeyboardInterrupt: the user interrupted it; the message names the plugin.
    """
    seconds = seconds_allowed()
    with tempfile.TemporaryDirectory(prefix="anarch-doctor-") as name:
        report, out, err = (Path(name) / part for part in ("report", "out", "err"))
        for path in (report, out, err):
            path.touch()
        command = [sys.executable, "-X", "faulthandler", "-c", _CHILD, json.dumps(sys.path), record.name, record.distribution, str(report)]
        code = _run(command, out, err, seconds, record)
        lines = [json.loads(line) for line in _read(report).splitlines() if line.endswith("}")]
        found: dict[str, Any] = {key: value for line in lines for key, value in line.items()}
        harm = _harm(code, found, seconds, _read(err))
        printed = _read(out)
    problems = [] if harm is None else [harm]
    problems += [Problem(**problem) for line in lines for problem in line.get("problems", ())]
    if printed:
        said = plain(printed, 60)
        problems.append(Problem(f"writes to standard output when it is imported: {said!r}", "let it print nothing, or use logging"))
    known = {key: found[key] for key in ("status", "error", "traceback", "seconds", "imports_torch") if key in found}
    if "status" in known:
        known["status"] = Status(known["status"])
    elif harm is not None:
        known |= {"status": Status.BROKEN, "error": harm.text}
    components = [(str(kind), str(name), str(summary)) for kind, name, summary in found.get("components", ())]
    return Examination(record=attrs.evolve(record, **known), components=components, problems=problems, harmful=harm is not None)


def _run(command: Sequence[str], out: Path, err: Path, seconds: float, record: PluginRecord) -> int | None:
    """The exit code; None for a process that had to be killed."""
    with out.open("wb") as output, err.open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        except KeyboardInterrupt:
            msg = f"while plugin {record.name!r} ({record.owner}) was examined"
            raise KeyboardInterrupt(msg) from None
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it and what it started."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except OSError:  # nothing of it is left
            process.kill()
    else:
        process.kill()
    process.wait()


def _harm(code: int | None, found: dict[str, Any], seconds: float, err: str) -> Problem | None:
    """What the plugin did to its process, if anything."""
    when = f"when {plain(found.get('doing', 'the interpreter starts'))}"
    disable = "leave it out with ANARCH_DISABLE_PLUGINS until it is mended, and tell its author"
    if code is None:
        text = "does not let its process end: a thread that is no daemon?" if "done" in found else f"is not done after {seconds:g} s {when}"
        return Problem(text, f"{disable}; if it is only slow, ANARCH_PLUGIN_SECONDS allows more")
    if code < 0:
        return Problem(f"crashes the interpreter ({_signal(-code)}) {when}", disable, _tail(err))
    if "done" not in found:
        return Problem(f"ends the program (exit code {code}) {when}", disable, _tail(err))
    return None


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-20:])


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(LARGEST).decode(errors="replace")
