"""What ``docs/checkpoint_format.md`` says of models of the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import anarch_core
from anarch_core.errors import CheckpointError

TEXT = (Path(__file__).parents[2] / "docs" / "checkpoint_format.md").read_text(encoding="utf-8")
BESIDE, ALONE = re.findall(r"^```python\n(.*?)^```$", TEXT.partition("## Models of the Hugging Face Hub")[2], re.DOTALL | re.MULTILINE)
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def mixin():
    hub = pytest.importorskip("huggingface_hub")

    class Net(nn.Module, hub.PyTorchModelHubMixin):
        def __init__(self, width: int = 3) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, width, 3)
            self.head = nn.Linear(36 * width, 2)

        def forward(self, pixel_values):
            return self.head(self.conv(pixel_values).flatten(1))

    return Net, Net(width=4), X


def resnet():
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic", num_labels=2)
    network = transformers.ResNetForImageClassification
    return network, network(config).eval(), {"pixel_values": X}


@pytest.mark.parametrize("build", [mixin, resnet])
def test_a_relaxed_model_of_the_hub_is_saved_beside_its_base(build, tmp_path):
    network, model, x = build()
    relaxed = anarch_core.relax(model, "efcn", example_input=x)
    with torch.no_grad():
        for parameter in relaxed.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    names = {"model": model, "relaxed": relaxed, "folder": tmp_path, "Net": network, "anarch_core": anarch_core}
    exec(compile(BESIDE, "docs/checkpoint_format.md", "exec"), names)
    assert type(names["again"]) is network
    for name, value in relaxed.model.state_dict().items():
        assert torch.equal(names["again"].state_dict()[name], value), name


def test_what_save_pretrained_writes_of_a_relaxed_network_is_refused_by_from_pretrained_and_loaded_into_one_relaxed_likewise(tmp_path):
    network, model, x = mixin()
    relaxed = anarch_core.relax(model, "efcn", example_input=x).model
    relaxed.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="size mismatch"):
        network.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="relaxed likewise"):
        anarch_core.load(tmp_path / "model.safetensors", model=network(width=4))
    configuration = json.loads((tmp_path / "config.json").read_text())
    names = {"configuration": configuration, "folder": tmp_path, "Net": network, "anarch_core": anarch_core, "x": x}
    exec(compile(ALONE, "docs/checkpoint_format.md", "exec"), names)
    torch.testing.assert_close(names["again"](X), relaxed(X), rtol=0, atol=0)
