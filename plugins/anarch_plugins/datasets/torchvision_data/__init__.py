"""CIFAR-10, CIFAR-100, MNIST, Fashion-MNIST and SVHN through torchvision."""

from __future__ import annotations

from anarch_core.plugin import DatasetInfo, hookimpl

_PAPER = {"epochs": 150, "branch_epochs": 100, "lr": 0.1, "branch_lr": 0.01, "batch_size": 250}
"""Settings of d'Ascoli et al. 2019, section 3."""


@hookimpl
def anarch_datasets() -> list[DatasetInfo]:
    """Register the data sets."""
    return [
        DatasetInfo(
            name="cifar10",
            summary="CIFAR-10: 50,000 + 10,000 colour images of 32 x 32 in 10 classes.",
            target="anarch_plugins.datasets.torchvision_data.dataset:cifar10",
            defaults={"model": "vanilla-cnn", **_PAPER},
            references=("Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html",),
        ),
        DatasetInfo(
            name="cifar100",
            summary="CIFAR-100: 50,000 + 10,000 colour images of 32 x 32 in 100 classes.",
            target="anarch_plugins.datasets.torchvision_data.dataset:cifar100",
            defaults={"model": "alexnet", **_PAPER},
            references=("Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html",),
        ),
        DatasetInfo(
            name="mnist",
            summary="MNIST: 60,000 + 10,000 grey images of 28 x 28 in 10 classes.",
            target="anarch_plugins.datasets.torchvision_data.dataset:mnist",
            defaults={"model": "vanilla-cnn", **_PAPER},
            references=("LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition",),
        ),
        DatasetInfo(
            name="fashion-mnist",
            summary="Fashion-MNIST: 60,000 + 10,000 grey images of 28 x 28 in 10 classes.",
            target="anarch_plugins.datasets.torchvision_data.dataset:fashion_mnist",
            defaults={"model": "vanilla-cnn", **_PAPER},
            references=("Xiao et al. 2017, https://arxiv.org/abs/1708.07747",),
        ),
        DatasetInfo(
            name="svhn",
            summary="SVHN: 73,257 + 26,032 colour images of 32 x 32 in 10 classes.",
            target="anarch_plugins.datasets.torchvision_data.dataset:svhn",
            defaults={"model": "vanilla-cnn", **_PAPER},
            references=("Netzer et al. 2011, http://ufldl.stanford.edu/housenumbers/",),
        ),
    ]
