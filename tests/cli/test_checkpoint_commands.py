"""``anarch inspect``, ``relax`` and ``project``: files in, files out, one clear line for every mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import anarch_core
from anarch_core.checkpoint.file import read_header
from anarch_core.cli import main
from anarch_core.models import ModelSpec, model_spec
from anarch_core.schedule import Moment

Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*args: object, code: int = 0) -> str:
        with pytest.raises(SystemExit) as exit:
            main([str(arg) for arg in args])
        captured = capsys.readouterr()
        assert exit.value.code == code, captured.err
        assert "Traceback" not in captured.err
        return captured.out if code == 0 else captured.err

    return call


@pytest.fixture
def spec() -> ModelSpec:
    return model_spec("cnn1d", input_shape=(1, 40), classes=10)


@pytest.fixture
def file(spec: ModelSpec, tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    anarch_core.save(spec.build(seed=1), path, model_spec=spec, moment=Moment(400, 40), extra={"anarch.x.mine.note": "kept"})
    return path


class TestInspect:
    def test_it_tells_what_the_file_holds(self, run: Run, file: Path) -> None:
        out = run("inspect", file)
        assert re.search(r"^kind +base-model$", out, re.MULTILINE)
        assert re.search(r"^model +cnn1d, input 1×40, 10 classes$", out, re.MULTILINE)
        assert re.search(r"^step +iteration 400, epoch 10$", out, re.MULTILINE)
        assert re.search(r"^features.0.weight +F32 +25×1×5 +500$", out, re.MULTILINE)
        assert re.search(r"^anarch.x.mine.note +kept$", out, re.MULTILINE)

    def test_it_tells_how_the_network_was_relaxed(self, run: Run, file: Path) -> None:
        run("relax", file, "--to", "tiled", "--tiled-period", "3", "--layers", "features.0,features.2", "--delta")
        out = run("inspect", file.with_name("net.tiled.safetensors"), "--verify")
        assert re.search(r"^kind +delta$", out, re.MULTILINE)
        assert re.search(r"^relaxation +tiled \(anarch .*\) of features.0, features.2, period=3, repeated when loaded$", out, re.MULTILINE)
        assert "(verified)" in out

    def test_json_has_all_of_it(self, run: Run, file: Path) -> None:
        record = json.loads(run("inspect", file, "--json"))
        assert record["bytes"] == file.stat().st_size
        assert record["description"]["model"]["name"] == "cnn1d"
        assert {tensor["name"] for tensor in record["tensors"]} == load_file(file).keys()
        assert sum(tensor["bytes"] for tensor in record["tensors"]) == 4 * sum(value.numel() for value in load_file(file).values())

    def test_any_safetensors_file_is_shown(self, run: Run, tmp_path: Path) -> None:
        save_file({"x": torch.tensor(1.0)}, tmp_path / "x", {"author": "me"})
        out = run("inspect", tmp_path / "x")
        assert "a safetensors file that anarch did not write" in out
        assert re.search(r"^x +F32 +scalar +4$", out, re.MULTILINE)
        assert "carries no digest to verify" in run("inspect", tmp_path / "x", "--verify", code=1)

    def test_damage_is_one_line(self, run: Run, file: Path) -> None:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        run("inspect", file)
        assert re.fullmatch(
            r"Error: .* was altered: its tensors do not match anarch.tensors_sha256; .*\n", run("inspect", file, "--verify", code=1)
        )
        file.write_bytes(content[:-1])
        assert re.fullmatch(r"Error: .* is cut short: .*\n", run("inspect", file, code=1))
        assert re.fullmatch(r"Error: cannot read .*: No such file or directory\n", run("inspect", "none", code=1))

    def test_torch_is_not_imported(self, file: Path) -> None:
        code = (
            "import sys; from anarch_core.cli import main\n"
            "try: main(['inspect', sys.argv[1], '--verify'])\n"
            "finally: print('torch' in sys.modules, 'numpy' in sys.modules)"
        )
        output = subprocess.run([sys.executable, "-c", code, str(file)], check=True, capture_output=True, text=True).stdout
        assert output.endswith("False False\n")


class TestRelax:
    @pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
    @pytest.mark.parametrize("storage", ["--full", "--delta"])
    def test_the_written_network_computes_the_same(self, relaxation: str, storage: str, run: Run, file: Path) -> None:
        out = run("relax", file, "--to", relaxation, storage)
        written = file.with_name(f"net.{relaxation}.safetensors")
        assert re.search(r"^end to end .* \d\.\de-\d\d$", out, re.MULTILINE)
        assert "\nexact: " in out
        assert out.endswith(f"wrote {written}, {written.stat().st_size:,} bytes\n")
        x = torch.randn(3, 1, 40)
        torch.testing.assert_close(anarch_core.load(written)(x), anarch_core.load(file)(x))

    def test_metadata_is_kept(self, run: Run, file: Path, tmp_path: Path) -> None:
        run("relax", file, "--to", "efcn", "--out", tmp_path / "out")
        metadata = read_header(tmp_path / "out").metadata
        assert metadata["anarch.x.mine.note"] == "kept"
        assert json.loads(metadata["anarch.step"]) == {"iteration": 400, "iterations_per_epoch": 40}
        assert metadata["anarch.kind"] == "relaxed-model"

    def test_a_relaxed_network_can_be_relaxed_further(self, run: Run, file: Path, tmp_path: Path) -> None:
        run("relax", file, "--to", "lcn", "--out", tmp_path / "lcn")
        run("relax", tmp_path / "lcn", "--to", "efcn", "--delta", "--out", tmp_path / "efcn")
        x = torch.randn(3, 1, 40)
        torch.testing.assert_close(anarch_core.load(tmp_path / "efcn")(x), anarch_core.load(file)(x))

    def test_nothing_is_overwritten_unasked(self, run: Run, file: Path) -> None:
        before = file.read_bytes()
        assert "exists; name another file with --out, or replace it with --force" in run(
            "relax", file, "--to", "lcn", "--out", file, code=1
        )
        assert file.read_bytes() == before
        run("relax", file, "--to", "lcn", "--out", file, "--force")
        assert file.read_bytes() != before

    @pytest.mark.parametrize(
        ("args", "code", "message"),
        [
            (["--to", "efnc"], 1, "unknown relaxation 'efnc'; did you mean 'efcn'?"),
            ([], 2, "Missing option '--to'"),
            (["--to", "efcn", "--layers", "nope.*"], 1, r"layer pattern 'nope\.\*' matches none of"),
            (["--to", "efcn", "--out", "none/x"], 1, "cannot write none/x: there is no folder none"),
            (["--to", "tiled", "--tiled-period", "x"], 2, "--tiled-period"),
            (["--to", "efcn", "--model", "vanilla-cnn", "--input-shape", "3,32,32"], 1, "does not fit Sequential"),
            (["--to", "efcn", "--input-shape", "3,x"], 2, "'3,x' is not a shape like 3,32,32"),
        ],
    )
    def test_mistakes_are_told(self, args: list[str], code: int, message: str, run: Run, file: Path) -> None:
        assert re.search(message, run("relax", file, *args, code=code))
        assert list(file.parent.iterdir()) == [file]

    def test_a_network_without_convolutions_is_not_written(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "linear_only.py").write_text("from torch import nn\ndef make(classes): return nn.Linear(4, classes)\n")
        monkeypatch.syspath_prepend(tmp_path)
        save_file(nn.Linear(4, 3).state_dict(), tmp_path / "linear")
        options = ["--model", "linear_only:make", "--input-shape", "4", "--classes", "3"]
        assert re.search("efcn found no layer to relax in Linear", run("relax", tmp_path / "linear", "--to", "efcn", *options, code=1))

    def test_a_model_of_ones_own_is_imported_only_when_named(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "my_model.py").write_text(
            "from torch import nn\ndef make(classes, width=2):\n"
            "    return nn.Sequential(nn.Conv1d(1, width, 3), nn.Flatten(), nn.Linear(6 * width, classes))\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        spec = model_spec("my_model:make", input_shape=(1, 8), classes=3, options={"width": 5})
        file = tmp_path / "my"
        anarch_core.save(spec.build(trusted=True), file, model_spec=spec)
        message = "holds a model of my_model:make, which only you may import; add --model my_model:make"
        assert message in run("relax", file, "--to", "efcn", code=1)
        run("relax", file, "--to", "efcn", "--model", "my_model:make", "--out", tmp_path / "out")
        out = run("project", tmp_path / "out", "--model", "my_model:make")
        assert "wrote" in out

    def test_a_convolution_whose_weight_is_computed(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "normed.py").write_text(
            "from torch import nn\ndef make(classes):\n"
            "    conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(1, 2, 3))\n"
            "    return nn.Sequential(conv, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12, classes))\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        spec = model_spec("normed:make", input_shape=(1, 8), classes=3)
        file = tmp_path / "normed"
        anarch_core.save(spec.build(trusted=True), file, model_spec=spec)
        model = ["--model", "normed:make"]
        assert "0 cannot be relaxed: it is parametrized" in run("relax", file, "--to", "lcn", *model, code=1)
        out = run("relax", file, "--to", "lcn", "--materialise", "--out", tmp_path / "lcn", *model)
        assert re.search(r"^exact: errors are", out, re.MULTILINE)
        assert "note: materialised: 0, whose weight at this moment is free from now on, without WeightNorm, which computed" in out
        assert "wrote" in run("project", tmp_path / "lcn", *model)

    def test_a_plain_state_dict_needs_model_and_shapes(self, run: Run, spec: ModelSpec, tmp_path: Path) -> None:
        save_file(spec.build().state_dict(), tmp_path / "plain")
        assert "does not say how its model is built; add --model NAME" in run("relax", tmp_path / "plain", "--to", "lcn", code=1)
        message = "does not say what its inputs and outputs are; add --input-shape C,H,W and --classes N"
        assert message in run("relax", tmp_path / "plain", "--to", "lcn", "--model", "cnn1d", code=1)
        run("relax", tmp_path / "plain", "--to", "lcn", "--model", "cnn1d", "--input-shape", "1,40", "--classes", "10")
        assert anarch_core.load(tmp_path / "plain.lcn.safetensors").anarch_model["name"] == "cnn1d"


class TestProject:
    def test_projecting_undoes_relaxing(self, run: Run, file: Path, tmp_path: Path) -> None:
        run("relax", file, "--to", "efcn", "--out", tmp_path / "efcn")
        out = run("project", tmp_path / "efcn", "--out", tmp_path / "back")
        assert re.search(r"^all relaxed layers +\S+ +1\.0000 +0\.0000 +0\.0000$", out, re.MULTILINE)
        before, after = load_file(file), load_file(tmp_path / "back")
        assert before.keys() == after.keys()
        for name in before:
            torch.testing.assert_close(after[name], before[name])
        metadata = read_header(tmp_path / "back").metadata
        assert (metadata["anarch.kind"], metadata["anarch.x.mine.note"]) == ("base-model", "kept")

    def test_drift_is_told_before_it_is_lost(self, run: Run, file: Path, spec: ModelSpec, tmp_path: Path) -> None:
        model = anarch_core.relax(anarch_core.load(file), "efcn", example_input=torch.randn(1, 1, 40)).model
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        anarch_core.save(model, tmp_path / "moved", model_spec=spec)
        out = run("project", tmp_path / "moved")
        row = re.search(r"^all relaxed layers +\S+ +(\S+) +(\S+) +(\S+)$", out, re.MULTILINE)
        assert row is not None
        parts = [float(part) for part in row.groups()]
        assert min(parts) > 0
        assert sum(part**2 for part in parts) == pytest.approx(1, abs=1e-3)
        assert (tmp_path / "moved.projected.safetensors").exists()

    def test_a_network_that_is_not_relaxed_has_nothing_to_project(self, run: Run, file: Path) -> None:
        assert "has no relaxed layer to project" in run("project", file, code=1)


def test_the_reader_in_the_documentation_runs_on_the_standard_library_alone(run: Run, file: Path, tmp_path: Path) -> None:
    run("relax", file, "--to", "efcn", "--out", tmp_path / "efcn")
    text = (Path(__file__).parents[2] / "docs" / "checkpoint_format.md").read_text(encoding="utf-8")
    (snippet,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if code.startswith("import json"))
    output = subprocess.run(
        [sys.executable, "-I", "-S", "-c", snippet, str(tmp_path / "efcn")], check=True, capture_output=True, text=True
    ).stdout
    lines = output.splitlines()
    assert lines[0].startswith("relaxed-model {")
    assert lines[1] == "efcn features.0 features.2 features.4"
    assert len(lines) == 2 + len(load_file(tmp_path / "efcn"))


def test_every_metadata_key_is_documented(file: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "checkpoint_format.md").read_text(encoding="utf-8")
    source = "".join(path.read_text(encoding="utf-8") for path in Path(anarch_core.__file__).parent.rglob("*.py"))
    keys = set(re.findall(r'"(anarch\.[a-z_0-9]+)"', source)) - {"anarch.plugins"}
    assert {"anarch.schema", "anarch.kind"} < keys
    assert {key for key in keys if f"`{key}`" not in text} == set()


class TestAlign:
    @pytest.fixture
    def other(self, spec: ModelSpec, tmp_path: Path) -> Path:
        path = tmp_path / "other.safetensors"
        anarch_core.save(spec.build(seed=2), path, model_spec=spec)
        return path

    def test_the_written_network_is_nearer_and_computes_the_same(self, run: Run, file: Path, other: Path, tmp_path: Path) -> None:
        out = run("align", file, "--to", other)
        before, after = map(float, re.search(r"^all parameters +(\S+) +(\S+)", out, re.MULTILINE).groups())
        assert after < before
        assert re.search(r"^\d+ of 75 channels moved, in 3 groups$", out, re.MULTILINE)
        found = anarch_core.load(tmp_path / "net.aligned.safetensors")
        x = torch.randn(3, 1, 40)
        torch.testing.assert_close(found(x), anarch_core.load(file)(x))
        again = run("align", tmp_path / "net.aligned.safetensors", "--to", other, "--out", tmp_path / "again.safetensors")
        assert "\n0 of 75 channels moved" in again

    def test_relaxed_networks_are_aligned_too(self, run: Run, file: Path, other: Path, tmp_path: Path) -> None:
        for each in (file, other):
            run("relax", each, "--to", "lcn")
        run("align", tmp_path / "net.lcn.safetensors", "--to", tmp_path / "other.lcn.safetensors", "--out", tmp_path / "out.safetensors")
        assert "lcn" in run("inspect", tmp_path / "out.safetensors")

    def test_networks_of_different_architectures_are_refused_in_one_line(self, run: Run, file: Path, other: Path, tmp_path: Path) -> None:
        run("relax", other, "--to", "lcn")
        assert "not of one architecture" in run("align", file, "--to", tmp_path / "other.lcn.safetensors", code=1)

    def test_nothing_is_overwritten_unasked(self, run: Run, file: Path, other: Path) -> None:
        run("align", file, "--to", other)
        assert "exists; name another file with --out" in run("align", file, "--to", other, code=1)
