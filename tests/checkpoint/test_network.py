"""Networks on disk: saved, rebuilt in another process, or refused in one line."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import load_file, load_model, save_file
from torch import nn

import anarch_core
from anarch_core.checkpoint import backing
from anarch_core.checkpoint.file import verify
from anarch_core.checkpoint.network import load, read_header, save
from anarch_core.checkpoint.state import load_state, save_state
from anarch_core.errors import CheckpointError, OtherVersionWarning
from anarch_core.models import ModelSpec, model_spec
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.relaxation.verbs import project, relax
from anarch_core.schedule import Moment

EXAMPLE = torch.randn(2, 1, 40, generator=torch.Generator().manual_seed(0))


def same_state(a: nn.Module, b: nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]) for name in one)


def rewrite(path: Path, **changes: object) -> None:
    """Change metadata as somebody could who also mends the digests."""
    tensors, metadata = load_state(path)
    save_state(path, tensors, metadata | {f"anarch.{key}": json.dumps(value) for key, value in changes.items()})


def normed() -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(152, 10))


class Tied(nn.Module):
    """The same convolution under two names, the same weight under two more."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 4, 3, padding=1)
        self.second = self.first
        self.up = nn.Linear(4, 6, bias=False)
        self.down = nn.Linear(4, 6, bias=False)
        self.down.weight = self.up.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(self.second(self.first(x)).mean(-1)) @ self.down.weight)


@pytest.fixture
def spec() -> ModelSpec:
    return model_spec("cnn1d", input_shape=(1, 40), classes=10)


@pytest.fixture
def base(spec: ModelSpec) -> nn.Module:
    return spec.build(seed=3)


@pytest.fixture
def trained(base: nn.Module) -> nn.Module:
    """An eFCN that has left the convolutions."""
    model = relax(base, "efcn", example_input=EXAMPLE).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.01)
    return model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "network.safetensors"


def test_an_unrelaxed_network_needs_no_anarch_to_be_read(base: nn.Module, spec: ModelSpec, path: Path) -> None:
    save(base, path, model_spec=spec)
    other = spec.build(seed=4)
    other.load_state_dict(load_file(path))
    assert same_state(other, base)
    assert same_state(load(path), base)


def test_a_relaxed_network_is_rebuilt_from_the_file_alone_in_a_fresh_process(trained: nn.Module, spec: ModelSpec, path: Path) -> None:
    save(trained, path, model_spec=spec, moment=Moment(80, 40))
    with torch.no_grad():
        expected = trained(EXAMPLE)
    code = (
        "import sys, torch, anarch_core\n"
        "model = anarch_core.load(sys.argv[1])\n"
        "x = torch.randn(2, 1, 40, generator=torch.Generator().manual_seed(0))\n"
        "anarch_core.save(model, sys.argv[2])\n"
        "print(model(x).tolist())"
    )
    again = path.with_name("again")
    run = subprocess.run([sys.executable, "-c", code, str(path), str(again)], check=True, capture_output=True, text=True)
    torch.testing.assert_close(torch.tensor(json.loads(run.stdout)), expected)
    # The model is noted on the network, so what it was built from is not lost.
    assert read_header(again).metadata["anarch.model"] == read_header(path).metadata["anarch.model"]
    assert read_header(again).metadata["anarch.tensors_sha256"] == read_header(path).metadata["anarch.tensors_sha256"]


def test_a_network_relaxed_in_stages_and_partly_projected_is_rebuilt(base: nn.Module, spec: ModelSpec, path: Path) -> None:
    model = relax(base, "lcn", example_input=EXAMPLE).model
    model = relax(model, "efcn", example_input=EXAMPLE, layers=["*", "!*.0"]).model
    model = project(model, layers="*.2")
    save(model, path, model_spec=spec)
    again = load(path)
    assert same_state(again, model)
    assert again.anarch_relaxations == model.anarch_relaxations
    assert [type(module) for module in again.modules()] == [type(module) for module in model.modules()]


def test_a_network_relaxed_only_in_part_has_the_rest_unchanged(base: nn.Module, spec: ModelSpec, path: Path) -> None:
    model = relax(base, "tiled", example_input=EXAMPLE, layers="*.0", options={"period": 3}).model
    save(model, path, model_spec=spec)
    assert same_state(load(path), model)
    assert json.loads(read_header(path).metadata["anarch.relaxations"])[0]["options"] == {"period": 3}


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
def test_a_fresh_lift_is_stored_as_its_parent_and_comes_back_to_the_same_bits(
    relaxation: str, base: nn.Module, spec: ModelSpec, path: Path
) -> None:
    lifted = relax(base, relaxation, example_input=EXAMPLE).model
    save(lifted, path, model_spec=spec, parent=base)
    assert read_header(path).metadata["anarch.kind"] == "delta"
    assert load_file(path).keys() == base.state_dict().keys()
    again = load(path)
    assert same_state(again, lifted)
    assert again.anarch_relaxations == lifted.anarch_relaxations


def test_a_delta_of_a_relaxed_parent_repeats_only_the_last_relaxation(base: nn.Module, spec: ModelSpec, path: Path) -> None:
    parent = relax(base, "lcn", example_input=EXAMPLE).model
    with torch.no_grad():
        next(parent.parameters()).normal_()
    lifted = relax(parent, "efcn", example_input=EXAMPLE).model
    save(lifted, path, model_spec=spec, parent=parent)
    assert load_file(path).keys() == parent.state_dict().keys()
    assert same_state(load(path), lifted)


def test_a_network_trained_since_is_not_stored_as_its_parent(base: nn.Module, trained: nn.Module, path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"relaxing the parent does not give the model: .* differs; it was trained since"):
        save(trained, path, parent=base)
    with pytest.raises(CheckpointError, match="the parent is not a network that the model was relaxed from"):
        save(base, path, parent=trained)
    assert not path.exists()


def test_a_model_of_the_users_own_is_brought_by_the_user(path: Path) -> None:
    base = normed()
    model = relax(base, "efcn", example_input=EXAMPLE).model
    save(model, path)
    with pytest.raises(CheckpointError, match=r"does not say how its model is built; .*load\('network.safetensors', model=\.\.\.\)"):
        load(path)
    weights = normed()
    before = copy.deepcopy(weights)
    assert same_state(load(path, model=weights), model)
    assert same_state(weights, before)
    with pytest.raises(CheckpointError, match="is relaxed already; expected the base model"):
        load(path, model=model)


def test_nothing_that_a_file_names_is_imported(base: nn.Module, path: Path) -> None:
    save(base, path, model_spec=ModelSpec(name="this:exits", input_shape=(1, 40), classes=10))
    with pytest.raises(CheckpointError, match=r"holds a model of this:exits, which is not imported from a file; build the base model"):
        load(path)
    assert "this" not in sys.modules
    assert same_state(load(path, model=copy.deepcopy(base)), base)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_is_the_files(dtype: torch.dtype, spec: ModelSpec, path: Path) -> None:
    model = relax(spec.build().to(dtype), "efcn", example_input=EXAMPLE.to(dtype), check=False).model
    save(model, path, model_spec=spec)
    assert same_state(load(path), model)
    load(path)(EXAMPLE.to(dtype))


def test_mixed_dtypes_are_kept_layer_by_layer(path: Path) -> None:
    model = normed()
    model[0].bfloat16()
    save(model, path)
    assert same_state(load(path, model=normed()), model)


def test_shared_modules_and_tied_weights_stay_tied(path: Path) -> None:
    model = Tied()
    save(model, path)
    assert json.loads(read_header(path).metadata["anarch.tied"]) == {
        "second.bias": "first.bias",
        "second.weight": "first.weight",
        "up.weight": "down.weight",
    }
    again = load(path, model=Tied())
    assert again.up.weight is again.down.weight
    assert again.first is again.second
    assert same_state(again, model)
    other = Tied()
    load_model(other, path)
    assert same_state(other, model)


def test_a_relaxed_module_under_two_names_is_rebuilt(path: Path) -> None:
    model = relax(Tied(), "efcn", example_input=torch.randn(2, 4, 8)).model
    save(model, path)
    again = load(path, model=Tied())
    assert again.first is again.second
    assert same_state(again, model)


def test_any_state_dict_is_loaded_into_a_model(path: Path) -> None:
    model = normed()
    save_file(model.state_dict(), path)
    assert same_state(load(path, model=normed()), model)
    with pytest.raises(CheckpointError, match="does not say how its model is built"):
        load(path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_may_have_the_prefixes_of_wrappers(prefix: str, path: Path) -> None:
    model = normed()
    save_file({prefix + name: value for name, value in model.state_dict().items()}, path)
    assert same_state(load(path, model=normed()), model)


def test_names_that_differ_by_more_than_wrappers_are_a_misfit(path: Path) -> None:
    state = normed().state_dict()
    save_file({f"net.{name}": value for name, value in state.items()}, path)
    with pytest.raises(CheckpointError, match=r"missing in the file: 0.weight, .*unknown to the model: net.0.bias"):
        load(path, model=normed())
    both = {f"module.{name}": value for name, value in state.items()} | {name: value + 1 for name, value in state.items()}
    save_file(both, path)
    with pytest.raises(CheckpointError, match=r"unknown to the model: module.0.bias"):
        load(path, model=normed())


def test_an_attribute_that_is_called_like_a_wrapper_keeps_its_name(path: Path) -> None:
    model = nn.Module()
    model.module = normed()
    save(model, path)
    assert all(name.startswith("module.") for name in load_file(path))
    assert same_state(load(path, model=copy.deepcopy(model)), model)
    save_file(model.module.state_dict(), path)
    assert same_state(load(path, model=copy.deepcopy(model)), model)


def wrapped(model: nn.Module, how: str) -> nn.Module:
    if how == "parallel":
        return nn.DataParallel(model)
    if how == "both":
        return torch.compile(nn.DataParallel(model), backend="eager")
    if how == "inside":
        model[0] = torch.compile(model[0], backend="eager")
        return model
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("how", ["parallel", "compiled", "both", "inside"])
def test_of_a_wrapped_network_the_one_inside_is_stored_relaxations_included(how: str, path: Path) -> None:
    relaxed = relax(normed(), "lcn", example_input=EXAMPLE).model
    expected = copy.deepcopy(relaxed)
    save(wrapped(relaxed, how), path)
    assert load_file(path).keys() == expected.state_dict().keys()
    assert same_state(load(path, model=normed()), expected)
    assert same_state(load(path, model=normed() if how == "inside" else wrapped(normed(), how)), expected)


def test_a_wrapped_network_is_stored_as_its_wrapped_parent(path: Path) -> None:
    parent = normed()
    relaxed = relax(parent, "efcn", example_input=EXAMPLE).model
    save(nn.DataParallel(relaxed), path, parent=nn.DataParallel(parent))
    assert read_header(path).metadata["anarch.kind"] == "delta"
    assert same_state(load(path, model=normed()), relaxed)


def test_a_relaxed_networks_state_dict_is_loaded_into_one_that_is_relaxed_likewise(path: Path) -> None:
    relaxed = relax(normed(), "efcn", example_input=EXAMPLE).model
    save_file(relaxed.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"pass a model that is relaxed likewise$"):
        load(path, model=normed())
    likewise = relax(normed(), "efcn", example_input=EXAMPLE).model
    again = load(path, model=likewise)
    assert same_state(again, relaxed)
    assert not same_state(likewise, relaxed)
    save(again, path)  # now with the record
    assert same_state(load(path, model=normed()), relaxed)
    with pytest.raises(CheckpointError, match="is relaxed already"):
        load(path, model=likewise)


def test_a_tied_name_that_another_tool_left_out_is_not_missing(path: Path) -> None:
    model = Tied()
    save_file({name: value for name, value in model.state_dict().items() if not name.startswith(("second", "up"))}, path)
    assert same_state(load(path, model=Tied()), model)


def test_a_misfit_is_told_in_one_line(path: Path) -> None:
    state = normed().state_dict()
    state["extra"] = torch.ones(1)
    del state["4.bias"]
    save_file(state, path)
    expected = f"{path} does not fit Sequential: missing in the file: 4.bias; unknown to the model: extra"
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(path, model=normed())
    state["0.weight"] = torch.ones(5, 1, 3)
    save_file(state, path)
    with pytest.raises(CheckpointError, match=r"'0.weight' has shape \(5, 1, 3\) in the file, \(4, 1, 3\) in the model$"):
        load(path, model=normed())


def test_many_misfits_are_counted_not_listed(base: nn.Module, path: Path) -> None:
    save(base, path)
    with pytest.raises(CheckpointError) as caught:
        load(path, model=nn.Sequential(*(nn.Linear(2, 2) for _ in range(20))))
    assert "and 37 more" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_altered_weights_are_refused(base: nn.Module, spec: ModelSpec, path: Path) -> None:
    save(base, path, model_spec=spec)
    content = bytearray(path.read_bytes())
    content[-10] ^= 16
    path.write_bytes(content)
    for read in (load, verify, lambda file: load(file, model=base)):
        with pytest.raises(CheckpointError, match="was altered: its tensors do not match"):
            read(path)


def test_altered_relaxations_are_refused(trained: nn.Module, spec: ModelSpec, path: Path) -> None:
    save(trained, path, model_spec=spec)
    path.write_bytes(path.read_bytes().replace(b'\\"name\\":\\"efcn\\"', b'\\"name\\":\\"efcm\\"'))
    with pytest.raises(CheckpointError, match="was altered: its metadata does not match"):
        load(path)


def test_a_relaxation_that_is_not_installed_is_named_with_its_distribution(trained: nn.Module, spec: ModelSpec, path: Path) -> None:
    (applied,) = trained.anarch_relaxations
    for name, distribution in (("melt", "anarch-melt"), ("efcn", "another")):
        trained.anarch_relaxations = (attrs.evolve(applied, name=name, distribution=distribution, version="2.1"),)
        save(trained, path, model_spec=spec)
        expected = f"needs the relaxation '{name}' of {distribution} 2.1, which is not there .*; pip install {distribution}==2.1"
        with pytest.raises(CheckpointError, match=expected):
            load(path)


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, None),
        ({"version": "9.9"}, None),  # the digest says that it does the same
        ({"digest": "0" * 64}, "does something else: the network would be another; pip install anarch=="),
        ({"digest": "", "version": "9.9"}, "whether it does the same cannot be seen"),
        ({"digest": ""}, None),
    ],
    ids=str,
)
def test_a_relaxation_that_does_something_else_now_is_noticed(
    changes: dict, outcome: str | None, trained: nn.Module, spec: ModelSpec, path: Path
) -> None:
    save(trained, path, model_spec=spec)
    records = json.loads(read_header(path).metadata["anarch.relaxations"])
    assert all(len(record["digest"]) == 64 for record in records)
    rewrite(path, relaxations=[{**record, **changes} for record in records])
    if changes.get("digest"):
        with pytest.raises(CheckpointError, match=outcome):
            load(path)
    elif outcome:
        with pytest.warns(OtherVersionWarning, match=outcome):
            load(path)
    else:
        assert same_state(load(path), trained)


def test_a_record_without_a_digest_is_read_as_before(trained: nn.Module, spec: ModelSpec, path: Path) -> None:
    save(trained, path, model_spec=spec)
    records = json.loads(read_header(path).metadata["anarch.relaxations"])
    rewrite(path, relaxations=[{key: value for key, value in record.items() if key != "digest"} | {"version": "0"} for record in records])
    again = load(path)
    assert same_state(again, trained)
    save(again, path)
    assert "digest" not in json.loads(read_header(path).metadata["anarch.relaxations"])[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {"channels": 3_000}},
        {"input_shape": [1, 4_000_000]},
        {"name": "vanilla-cnn", "options": {}, "input_shape": [3, 2000, 2000]},
    ],
    ids=str,
)
def test_a_model_that_the_file_does_not_hold_is_not_built(changes: dict, base: nn.Module, spec: ModelSpec, path: Path) -> None:
    save(base, path, model_spec=spec)
    rewrite(path, model={**spec.to_dict(), **changes})
    with pytest.raises(CheckpointError, match=r"describes a model .* it is not built"):
        load(path)


def test_relaxed_layers_that_the_file_does_not_hold_are_not_built(trained: nn.Module, spec: ModelSpec, path: Path) -> None:
    save(trained, path, model_spec=spec)
    records = json.loads(read_header(path).metadata["anarch.relaxations"])
    first = next(iter(records[0]["layers"]))
    records[0]["layers"][first] = [records[0]["layers"][first][0], 100_000]
    rewrite(path, relaxations=records)
    with pytest.raises(CheckpointError, match=rf"says that '{first}' is a layer of [\d,]+ parameters .*, and holds [\d,]+ numbers of it"):
        load(path)


def test_a_model_that_cannot_be_built_is_named(base: nn.Module, path: Path) -> None:
    save(base, path, model_spec=ModelSpec(name="cnn9d", input_shape=(1, 40), classes=10))
    with pytest.raises(CheckpointError, match=f"^{path} holds a model that cannot be built here: unknown model 'cnn9d'"):
        load(path)
    save(base, path, model_spec=ModelSpec(name="cnn1d", input_shape=(1, 40), classes=10, options={"nope": 1}))
    with pytest.raises(CheckpointError, match=f"^{path} holds a model that cannot be built here: .*'nope'"):
        load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"relaxations": [{"name": "efcn"}]},
        {"relaxations": [{"layers": ["a"]}]},
        {"relaxations": 3},
        {"model": [1]},
        {"step": {"iteration": 1}},
        {"lifted": "x"},
        {"lifted": 2},
    ],
    ids=str,
)
def test_metadata_that_makes_no_sense_is_refused(changes: dict, trained: nn.Module, spec: ModelSpec, path: Path) -> None:
    save(trained, path, model_spec=spec)
    rewrite(path, **changes)
    with pytest.raises(CheckpointError, match=str(path)):
        load(path)


def test_fields_of_a_newer_minor_schema_are_passed_over(trained: nn.Module, spec: ModelSpec, path: Path) -> None:
    save(trained, path, model_spec=spec)
    records = json.loads(read_header(path).metadata["anarch.relaxations"])
    rewrite(path, relaxations=[{**record, "new": 1} for record in records], new="x")
    assert same_state(load(path), trained)


def test_state_without_a_model_is_not_loaded_as_one(path: Path) -> None:
    save_state(path, {"momentum": torch.ones(3)})
    with pytest.raises(CheckpointError, match="holds state without a model, expected one of base-model"):
        load(path, model=normed())


def test_metadata_of_ones_own_is_kept_and_the_description_recomputed(
    base: nn.Module, trained: nn.Module, spec: ModelSpec, path: Path
) -> None:
    save(trained, path, model_spec=spec, moment=Moment(5, 2), extra={"anarch.run_id": "r", "anarch.x.mine.k": "v"})
    again = path.with_name("again")
    save(base, again, extra=read_header(path).metadata)
    metadata = read_header(again).metadata
    assert metadata["anarch.kind"] == "base-model"
    assert "anarch.relaxations" not in metadata
    assert "anarch.step" not in metadata
    assert (metadata["anarch.run_id"], metadata["anarch.x.mine.k"]) == ("r", "v")


def test_equal_networks_give_equal_bytes(trained: nn.Module, spec: ModelSpec, path: Path) -> None:
    save(trained, path, model_spec=spec, moment=Moment(80, 40))
    other = path.with_name("other")
    save(load(path), other, moment=Moment(80, 40))
    assert path.read_bytes() == other.read_bytes()


def test_state_that_is_no_tensor_is_refused(path: Path) -> None:
    class Counter(nn.Module):
        def get_extra_state(self) -> int:
            return 3

    with pytest.raises(CheckpointError, match="'_extra_state' of Counter is a int; only tensors can be stored"):
        save(Counter(), path)


def test_a_loaded_network_can_be_trained_copied_and_relaxed_further(trained: nn.Module, spec: ModelSpec, path: Path) -> None:
    save(trained, path, model_spec=spec)
    model = copy.deepcopy(load(path))
    model(EXAMPLE).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert same_state(project(model), project(trained))


def test_the_api_is_at_the_top() -> None:
    assert anarch_core.load is load
    assert anarch_core.save is save


@pytest.mark.parametrize("wholes", [("",), ("0.0", "0"), ("0",)])
def test_the_numbers_of_a_layer_are_looked_for_where_it_went(wholes: tuple[str, ...], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backing, "_BESIDE", 0)
    model = nn.Sequential(nn.Sequential(nn.Linear(40, 40)))
    name = "free.0.0" if wholes == ("",) else "0.free.copies.0.0.free"
    save_state(path, {f"{name}.weight": torch.zeros(40, 40), f"{name}.bias": torch.zeros(40)})

    class Spec:
        def make(self, registry: Registry) -> nn.Module:
            return model

    backing.require_model(Spec(), read_header(path), wholes, path, get_registry())
    with pytest.raises(CheckpointError, match="it is not built"):
        backing.require_model(Spec(), read_header(path), (), path, get_registry())
