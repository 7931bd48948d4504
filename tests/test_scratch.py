"""Folders that go with the process that made them."""

import os
import signal
import subprocess
import sys
import time

from anarch_core.files.scratch import YOUNG, scratch

KILLED = """
import os, signal
from pathlib import Path
from anarch_core.files.scratch import scratch
with scratch("mine", within=Path.cwd()) as folder:
    (folder / "states").write_text("large")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_is_there_for_a_while(tmp_path):
    with scratch("mine", within=tmp_path) as folder:
        assert folder.parent == tmp_path
        (folder / "states").write_text("large")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_one(python, tmp_path):
    ended = python("-c", KILLED, folder=tmp_path)
    assert ended.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    [left] = tmp_path.iterdir()
    with scratch("mine", within=tmp_path):
        assert left.exists()  # it may be so young that it is not locked yet
    long_ago = time.time() - YOUNG - 1
    os.utime(left, (long_ago, long_ago))
    with scratch("mine", within=tmp_path):
        assert not left.exists()


def test_what_a_living_process_has_is_left_to_it(tmp_path):
    with scratch("mine", within=tmp_path) as folder:
        long_ago = time.time() - YOUNG - 1
        os.utime(folder, (long_ago, long_ago))
        program = "from pathlib import Path; from anarch_core.files.scratch import scratch\nwith scratch('mine', within=Path.cwd()): pass"
        subprocess.run([sys.executable, "-P", "-c", program], check=True, cwd=tmp_path)
        assert folder.exists()
