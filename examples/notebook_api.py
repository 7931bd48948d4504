"""The Python API, cell by cell."""

# %% [markdown]
# # anarch from a notebook
#
# Cells in the percent format: VS Code, PyCharm and jupytext open this file as a notebook, and `python examples/notebook_api.py` runs it
# in ten seconds or so on a CPU. A network is trained, relaxed, trained on, measured, saved and projected back, all with plain PyTorch in
# between; the last cell lets `anarch` do the same as an experiment.

# %%
import tempfile
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from anarch_core import drift, load, measure, project, relax, run, save
from anarch_core.data import load_data
from anarch_core.models import model_spec
from anarch_core.relaxation import plan
from anarch_core.training import evaluate

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# Data sets and models by name. Any `nn.Module` of yours will do as well.

# %%
data = load_data("mnist1d")
spec = model_spec("cnn1d", input_shape=data.input_shape, classes=data.classes)
model = spec.build(seed=0)
print(model)


# %%
def train(network: torch.nn.Module, epochs: int, lr: float) -> None:
    """Plain SGD: a relaxed network is trained like any other."""
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(data.y_train)).split(100):
            optimizer.zero_grad()
            cross_entropy(network(data.x_train[rows]), data.y_train[rows]).backward()
            optimizer.step()


def accuracy(network: torch.nn.Module) -> float:
    """On the test set, in percent."""
    return evaluate(network, data.x_test, data.y_test).accuracy


torch.manual_seed(0)
train(model, epochs=10, lr=0.1)
print(f"CNN after 10 epochs: {accuracy(model):.1f} %")

# %% [markdown]
# What a relaxation would take, before anything is allocated; then the relaxation itself. The network is not changed: there is a new one.

# %%
example = data.x_train[:2]
for name in ("tiled", "lcn", "efcn"):
    planned = plan(model, name, example_input=example)
    print(f"{name:6} {sum(layer.cost.parameters for layer in planned.layers):>9,} parameters in relaxed layers")

relaxed = relax(model, "lcn", example_input=example)
print(f"largest deviation from the CNN: {relaxed.report.error:.1e}; exact: {relaxed.report.exact}")
print(f"locally connected at the switch: {accuracy(relaxed.model):.1f} %")

# %%
train(relaxed.model, epochs=10, lr=0.1)
print(f"10 epochs later: {accuracy(relaxed.model):.1f} %")

# %% [markdown]
# How far it went: three orthogonal parts of its weights, per layer and in all. Probes measure more, by their names.

# %%
print(drift(relaxed.model))

start = relax(model, "lcn", example_input=example).model
for name in ("delta", "ablation"):
    print(name, measure(relaxed.model, name, data=data.limited(500), reference=start, parent=model))

# %% [markdown]
# A file holds all that is needed to build the network again; and there is a way back to the nearest CNN.

# %%
save(relaxed.model, folder / "relaxed.safetensors", model_spec=spec)
again = load(folder / "relaxed.safetensors")
print(f"loaded: {accuracy(again):.1f} %; projected back to a CNN: {accuracy(project(again)):.1f} %")

# %% [markdown]
# The same as an experiment: a trunk, branches that leave it, and controls. `run` takes the settings that `anarch run` has as flags.

# %%
settings = {"data": "mnist1d", "relax": "lcn", "probe": "delta", "switch": "at:4", "control": "continued", "jobs": 1}
results = run(**settings, epochs=4, branch_epochs=2, out=folder / "run", progress="silent")
for segment in results.segments:
    print(f"{segment.kind:10} {segment.relaxation or 'cnn':5} {segment.final.test_accuracy:.1f} %")
