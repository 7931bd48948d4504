"""The line to a broker, and the process at its other end."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

from anarch_core.errors import ConfigError, RunError
from anarch_core.workers import Stop, scratch

CONNECT = 25.0
"""Seconds for a cluster to take us in."""

START = 120.0
"""Seconds for a Ray of our own to start."""

END = 30.0
"""Seconds for everything to end that is not needed any more."""

LONGEST = 20
"""Characters of a folder in which Ray finds its sockets."""

NO_TOKEN = "InvalidAuthToken"
"""What Ray writes, again and again, where a cluster does not know our token."""

ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would tell its makers
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` it would send the working directory to all nodes, run directories and all
    "PYTHONUNBUFFERED": "1",
}


class Line:
    """Starts a broker, and has it join or start Ray.

    Args:
        address: ``"local"`` or as Ray takes it.
        settings: what the broker is told first, see :func:`anarch_plugins.workers.ray.broker.main`.
        stop: whether the run was asked to stop, which ends the waiting.

    Attributes:
        connection: to the broker.

    Raises:
        ConfigError: the cluster cannot be joined, or Ray cannot be started here.
        Stopped: the run was asked to stop.
    """

    def __init__(self, address: str, settings: Mapping[str, Any], stop: Stop) -> None:
        self._address = address
        with contextlib.ExitStack() as block:
            self._log = block.enter_context(tempfile.TemporaryFile())
            local = address == "local"
            folder = str(block.enter_context(scratch("anarch-ray", within=_short()))) if local else None
            self.connection, theirs = Pipe()
            block.callback(self._end)
            command = [sys.executable, "-P", "-m", "anarch_plugins.workers.ray.broker", str(theirs.fileno())]
            # In a session of its own: signals of a terminal or a batch system reach the run, which sees to it that states are saved.
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=_own() if local else {**os.environ, **ALWAYS},
                start_new_session=True,
            )
            theirs.close()
            self.send(dict(settings, address=address, folder=folder))
            with stop.at_once():
                self._joined(START if local else CONNECT)
            self._block = block.pop_all()

    def send(self, message: object) -> None:
        """Tell the broker.

        Raises:
            RunError: it is gone.
        """
        try:
            self.connection.send(message)
        except OSError:
            raise self.broken() from None

    def broken(self) -> RunError:
        """What to raise when the broker is gone."""
        said = self._last_words()
        why = "the head of the cluster does not answer any more" if "GCS" in said else f"the line to Ray is cut ({said})"
        return RunError(f"{why}; what was saved is there, and 'anarch resume' goes on from it")

    def close(self) -> None:
        """End the broker, the workers, and a Ray of our own."""
        self._block.close()

    def _end(self) -> None:
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=END)
        with contextlib.suppress(ProcessLookupError):  # what it has not ended itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _joined(self, seconds: float) -> None:
        """Wait until the broker is in Ray."""
        until = time.monotonic() + seconds
        why = f"Ray did not answer within {seconds:.0f} s"
        while time.monotonic() < until:
            if self.connection.poll(0.2):
                try:
                    what, _, content = self.connection.recv()
                except (EOFError, OSError):
                    why = self._last_words()
                    break
                if what == "ready":
                    return
                why = str(content)
                break
            if NO_TOKEN in self._said():
                why = NO_TOKEN
                break
        if self._address == "local":
            msg = f"Ray cannot be used here: {why}"
        elif NO_TOKEN in why + self._said() or "uthentication" in why:
            msg = (
                f"the Ray cluster at {self._address} wants another token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH to the cluster's ('ray get-auth-token' on its head)"
            )
        else:
            msg = f"the Ray cluster at {self._address} cannot be joined: {why}; this machine must be a node of it (ray start --address=...)"
        raise ConfigError(msg)

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._said().splitlines() if line.strip()]
        return lines[-1][-300:] if lines else f"exit code {self._process.poll()}"


def _short() -> Path:
    """A folder for Ray's folder, whose sockets the system gives 107 characters; temporary ones of a batch system are often too long."""
    found = Path(tempfile.gettempdir())
    return found if len(str(found)) <= LONGEST else Path("/tmp")


def _own() -> dict[str, str]:
    """The environment of a Ray that is ours alone: nobody else knows its token."""
    others = ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_NAMESPACE")
    found = {name: value for name, value in os.environ.items() if name not in others}
    return {**found, **ALWAYS, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
