"""A file of a network that processes hold together is the file of one process, and any number of processes reads it."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import anarch_core
from anarch_core.checkpoint import parts
from anarch_core.checkpoint.file import read_header, verify
from anarch_core.checkpoint.network import load, save
from anarch_core.checkpoint.state import load_state, save_state
from anarch_core.errors import CheckpointError
from anarch_core.sharding.cut import Cut
from anarch_core.sharding.shards import Shards
from anarch_core.sharding.shared_out import cuts_of
from anarch_core.testing.together import together
from anarch_core.training.averages import RunningAverage
from anarch_core.training.loop import Training
from anarch_core.training.optimizer_state import load_optimizer_state, optimizer_cuts, optimizer_state

FAMILIES = ("efcn", "lcn", "shared", "tiled")
PIECE = 1000  # bytes: no number ends where a piece of it does


def network() -> nn.Module:
    """Two convolutions, of 6 and of 5 output channels, which neither 2 nor 3 processes share alike; one has taps that nothing reads."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 5, stride=2, padding=3, dilation=2),
        nn.BatchNorm2d(5),
        nn.Flatten(),
        nn.LazyLinear(4),
    )


def base() -> nn.Module:
    model = network()
    model(example())
    return model.double()


def example() -> torch.Tensor:
    return torch.randn(7, 2, 6, 6, generator=torch.Generator().manual_seed(3))


def relaxed(family: str, shards: Shards | None = None) -> nn.Module:
    """The network in a family, with weights that are no lift; of the processes together, their parts of the same."""
    model = anarch_core.relax(base(), family, example_input=example().double(), shards=shards, check=False).model
    cuts = cuts_of(model)
    with torch.no_grad():
        for place, (name, parameter) in enumerate(model.named_parameters()):
            whole = cuts[name].shape if name in cuts else parameter.shape
            drawn = torch.randn(whole, dtype=torch.float64, generator=torch.Generator().manual_seed(place))
            parameter.copy_(cuts[name].of_whole(drawn).view(parameter.shape) if name in cuts else drawn)
    return model


def own(model: nn.Module, whole: nn.Module) -> bool:
    """Whether a network has this process's numbers of another, to the bit."""
    mine, all_of_it, cuts = model.state_dict(), whole.state_dict(), cuts_of(model)
    assert mine.keys() == all_of_it.keys()
    return all(
        torch.equal(tensor, cuts[name].of_whole(all_of_it[name]).view(tensor.shape) if name in cuts else all_of_it[name])
        for name, tensor in mine.items()
    )


def saved(shards: Shards, family: str, path: Path) -> None:
    with mock.patch.object(parts, "PIECE", PIECE):
        save(relaxed(family, shards), path)


def loaded(shards: Shards, family: str, path: Path) -> bool:
    with mock.patch.object(parts, "PIECE", PIECE):
        again = load(path, model=base(), shards=shards)
    assert set(cuts_of(again)) >= {"0.weight", "0.bias", "3.weight", "3.bias"}
    return own(again, relaxed(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_has_the_bytes_of_one_process_and_any_number_of_processes_reads_it(family: str, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    save(relaxed(family), alone)
    for processes in (2, 3):
        path = tmp_path / str(processes)
        together(processes, saved, family, path)
        assert path.read_bytes() == alone.read_bytes()
        assert all(together(processes, loaded, family, alone))
    assert own(load(tmp_path / "3", model=base()), relaxed(family))
    verify(tmp_path / "2")


def trained(shards: Shards | None, family: str, optimizer: str) -> Training:
    """A training whose state has numbers: of the optimizer, which holds its parameters in two groups, and of an average."""
    model = relaxed(family, shards)
    parameters = list(model.parameters())
    groups = [{"params": parameters[3:]}, {"params": parameters[:3]}]
    made: torch.optim.Optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    if optimizer == "adam":
        made = torch.optim.Adam(groups, lr=0.1)
    training = Training(
        model=model,
        optimizer=made,
        x=example().double(),
        y=torch.arange(7) % 4,
        batch_size=7,
        seed=0,
        learning_rate=lambda _: 0.1,
        average=RunningAverage(model, "ema", 0.5, 4),
    )
    torch.manual_seed(0)
    return training


def stepped(training: Training) -> Training:
    """After two steps along gradients that are the same in one process and in several."""
    cuts = cuts_of(training.model)
    for step in range(2):
        for place, (name, parameter) in enumerate(training.model.named_parameters()):
            whole = cuts[name].shape if name in cuts else parameter.shape
            drawn = torch.randn(whole, dtype=torch.float64, generator=torch.Generator().manual_seed(10 * step + place))
            parameter.grad = cuts[name].of_whole(drawn).view(parameter.shape) if name in cuts else drawn
        training.optimizer.step()
        training.iteration += 1
        training.average.after_step(training.iteration)
    return training


def state_saved(shards: Shards, family: str, optimizer: str, path: Path) -> None:
    training = stepped(trained(shards, family, optimizer))
    with mock.patch.object(parts, "PIECE", PIECE):
        save_state(path, training.state()[0], cuts=training.cuts(), shards=shards)
        save_state(
            path.with_suffix(".optimizer"),
            optimizer_state(training.optimizer)[0],
            cuts=optimizer_cuts(training.optimizer, training.model),
            shards=shards,
        )


def state_loaded(shards: Shards, family: str, optimizer: str, path: Path) -> bool:
    """Whether a fresh training takes up its part of a state, and a fresh optimizer that of an optimizer's."""
    expected, after = stepped(trained(shards, family, optimizer)).state()
    training = trained(shards, family, optimizer)
    assert training.cuts() == stepped(trained(shards, family, optimizer)).cuts()
    training.load_state(load_state(path, cuts=training.cuts())[0], after)
    alone = trained(shards, family, optimizer)
    cuts = optimizer_cuts(alone.optimizer, alone.model)
    load_optimizer_state(alone.optimizer, load_state(path.with_suffix(".optimizer"), cuts=cuts)[0], after["optimizer"])
    found = training.state()[0]
    assert found.keys() == expected.keys()
    carried = optimizer_state(alone.optimizer)[0]
    return all(
        torch.equal(tensor, expected[name]) and (name not in carried or torch.equal(tensor, carried[name]))
        for name, tensor in found.items()
    )


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("family", ["efcn", "lcn"])
def test_the_state_of_a_training_is_that_of_one_process(family: str, optimizer: str, tmp_path: Path) -> None:
    alone, path = tmp_path / "alone", tmp_path / "together"
    training = stepped(trained(None, family, optimizer))
    assert training.cuts() == optimizer_cuts(training.optimizer, training.model) == {}
    save_state(alone, training.state()[0])
    save_state(alone.with_suffix(".optimizer"), optimizer_state(training.optimizer)[0])
    together(2, state_saved, family, optimizer, path)
    assert path.read_bytes() == alone.read_bytes()
    assert path.with_suffix(".optimizer").read_bytes() == alone.with_suffix(".optimizer").read_bytes()
    assert all(together(3, state_loaded, family, optimizer, path))


def delta(shards: Shards, path: Path) -> tuple[bool, str]:
    """Whether a fresh lift comes back, and what is said of one that the last process trained since."""
    parent = base()
    lift = anarch_core.relax(parent, "efcn", example_input=example().double(), shards=shards, check=False).model
    save(lift, path, parent=parent)
    again = load(path, model=base(), shards=shards)
    same = all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in lift.state_dict().items())
    if shards.rank == shards.size - 1:
        with torch.no_grad():
            lift.get_parameter("3.weight").add_(1)
    try:
        save(lift, path, parent=parent)
    except CheckpointError as error:
        return same, str(error)
    return same, ""


def test_a_fresh_lift_is_stored_as_its_parent_if_all_agree_that_it_is_one(tmp_path: Path) -> None:
    parent = base()
    save(anarch_core.relax(parent, "efcn", example_input=example().double()).model, tmp_path / "alone", parent=parent)
    for same, said in together(2, delta, tmp_path / "together"):
        assert same
        assert said.startswith("relaxing the parent does not give the model: '3.weight' differs")
    assert (tmp_path / "together").read_bytes() == (tmp_path / "alone").read_bytes()
    assert read_header(tmp_path / "together").metadata["anarch.kind"] == "delta"


def not_shared_out(shards: Shards, path: Path) -> bool:
    save(base(), path, shards=shards)
    return path.exists()


def test_a_network_that_is_not_shared_out_is_written_by_the_first_alone(tmp_path: Path) -> None:
    save(base(), tmp_path / "alone")
    assert all(together(2, not_shared_out, tmp_path / "together"))
    assert (tmp_path / "together").read_bytes() == (tmp_path / "alone").read_bytes()


class Twice(nn.Module):
    """One convolution under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.first = self.second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(self.second(x))


def twice(shards: Shards | None = None) -> nn.Module:
    torch.manual_seed(0)
    return anarch_core.relax(Twice(), "efcn", example_input=torch.zeros(2, 4, 3, 3), shards=shards).model


def tied(shards: Shards, path: Path) -> bool:
    save(twice(shards), path)
    again = load(path, model=Twice(), shards=shards)
    return again.first is again.second and own(again, twice())


def test_ties_are_those_of_one_process(tmp_path: Path) -> None:
    save(twice(), tmp_path / "alone")
    assert all(together(2, tied, tmp_path / "together"))
    assert (tmp_path / "together").read_bytes() == (tmp_path / "alone").read_bytes()


def refusal(shards: Shards, path: Path, model: str) -> str:
    """What is said when a file is loaded into a network, or a state into a training."""
    try:
        if model == "state":
            load_state(path, cuts=cuts_of(relaxed("efcn", shards)))
        else:
            load(path, model=base() if model == "base" else relaxed("lcn", shards), shards=shards)
    except CheckpointError as error:
        return str(error)
    return ""


def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save(relaxed("efcn"), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert all("was altered: its tensors do not match" in said for said in together(2, refusal, path, "base"))


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_state(path, relaxed("lcn").state_dict())
    for said in together(2, refusal, path, "state"):
        assert re.search(r"has '\d.\w+' of shape \(.*\), expected \(.*\); it is of another network$", said)
    save_file(base().state_dict(), path)
    for said in together(2, refusal, path, "likewise"):
        assert "'0.weight' has shape (6, 2, 3, 3) in the file, (16, 16, 1, 2, 6) in the model" in said


@contextmanager
def short_files() -> Iterator[None]:
    """Files end after 64 KiB, as on a disk that is full."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def unwritable(shards: Shards, folder: Path) -> list[str]:
    """What every process is told by writes that fail at the start, in the midst and at the end; then of one that does not."""
    said = []
    model = relaxed("efcn", shards)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with mock.patch.object(parts, "PIECE", PIECE):
        for path, failing in (
            (folder / "none" / "x", None),
            (folder / "x", short_files()),
            (folder / "x", mock.patch.object(os, "fsync", full)),
            (folder / "x", None),
        ):
            try:
                if failing is None or not shards.leads:
                    save(model, path)
                else:
                    with failing:
                        save(model, path)
            except CheckpointError as error:
                said.append(str(error))
            else:
                said.append("written")
    return said


def test_what_the_first_cannot_write_every_process_hears_of(tmp_path: Path) -> None:
    first, second, third = together(3, unwritable, tmp_path)
    assert first == second == third
    assert re.fullmatch(r"cannot write .*none/x: No such file or directory", first[0])
    assert re.fullmatch(r"cannot write .*x: File too large", first[1])
    assert re.fullmatch(r"cannot write .*x: No space left on device", first[2])
    assert first[3] == "written"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_part_is_not_written_without_the_rest(tmp_path: Path) -> None:
    cut = Cut(shape=(4, 3), before=1, channels=4, after=3, own=range(2))
    with pytest.raises(CheckpointError, match="holds a part of 'a'; pass shards="):
        save_state(tmp_path / "x", {"a": torch.zeros(2, 3)}, cuts={"a": cut})
    with pytest.raises(CheckpointError, match=r"'a' has shape \(4, 3\); expected \(2, 3\), this process's part of \(4, 3\)"):
        save_state(tmp_path / "x", {"a": torch.zeros(4, 3)}, cuts={"a": cut})


MIB = 1 << 20


def peaks(shards: Shards, path: Path, before: int) -> dict[str, int]:
    """Bytes of memory that a process takes beyond what it holds while a tensor of 64 MiB is written, and while its part is read."""
    channels = 64
    after = 64 * MIB // (4 * channels * before)
    stretch = shards.stretch(channels)
    cut = Cut(shape=(before, channels, after), before=before, channels=channels, after=after, own=stretch)
    part = torch.full(cut.part_shape, 1.0 + shards.rank)
    found: dict[str, Any] = {}
    with mock.patch.object(parts, "PIECE", MIB):
        start = resident()
        save_state(path, {"a": part}, cuts={"a": cut}, shards=shards)
        found["written"] = most() - start
        start = resident()
        again = load_state(path, cuts={"a": cut})[0]["a"]
        found["read"] = most() - start - part.nbytes
    assert torch.equal(again, part)
    return found


def large(shards: Shards | None) -> nn.Module:
    """An eFCN of 64 MiB."""
    return anarch_core.relax(wide(), "efcn", example_input=torch.zeros(2, 8, 16, 16), shards=shards, check=False).model


def wide() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 32, 3, padding=1))


def loading(shards: Shards, path: Path) -> int:
    """Bytes of memory that loading takes beyond those of the network."""
    model = wide()
    with mock.patch.object(parts, "PIECE", MIB):
        start = resident()
        again = load(path, model=model, shards=shards)
        taken = most() - start
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in large(shards).state_dict().items())
    return taken - sum(tensor.nbytes for tensor in again.state_dict().values())


def resident() -> int:
    """Bytes of memory now, from which :func:`most` counts anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def most() -> int:
    return status("VmHWM")


def status(what: str) -> int:
    return 1024 * int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.parametrize("before", [1, 256])
def test_nobody_ever_holds_a_whole_tensor(before: int, tmp_path: Path) -> None:
    for found in together(2, peaks, tmp_path / "x", before):
        assert found["written"] < 16 * MIB
        assert found["read"] < 16 * MIB


def test_a_network_is_read_where_it_is(tmp_path: Path) -> None:
    save(large(None), tmp_path / "x")
    assert all(taken < 16 * MIB for taken in together(2, loading, tmp_path / "x"))
