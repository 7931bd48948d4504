"""``docs/own_loop.md`` says what is true: its loop runs, and its callbacks switch in the frameworks they are for."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import anarch_core
from anarch_core.errors import ConfigError, OptimizerStateWarning
from anarch_core.layers.base import relaxed_layers

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "own_loop.md").read_text()
PLAIN, LIGHTNING, TRANSFORMERS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def run(block):
    names = {}
    exec(compile(block, "docs/own_loop.md", "exec"), names)
    return names


def test_the_plain_loop_runs(capsys):
    names = run(PLAIN)
    assert names["switched"].report.exact
    assert set(names["switched"].optimizer_state.values()) == {"carried"}
    assert relaxed_layers(names["model"]).keys() == {"0", "2"}
    assert anarch_core.drift(names["model"]).total.unshared > 0
    assert "'0.weight': 'carried'" in capsys.readouterr().out


ROWS = re.findall(r"^\| ([A-Z]\w+(?:, \w+)*) \| (carried|relaxed layers are reset|refused)", TEXT, re.MULTILINE)


@pytest.mark.parametrize(("name", "promise"), [(name, promise) for names, promise in ROWS for name in names.split(", ")])
def test_the_table_of_optimizers(name, promise):
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    x = torch.randn(4, 2, 6)
    optimizer = getattr(torch.optim, name)(model.parameters(), **({"lr": 0.1, "momentum": 0.9} if name == "SGD" else {}))

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - 1).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    if promise == "refused":
        with pytest.raises(ConfigError):
            anarch_core.switch(model, optimizer, "efcn", example_input=x, optimizer_state="carry")
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizerStateWarning)
        fate = anarch_core.switch(model, optimizer, "efcn", example_input=x, optimizer_state="carry").optimizer_state
    assert {fate["0.weight"], fate["0.bias"]} == {"carried" if promise == "carried" else "reset"}
    assert {fate["2.weight"], fate["2.bias"]} == {"carried"}


def test_links_lead_somewhere():
    for target, anchor in re.findall(r"\]\(([\w./]+\.md)(?:#([\w-]+))?\)", TEXT):
        page = (ROOT / "docs" / target).resolve()
        assert page.is_file(), target
        headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], anchor


@pytest.mark.slow
def test_the_callback_for_lightning(tmp_path):
    lightning = pytest.importorskip("lightning")
    switch = run(LIGHTNING)["Switch"]
    x, y = torch.randn(32, 2, 6), torch.arange(32) % 2
    seen = {}

    def loss(net):
        with torch.no_grad():
            return float(nn.functional.cross_entropy(net(x), y))

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))

        def training_step(self, batch, _):
            inputs, targets = batch
            return nn.functional.cross_entropy(self.net(inputs), targets)

        def configure_optimizers(self):
            optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    class Watching(switch):
        def on_train_epoch_start(self, trainer, module):
            before, start = loss(module.net), module.net[0].weight
            super().on_train_epoch_start(trainer, module)
            if trainer.current_epoch == self.epoch:
                seen.update(before=before, after=loss(module.net), optimizer=trainer.optimizers[0])
                seen.update(start=module.net[0].weight.detach().clone(), was=start)

    callback = Watching(1, "efcn", x[:2], optimizer_state="carry")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 8)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"default_root_dir": tmp_path, "accelerator": "cpu", "gradient_clip_val": 1.0, **quiet}
    trainer = lightning.Trainer(max_epochs=3, callbacks=[callback], **settings)
    module, later = Module(), Module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader)
        trainer.save_checkpoint(tmp_path / "after.ckpt")
    assert set(callback.switched.optimizer_state.values()) == {"carried"}
    assert seen["after"] == pytest.approx(seen["before"], rel=1e-5)
    assert not torch.equal(module.net[0].weight, seen["start"])
    assert float(seen["optimizer"].state[module.net[0].weight]["step"]) == 12
    assert seen["optimizer"].param_groups[0]["lr"] == 0.01 / 8
    assert anarch_core.drift(module.net).total.unshared > 0

    later.net = anarch_core.relax(later.net, "efcn", example_input=x[:2]).model
    again = lightning.Trainer(max_epochs=4, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again.fit(later, loader, ckpt_path=tmp_path / "after.ckpt")
    assert again.global_step == 16
    assert float(again.optimizers[0].state[later.net[0].weight]["step"]) == 16


@pytest.mark.slow
def test_the_callback_for_the_trainer_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    switch = run(TRANSFORMERS)["Switch"]
    x, y = torch.randn(32, 3, 8, 8), torch.arange(32) % 2
    config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic", num_labels=2)
    model = transformers.ResNetForImageClassification(config)
    seen = {}

    def loss(network):
        network.eval()
        with torch.no_grad():
            value = float(network(pixel_values=x, labels=y).loss)
        network.train()
        return value

    class Watching(switch):
        def on_epoch_begin(self, args, state, control, model, optimizer, **rest):
            before = loss(model)
            super().on_epoch_begin(args, state, control, model, optimizer, **rest)
            if round(state.epoch) == self.epoch:
                seen.update(before=before, after=loss(model))
                seen["start"] = {path: layer.weight.detach().clone() for path, layer in relaxed_layers(model).items()}

    callback = Watching(1, "efcn", {"pixel_values": x[:2]}, layers="*encoder*", optimizer_state="carry")
    settings = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=3,
        per_device_train_batch_size=8,
        save_strategy="epoch",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    data = [{"pixel_values": image, "labels": label} for image, label in zip(x, y, strict=True)]
    trainer = transformers.Trainer(model, settings, train_dataset=data, callbacks=[callback])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    assert set(callback.switched.optimizer_state.values()) == {"carried"}
    assert seen["after"] == pytest.approx(seen["before"], rel=1e-5)
    assert seen["start"]
    for path, start in seen["start"].items():
        layer = model.get_submodule(path)
        assert not torch.equal(layer.weight, start)
        assert float(trainer.optimizer.state[layer.weight]["step"]) == 12
    assert anarch_core.drift(model).total.unshared > 0

    base = transformers.ResNetForImageClassification(config)
    likewise = anarch_core.relax(base, "efcn", example_input={"pixel_values": x[:2]}, layers="*encoder*").model
    loaded = anarch_core.load(tmp_path / "checkpoint-12" / "model.safetensors", model=likewise)
    assert loss(loaded) == pytest.approx(loss(model), rel=1e-6)
    settings.num_train_epochs = 4
    again = transformers.Trainer(likewise, settings, train_dataset=data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-12"))
    assert again.state.global_step == 16
    assert float(again.optimizer.state[likewise.get_submodule(path).weight]["step"]) == 16
