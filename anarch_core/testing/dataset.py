"""What a data set promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from anarch_core.config.files import SETTINGS
from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import AnarchError
from anarch_core.models import build_model
from anarch_core.plugin.options import parse_spec
from anarch_core.plugin.unknown import FLAGS
from anarch_core.surroundings import Surroundings
from anarch_core.testing.component import ComponentConformance

_COMPONENT_SETTINGS = {"model": "model", "optimizer": "optimizer", "switch": "schedule", "relax": "relaxation", "probe": "probe"}


_LAST: dict[Any, TensorData] = {}


class DatasetConformance(ComponentConformance):
    """Tests of a data set.

    Attributes:
        root: folder that the data are in, as ``--data-root``; None where the data set needs none.
    """

    kind = "dataset"
    arguments = ("root", "options")
    root: ClassVar[Path | None] = None

    def data(self) -> TensorData:
        """The data, loaded once for all checks that only look at them."""
        key = (self.registry.target(self.info), self.root, self.parsed_options)
        if key not in _LAST:
            _LAST.clear()
            _LAST[key] = self.load()
        return _LAST[key]

    def load(self, root: Path | None = None) -> TensorData:
        """Load the data; override to give the target other arguments."""
        found = self.registry.target(self.info)(root or self.root, self.parsed_options)
        assert isinstance(found, TensorData), f"the target gives a {type(found).__name__}, expected an anarch_core.data.TensorData"
        return found

    def test_can_be_trained_on(self) -> None:
        """Shapes, types, labels and sizes agree, all numbers are finite, and every class is in the training part."""
        data = self.data()
        try:
            data.check()
        except AnarchError as error:
            msg = f"{error}. Mend what the target returns"
            raise AssertionError(msg) from error
        missing = sorted(set(range(data.classes)) - set(data.y_train.tolist()))
        assert not missing, f"no training sample is of class {', '.join(map(str, missing))}; labels count from 0 without gaps"

    def test_names_are_right(self) -> None:
        """The data call themselves what the record does, and name either no class or all of them."""
        data = self.data()
        assert data.name == self.info.name, f"the data call themselves {data.name!r}, the record {self.info.name!r}"
        assert len(data.class_names) in (0, data.classes), f"{len(data.class_names)} class names for {data.classes} classes"

    def test_inputs_are_normalised(self) -> None:
        """Inputs are contiguous float32 on the CPU, centred and scaled about as networks expect."""
        data = self.data()
        for part in ("x_train", "x_test"):
            x: torch.Tensor = getattr(data, part)
            assert x.dtype == torch.float32 and x.device.type == "cpu" and x.is_contiguous(), (
                f"{part} must be contiguous float32 on the CPU"
            )
        mean, deviation = float(data.x_train.double().mean()), float(data.x_train.double().std())
        assert abs(mean) < 3 * deviation and 0.05 < deviation < 20, (
            f"the training inputs have mean {mean:.3g} and deviation {deviation:.3g}; "
            "normalise them, e.g. with channel_statistics and normalised of anarch_core.data"
        )

    def test_is_the_same_every_time(self) -> None:
        """Loading twice gives the same tensors, whatever the random state, and leaves that alone."""
        states = Surroundings.now()
        first = self.load().digest()
        changed = states.changed()
        assert not changed, f"loading changes the {', '.join(changed)}; draw from a generator of your own, with a fixed seed"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(12345)
            second = self.load().digest()
        assert first == second, "loading twice gives other data; draw from a generator of your own, with a fixed seed"

    def test_missing_data_are_told_in_one_line(self, tmp_path: Path) -> None:
        """With a folder that holds nothing the data are made, or their absence is told in one line."""
        empty = tmp_path / "empty"
        empty.mkdir()
        try:
            self.load(empty)
        except AnarchError as error:
            assert "\n" not in str(error), f"tell what is missing in one line: {error}"
        except Exception as error:
            msg = f"with an empty folder it raised {type(error).__name__}: {error}; raise DataError that says what is missing"
            raise AssertionError(msg) from error

    def test_defaults_are_settings(self) -> None:
        """`defaults` names settings of a run, and components that exist."""
        defaults = self.info.defaults
        unknown = sorted(set(defaults) - set(SETTINGS) | {"data"} & set(defaults))
        assert not unknown, f"`defaults` sets {', '.join(unknown)}; it may set {', '.join(name for name in SETTINGS if name != 'data')}"
        for setting, kind in _COMPONENT_SETTINGS.items():
            value = defaults.get(setting, ())
            for spec in (value,) if isinstance(value, str) else value:
                try:
                    self.registry.find(kind, parse_spec(spec)[0])
                except AnarchError as error:
                    msg = f"`defaults` sets {FLAGS[kind]} {spec}: {error}"
                    raise AssertionError(msg) from error

    def test_default_model_takes_the_data(self) -> None:
        """The model in `defaults`, where there is one, can be built for the data."""
        spec = self.info.defaults.get("model")
        if spec is None:
            return
        data = self.data()
        try:
            build_model(spec, input_shape=data.input_shape, classes=data.classes, registry=self.registry)
        except AnarchError as error:
            msg = f"`defaults` sets --model {spec}: {error}"
            raise AssertionError(msg) from error
