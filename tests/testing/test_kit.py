"""The kit as a whole: each of its checks is shown to catch something, in the files beside this one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from anarch_core.testing import (
    DatasetConformance,
    FigureConformance,
    ModelConformance,
    ObserverConformance,
    OptimizerConformance,
    ProbeConformance,
    RelaxationConformance,
    ScheduleConformance,
    WorkersConformance,
)

pytest_plugins = ["pytester"]


def test_every_check_is_shown_to_catch_something() -> None:
    """All but those that need a GPU, and those whose failure is an exception with its own words."""
    own_words = {"test_applying_twice_is_defined"}
    kits = (
        RelaxationConformance,
        ProbeConformance,
        ModelConformance,
        DatasetConformance,
        ScheduleConformance,
        OptimizerConformance,
        ObserverConformance,
        WorkersConformance,
        FigureConformance,
    )
    checks = {name for kit in kits for name in dir(kit) if name.startswith("test_") and not name.startswith("test_cuda_")}
    shown = "".join(file.read_text() for file in Path(__file__).parent.glob("test_catches_*.py"))
    assert {check for check in checks if f'"{check}"' not in shown} - own_words == set()


def test_expected_failures_must_fail_and_be_checks(pytester: pytest.Pytester) -> None:
    """A check that is expected to fail and passes is an error; a name that is no check is told at once."""
    pytester.makepyfile(
        """
        from anarch_core.testing import ScheduleConformance

        class TestLog(ScheduleConformance):
            name = "log"
            expected_failures = {"test_switches_at_all": "for once"}

        class TestMissing(ScheduleConformance):
            name = "missing"
            expected_failures = {"test_switches_at_all": "it is not installed"}
        """
    )
    result = pytester.runpytest_inprocess("-k", "test_switches_at_all", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, xfailed=1)
    result.stdout.fnmatch_lines(["*XPASS(strict)*for once*"])
    with pytest.raises(TypeError, match="names 'test_unknown', which is no check of ScheduleConformance"):
        type("TestLog", (ScheduleConformance,), {"expected_failures": {"test_unknown": "?"}})


def test_what_the_kit_needs_is_told() -> None:
    code = "import sys; sys.modules['hypothesis'] = None; import anarch_core.testing"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "the conformance kit needs hypothesis; pip install 'anarch[test]'" in ran.stderr
