"""What is wrong with the record of a component, of whatever kind, is found; here it is a probe's.

Each test breaks a correct component in one place and runs the one check that has to notice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from anarch_core.plugin.options import opt
from anarch_core.probe.base import AbstractProbe, Measurement
from anarch_core.testing import ProbeConformance

Kit = Callable[..., Any]


class Norm(AbstractProbe):
    headline = ("norm",)

    def measure(self, context: Any) -> Measurement:
        return Measurement(scalars={"norm": float(sum(p.detach().norm() for p in context.model.parameters()))})


@attrs.frozen(kw_only=True)
class Undocumented:
    size: int = attrs.field(default=1, metadata=opt("How many."))


@attrs.frozen(kw_only=True)
class Mumbling:
    """Says too little."""

    size: int = attrs.field(default=1, metadata=opt("how many"))


@attrs.frozen(kw_only=True)
class Doubling:
    """Keeps twice what it is given."""

    size: int = attrs.field(default=1, converter=lambda value: 2 * value, metadata=opt("How many."))


@attrs.frozen(kw_only=True)
class Demand:
    """Has no default."""

    size: int = attrs.field(metadata=opt("How many."))


@pytest.mark.parametrize(
    ("record", "check", "message"),
    [
        ({"summary": "no sentence"}, "test_record_is_complete", "`summary` is a sentence and ends with a full stop"),
        ({"options": Undocumented}, "test_options_are_documented", "Undocumented needs a docstring: one line on what is chosen with it"),
        ({"options": Mumbling}, "test_options_are_documented", "the help of Mumbling.size is a sentence: 'how many'"),
        ({"options": Doubling}, "test_options_survive_flags_and_toml", "the class must keep the values it is given"),
        ({"options": Demand}, "test_defaults_are_allowed", "needs a value for 'size'. Mend the default, or give a value in `options`"),
        ({"name": "batch", "options": Doubling}, "test_flags_are_free", "would be --batch-size, a flag of 'anarch run'"),
        ({"axes": {"norn": "norm"}}, "test_headline_is_measured", r"`axes` of the record names norn, which measure\(\) does not give"),
        ({"target": "wrong_plugin:missing"}, "test_target_is_what_its_kind_promises", "Correct `target` of the record"),
        (
            {"name": "efcn"},
            "test_is_registered",
            "the name 'efcn' is used by .*; all kinds but commands and figures share one set of names",
        ),
    ],
)
def test_a_wrong_record(fails: Kit, plugin: Kit, record: dict[str, Any], check: str, message: str) -> None:
    plugin("probe", Norm, **record)
    fails(ProbeConformance, check, message, name=record.get("name", "wrong"))


def test_a_component_that_is_not_installed(fails: Kit) -> None:
    fails(ProbeConformance, "test_is_registered", r"unknown probe 'wrong'.*project.entry-points.*install the distribution again")


def test_an_import_that_is_not_light(fails: Kit, plugin: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "anarch_wrong-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: anarch-wrong\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[anarch.plugins]\nwrong = wrong_plugin\n")
    (tmp_path / "wrong_plugin.py").write_text("import matplotlib\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugin("probe", Norm)
    monkeypatch.setattr("anarch_core.testing.component._imported_by", _imported_by_uncached())
    fails(
        ProbeConformance, "test_import_is_light", "importing wrong_plugin imports .*matplotlib.*import it in the module that `target` names"
    )


def _imported_by_uncached() -> Any:
    from anarch_core.testing.component import _imported_by

    return _imported_by.__wrapped__
