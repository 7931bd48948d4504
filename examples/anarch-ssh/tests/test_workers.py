"""A few machines that share nothing: some are late, some are others than the run needs, some are cut off."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import anarch_core
from anarch_core.errors import OptionError
from anarch_core.observer import AbstractObserver, Event, Warned
from anarch_core.plugin import get_registry
from anarch_ssh.options import processes

SETTINGS: dict[str, Any] = {
    "relax": "efcn",
    "switch": "at:0",
    "epochs": 1,
    "branch_epochs": 1,
    "control": "none",
    "train_limit": 100,
    "device": "cpu",
    "threads": 1,
    "progress": "silent",
}


def bytes_of(path: Path) -> dict[str, bytes]:
    files = [*path.glob("segments/*/*.safetensors"), *path.glob("segments/*/history.jsonl")]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [(("node1",), ["node1"]), (("me@node1*2", "10.0.0.7"), ["me@node1", "me@node1", "10.0.0.7"])],
)
def test_machines_are_named_as_ssh_knows_them(hosts: tuple[str, ...], expected: list[str]) -> None:
    assert processes(hosts) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hosts": ()}, "'hosts' is empty; name machines"),
        ({"hosts": ("-oProxyCommand=sh",)}, "'-oProxyCommand=sh' is no machine; expected a name as ssh knows it"),
        ({"hosts": ("node1*0",)}, "is no machine"),
        ({"hosts": ("node1*99",)}, "at most 64"),
        ({"hosts": ("node1",), "by": "ssh node1"}, "'by' must have {host} where"),
        ({"hosts": ("node1",), "by": "ssh '{host}"}, "must be a command as a shell takes it"),
        ({}, "hosts"),
    ],
)
def test_what_is_no_machine_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        get_registry().create("workers", "ssh", options)


def test_a_run_is_trained_by_those_that_can_be_had(tmp_path: Path) -> None:
    """One machine is not there, one has another PyTorch; the third trains to the same bytes, without the run directory."""
    here = anarch_core.run(out=tmp_path / "here", jobs=1, **SETTINGS)
    other = tmp_path / "other.py"
    other.write_text("import pickle, sys\npickle.dump({'torch': '0.1'}, sys.stdout.buffer)\nsys.stdout.flush()\nsys.stdin.read()\n")
    by = tmp_path / "by"
    by.write_text(
        f'#!/bin/sh\nhost=$1; shift\ncase $host in gone) exit 255;; other) exec {sys.executable} {other};; esac\ncd / && exec "$@"\n'
    )
    by.chmod(0o700)
    said: list[str] = []

    class Noting(AbstractObserver):
        def observe(self, event: Event) -> None:
            said.extend([event.text] if isinstance(event, Warned) else [])

    options = {"ssh": {"hosts": ("gone", "other", "node1"), "by": f"{by} {{host}}", "python": sys.executable}}
    there = anarch_core.run(out=tmp_path / "there", workers="ssh", options=options, observers=[Noting(None)], **SETTINGS)
    assert there.status == "finished"
    assert bytes_of(there.path) == bytes_of(here.path)
    assert any(
        text.startswith("other is left out: it has no Python; ") and "has torch 0.1, the run was begun with" in text for text in said
    )
    assert any(text.startswith("gone: the line is cut (exit code 255)") for text in said)
