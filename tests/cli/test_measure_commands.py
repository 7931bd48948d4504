"""``anarch probe`` and ``anarch interpolate`` on checkpoints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import anarch_core
from anarch_core import cli
from anarch_core.cli import interpolate
from anarch_core.models import build_model, model_spec
from anarch_core.paths.chosen_layers import SIDES
from anarch_core.paths.methods import PATHS
from anarch_core.paths.profile import METHODS
from anarch_core.relaxation.verbs import relax


@pytest.fixture
def anarch(capsys):
    def call(*args: object, code: int = 0) -> str:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(arg) for arg in args])
        captured = capsys.readouterr()
        assert caught.value.code == code, captured.err
        assert "Traceback" not in captured.err
        return captured.out if code == 0 else captured.err

    return call


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """A small network, its eFCN, and that moved off the constraints; for signals of 16 points in 3 classes."""
    folder = tmp_path_factory.mktemp("checkpoints")
    spec = model_spec("cnn1d", input_shape=(1, 16), classes=3, options={"channels": 3})
    base = spec.build(seed=0)
    relaxed = relax(base, "efcn", example_input=torch.zeros(2, 1, 16)).model
    paths = {name: folder / f"{name}.safetensors" for name in ("base", "start", "moved")}
    anarch_core.save(base, paths["base"], model_spec=spec)
    anarch_core.save(relaxed, paths["start"], model_spec=spec)
    with torch.no_grad():
        for parameter in relaxed.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.05)
    anarch_core.save(relaxed, paths["moved"], model_spec=spec)
    return paths


class TestProbe:
    def test_it_prints_scalars_and_certificates(self, anarch, files, signals):
        out = anarch("probe", files["moved"], "--probe", "delta,hessian", "--data", f"tensors:{signals}", "--hessian-top-k", 1)
        assert re.search(r"^off_local +0\.\d+$", out, re.MULTILINE)
        assert re.search(r"^loss +\d\.\d+ +nats$", out, re.MULTILINE)
        assert re.search(r"^lambda_max +\d\S* +\S+ +\S+ +\d+ +yes$", out, re.MULTILINE)
        assert re.search(r"^top_k 1 +\d", out, re.MULTILINE)

    def test_it_needs_no_data_where_the_probe_needs_none(self, anarch, files):
        out = anarch("probe", files["start"], "--probe", "delta")
        assert re.search(r"^off_local +0$", out, re.MULTILINE)
        assert re.search(r"^moved +not measurable$", out, re.MULTILINE)

    def test_a_reference_and_a_parent_can_be_given(self, anarch, files, signals):
        out = anarch("probe", files["moved"], "--probe", "delta", "--reference", files["start"])
        assert re.search(r"^moved +0\.\d+$", out, re.MULTILINE)
        options = ["--data", f"tensors:{signals}", "--interpolation-origin", "parent"]
        assert "linear_barrier" in anarch("probe", files["moved"], "--probe", "interpolation", "--parent", files["base"], *options)

    def test_a_network_of_another_segment_can_be_given(self, anarch, files, signals):
        on = ["--data", f"tensors:{signals}"]
        assert "accuracy_barrier_test" in anarch("probe", files["moved"], "--probe", "stability", "--twin", files["start"], *on)
        assert "cka_sibling_mean" in anarch(
            "probe", files["moved"], "--probe", "cka", "--cka-against", "sibling", "--sibling", files["start"], "--cka-samples", 20, *on
        )
        err = anarch("probe", files["moved"], "--probe", "stability", *on, code=1)
        assert err == "Error: the probe stability needs the network that met the batches in another order; add --twin FILE\n"

    def test_a_plane_goes_through_the_parent_or_the_control(self, anarch, files, signals):
        options = ["--data", f"tensors:{signals}", "--plane-points", 2, "--plane-through", "parent,control"]
        out = anarch("probe", files["moved"], "--probe", "plane", "--parent", files["base"], "--control", files["base"], *options)
        found = dict(re.findall(r"^distance_(\w+)_network +(\S+)", out, re.MULTILINE))
        assert found.keys() == {"parent", "projection", "control"}
        assert found["parent"] == found["control"] > found["projection"]

    def test_json_holds_everything(self, anarch, files, signals, tmp_path):
        out = tmp_path / "found.json"
        anarch("probe", files["moved"], "--probe", "delta", "--json", out)
        content = json.loads(out.read_text())
        assert content["file"] == str(files["moved"])
        assert set(content["probes"]["delta"]["details"]["layers"]) == {"features.0", "features.2", "features.4"}

    def test_the_checkpoint_stays_as_it_is(self, anarch, files, signals):
        before = files["moved"].read_bytes()
        anarch("probe", files["moved"], "--probe", "gradient,ablation", "--data", f"tensors:{signals}")
        assert files["moved"].read_bytes() == before

    @pytest.mark.parametrize(
        ("file", "args", "message"),
        [
            ("base", ["--probe", "delta"], "the probe delta needs a relaxed network, and that of {file} has no relaxed layer"),
            ("moved", ["--probe", "hessian"], "the probe hessian needs data to measure on; add --data NAME"),
            ("moved", ["--probe", "hesian"], "unknown probe 'hesian'"),
            (
                "moved",
                ["--probe", "hessian", "--data", "mnist1d"],
                "mnist1d has inputs 1×40 and 10 classes, but the network of {file} takes",
            ),
            ("moved", ["--probe", "delta", "--device", "cuda:99"], "device 'cuda:99' is not there"),
            ("moved", ["--probe", "delta", "--device", "gpu"], "expected auto, cpu, cuda, cuda:N, or several cards"),
            (
                "moved",
                ["--probe", "delta", "--device", "cuda:0,cuda:2"],
                "one device is enough here, got 'cuda:0,cuda:2'; name one of them, such as cuda:0",
            ),
        ],
    )
    def test_what_cannot_be_measured_is_refused_in_one_line(self, anarch, files, file, args, message):
        err = anarch("probe", files[file], *args, code=1)
        assert err.startswith(f"Error: {message.format(file=files[file])}")
        assert len(err.splitlines()) == 1

    def test_a_probe_has_to_be_named(self, anarch, files):
        assert "Missing option '--probe'" in anarch("probe", files["base"], code=2)
        assert "--hessian-top-k is an option of probe 'hessian'" in anarch(
            "probe", files["base"], "--probe", "delta", "--hessian-top-k", 2, code=2
        )


class TestInterpolate:
    def test_it_walks_from_a_cnn_to_its_relaxed_network(self, anarch, files, signals, tmp_path):
        out = tmp_path / "paths.json"
        data = ["--data", f"tensors:{signals}", "--points", 5]
        text = anarch("interpolate", files["base"], files["moved"], "--method", "linear,string,logits", "--steps", 2, *data, "--json", out)
        assert [line for line in text.splitlines() if line in METHODS] == ["linear", "string", "logits"]
        assert text.count("barrier in training loss: ") == 3
        content = json.loads(out.read_text())
        assert [profile["method"] for profile in content["profiles"]] == ["linear", "string", "logits"]
        linear = content["profiles"][0]
        assert linear["positions"] == [0, 0.25, 0.5, 0.75, 1]
        assert len(linear["train"]) == len(linear["test"]) == 5

    def test_curves_of_one_bend_are_trained(self, anarch, files, signals, tmp_path):
        out = tmp_path / "paths.json"
        how = ["--method", "bezier,polygon", "--curve-steps", 3, "--curve-lr", 0.1, "--points", 5, "--data", f"tensors:{signals}"]
        anarch("interpolate", files["base"], files["moved"], *how, "--json", out)
        content = json.loads(out.read_text())
        assert [profile["method"] for profile in content["profiles"]] == ["bezier", "polygon"]
        assert (content["curve_steps"], content["curve_lr"]) == (3, 0.1)

    def test_layers_move_alone(self, anarch, files, signals, tmp_path):
        out = tmp_path / "paths.json"
        data = ["--data", f"tensors:{signals}", "--points", 3, "--json", out]
        text = anarch("interpolate", files["start"], files["moved"], "--layers", "features.*,!features.0", "--layer-wise", *data)
        assert "a straight path for each layer, with the others of the first network" in text
        assert [line.split()[0] for line in text.splitlines() if line.startswith("features.")] == ["features.2", "features.4"]
        together = json.loads(out.read_text())
        assert together["layers"] == ["features.*", "!features.0"]
        assert list(together["by_layer"]["layers"]) == ["features.2", "features.4"]
        anarch("interpolate", files["start"], files["moved"], "--layers", "features.4", "--rest", "second", *data)
        losses = [score["loss"] for score in json.loads(out.read_text())["profiles"][0]["train"]]
        anarch("interpolate", files["start"], files["moved"], *data)
        whole = [score["loss"] for score in json.loads(out.read_text())["profiles"][0]["train"]]
        assert losses[-1] == pytest.approx(whole[-1], rel=1e-6)
        assert losses[0] != pytest.approx(whole[0], rel=1e-4)
        assert together["by_layer"]["layers"]["features.2"]["train"][0]["loss"] == pytest.approx(whole[0], rel=1e-6)

    def test_ends_are_the_networks_themselves(self, anarch, files, signals, tmp_path):
        data = ["--data", f"tensors:{signals}"]
        scores = []
        for a, b in (("base", "moved"), ("start", "moved")):
            anarch("interpolate", files[a], files[b], *data, "--json", tmp_path / "path.json")
            [profile] = json.loads((tmp_path / "path.json").read_text())["profiles"]
            scores.append([score["loss"] for score in profile["test"]])
        assert scores[0] == pytest.approx(scores[1], rel=1e-5)

    @pytest.mark.parametrize(
        ("args", "code", "message"),
        [
            ([], 1, "the loss on the way has to be measured on data; add --data NAME"),
            (["--method", "curly"], 2, "'curly' is no method of interpolation; expected some of linear"),
            (["--points", 2], 2, "Invalid value for '--points'"),
            (["--data", "{data}", "--layers", "classifer.*"], 1, "layer pattern 'classifer.*' matches none of features.0"),
            (["--data", "{data}", "--layer-wise", "--points", 4], 1, "none of 4 points; take an odd number of them"),
            (["--data", "{data}", "--layers", "*", "--method", "logits"], 1, "logits mixes what whole networks say"),
        ],
    )
    def test_wrong_usage_is_told(self, anarch, files, signals, args, code, message):
        args = [f"tensors:{signals}" if arg == "{data}" else arg for arg in args]
        assert message in anarch("interpolate", files["base"], files["moved"], *args, code=code)

    def test_a_path_that_is_not_finite_has_no_barrier_to_tell(self, anarch, files, signals, tmp_path):
        broken = build_model("cnn1d", input_shape=(1, 16), classes=3, options={"channels": 3})
        with torch.no_grad():
            broken.classifier[1].bias.fill_(torch.nan)
        spec = model_spec("cnn1d", input_shape=(1, 16), classes=3, options={"channels": 3})
        anarch_core.save(broken, tmp_path / "broken.safetensors", model_spec=spec)
        data = ["--data", f"tensors:{signals}", "--points", 5, "--json", tmp_path / "path.json"]
        text = anarch("interpolate", files["base"], tmp_path / "broken.safetensors", *data)
        assert "barrier in training loss: not measurable, the loss is not finite at 4 of 5 points, the first of them at 0.25" in text
        [profile] = json.loads((tmp_path / "path.json").read_text())["profiles"]
        assert [score["loss"] is None for score in profile["train"]] == [False, True, True, True, True]
        assert profile["barriers"]["test"]["excess"] is None
        assert "at 4 of 5 points" in profile["barriers"]["test"]["not_measured"]

    def test_networks_of_two_tasks_are_refused(self, anarch, files, signals, tmp_path):
        spec = model_spec("cnn1d", input_shape=(1, 16), classes=4, options={"channels": 3})
        anarch_core.save(spec.build(), tmp_path / "four.safetensors", model_spec=spec)
        err = anarch("interpolate", files["base"], tmp_path / "four.safetensors", "--data", f"tensors:{signals}", code=1)
        assert "take other inputs or tell other classes apart: ((1, 16), 3) and ((1, 16), 4)" in err

    def test_its_methods_are_those_of_the_library(self):
        assert interpolate.METHODS == METHODS
        assert interpolate.SIDES == SIDES
        assert [*PATHS, "logits", "probabilities"] == [*METHODS]
