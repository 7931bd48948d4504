"""MNIST-1D: 40-point signals in ten classes, generated on the spot. The data set that needs nothing downloaded."""

from __future__ import annotations

from anarch_core.plugin import DatasetInfo, hookimpl


@hookimpl
def anarch_datasets() -> list[DatasetInfo]:
    """Register the data set."""
    return [
        DatasetInfo(
            name="mnist1d",
            summary="MNIST-1D: 4000 + 1000 signals of 40 points in 10 classes, made to measure spatial bias; generated, not downloaded.",
            target="anarch_plugins.datasets.mnist1d.dataset:load",
            defaults={
                "model": "cnn1d",
                "epochs": 150,
                "branch_epochs": 100,
                "lr": 0.1,
                "branch_lr": 0.05,
                "batch_size": 100,
                "switch": "log:5",
            },
            references=("Greydanus & Kobak 2024, Scaling Down Deep Learning with MNIST-1D, https://arxiv.org/abs/2011.14439",),
        )
    ]
