"""What editors know of the settings of a run is what there is."""

from __future__ import annotations

import attrs

from anarch_core.config.run_config import RunConfig
from anarch_core.verbs.settings import Settings


def test_keywords_are_in_step_with_the_configuration() -> None:
    fields = [field.name for field in attrs.fields(RunConfig)]
    assert list(Settings.__annotations__) == fields, (
        "write a line for every field of RunConfig into Settings, verbs/settings.py, in its order"
    )
