"""Quarter-width networks of the four families on CIFAR-10, and a small vision transformer on MNIST.

    python studies/train_families.py --shared ../shared --out build/families

Writes NAME-w0.25.safetensors, the plain state dict of ``FAMILIES[NAME](0.25)``, which wants images that were
normalised by MEAN and STD, and vit-mnist/, a Transformers folder with its preprocessor. What is there already is
not trained again. The table gives test accuracies of the files as written: on all test images, and for CIFAR-10
also on the lossless ones. The CIFAR-10 images to train on are the JPEG copies. Crops and mirror images, SGD (the
transformer: AdamW) with a one-cycle rate; convolutional networks see only the last third of their epochs at
full resolution, the others at half, where an epoch costs a quarter. About an hour on one thread.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from uncannyvalley import data
from uncannyvalley.data import Images
from uncannyvalley.zoo.families import FAMILIES

WIDTH = 0.25
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
VIT = "vit-mnist"


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    pad    pixels added by reflection on each side, from which crops of the images' own size are taken
    small  all epochs but the last third (at least one) at half resolution
    """

    epochs: int
    optimizer: Callable[..., torch.optim.Optimizer]
    rate: float
    pad: int
    mirror: bool
    small: bool
    batch: int = 128


def sgd(parameters: object, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)


def adamw(parameters: object, lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.05)


CONVOLUTIONAL = Recipe(epochs=8, optimizer=sgd, rate=0.2, pad=4, mirror=True, small=True)
RECIPES = {
    "vgg11-bn": replace(CONVOLUTIONAL, epochs=6),
    VIT: Recipe(epochs=12, optimizer=adamw, rate=2e-3, pad=2, mirror=False, small=False),
    "resnet18": replace(CONVOLUTIONAL, epochs=5),
    "wideresnet28-4": replace(CONVOLUTIONAL, epochs=3),
    "densenet121": replace(CONVOLUTIONAL, epochs=3),
}
"""The queue, the cheap ones first."""


class Normalized(nn.Module):
    """(x − mean) / std before ``inner``; its logits as a tensor."""

    def __init__(self, inner: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        found = self.inner((x - self.mean) / self.std)
        return getattr(found, "logits", found)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def padded(images: Images, pad: int) -> Tensor:
    """Bytes (n, h + 2 pad, w + 2 pad, channels): indexing them gives channels-last batches."""
    last = images.pixels.transpose(0, 2, 3, 1)
    return torch.from_numpy(np.pad(last, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect"))


def crops(stored: Tensor, rows: Tensor, size: int, mirror: bool) -> Tensor:
    """Random size x size windows of the images in ``rows``, half of them mirrored, as floats in [0, 1]."""
    shifts = torch.randint(stored.shape[1] - size + 1, (2, len(rows), 1, 1))
    down = shifts[0] + torch.arange(size).view(1, -1, 1)
    across = shifts[1] + torch.arange(size).view(1, 1, -1)
    if mirror:
        across = torch.where(torch.rand(len(rows), 1, 1) < 0.5, across.flip(2), across)
    return stored[rows.view(-1, 1, 1), down, across].permute(0, 3, 1, 2).float() / 255


def train(name: str, net: nn.Module, images: Images, recipe: Recipe) -> None:
    """Train ``net`` in place, one line an epoch."""
    net.train().to(memory_format=torch.channels_last)
    stored, size = padded(images, recipe.pad), images.pixels.shape[-1]
    steps = len(images) // recipe.batch
    optimizer = recipe.optimizer(net.parameters(), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.rate, total_steps=recipe.epochs * steps, pct_start=0.25
    )
    for epoch in range(recipe.epochs):
        small = recipe.small and epoch < recipe.epochs - max(1, recipe.epochs // 3)
        started, total = time.perf_counter(), 0.0
        order = torch.randperm(len(images))
        for step in range(steps):
            rows = order[step * recipe.batch : (step + 1) * recipe.batch]
            x = crops(stored, rows, size, recipe.mirror)
            if small:
                x = nn.functional.avg_pool2d(x, 2)
            loss = nn.functional.cross_entropy(net(x), images.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
            if step % 100 == 99:
                say(
                    f"{name}  epoch {epoch + 1}/{recipe.epochs}  step {step + 1}/{steps}  loss {total / (step + 1):.3f}"
                )
        say(f"{name}  epoch {epoch + 1}/{recipe.epochs}  done  {time.perf_counter() - started:.0f} s")
    net.eval()


def accuracy(net: nn.Module, images: Images, batch: int = 250) -> float:
    """Share of the images whose most probable class is their label."""
    with torch.no_grad():
        found = [
            net(images[first : first + batch].contiguous(memory_format=torch.channels_last)).argmax(dim=1)
            for first in range(0, len(images), batch)
        ]
    return (torch.cat(found) == images.labels).double().mean().item()


def vision_transformer() -> nn.Module:
    """Four layers of 64 features on 49 patches of 4 x 4 grey pixels; its scores are logits of ten digits."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=28, patch_size=4, num_channels=1, hidden_size=64, num_hidden_layers=4,
        num_attention_heads=4, intermediate_size=128, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, num_labels=10,
        id2label={number: str(number) for number in range(10)},
        label2id={str(number): number for number in range(10)},
    )  # fmt: skip
    return ViTForImageClassification(config)


def save_transformer(net: nn.Module, folder: Path) -> None:
    """Weights, config and preprocessor, whole or not at all."""
    preprocessor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True, "size": {"height": 28, "width": 28}, "resample": 2,
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.5], "image_std": [0.5],
    }  # fmt: skip
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    net.save_pretrained(scratch)
    (scratch / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")
    os.replace(scratch, folder)


def save_family(net: nn.Module, file: Path) -> None:
    """The plain state dict, whole or not at all."""
    scratch = file.with_suffix(f".{os.getpid()}.tmp")
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, scratch)
    os.replace(scratch, file)


def trained_transformer(images: Callable[[str], Images], recipe: Recipe, out: Path) -> nn.Module:
    """The transformer as its folder holds it, trained if there is none."""
    from transformers import ViTForImageClassification

    folder = out / VIT
    if not folder.exists():
        net = Normalized(vision_transformer(), (0.5,), (0.5,))
        train(VIT, net, images("mnist/train"), recipe)
        save_transformer(net.inner, folder)
    return Normalized(ViTForImageClassification.from_pretrained(folder), (0.5,), (0.5,)).eval()


def trained_family(name: str, images: Callable[[str], Images], recipe: Recipe, out: Path) -> nn.Module:
    """The quarter-width network as its file holds it, trained if there is none."""
    file = out / f"{name}-w{WIDTH}.safetensors"
    net = Normalized(FAMILIES[name](WIDTH), MEAN, STD)
    if not file.exists():
        train(name, net, images("cifar10-jpeg/train"), recipe)
        save_family(net.inner, file)
    net.inner.load_state_dict(load_file(file))
    return net.eval().to(memory_format=torch.channels_last)


def epochs_of(text: str) -> tuple[str, int]:
    """NAME=K."""
    name, _, count = text.partition("=")
    if name not in RECIPES or not count.isdigit() or int(count) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=K with K ≥ 1 and NAME of {', '.join(RECIPES)}"
        )
    return name, int(count)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/")
    parser.add_argument("--out", type=Path, default=Path("build/families"))
    parser.add_argument("--only", choices=RECIPES, action="append", metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("--epochs", type=epochs_of, action="append", default=[], metavar="NAME=K")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    chosen, loaded = dict(given.epochs), {}

    def images(part: str) -> Images:
        if part not in loaded:
            loaded[part] = data.load(f"parquet:{given.shared}/data/{part}.parquet")
        return loaded[part]

    print(f"{'network':<16} {'test':>7} {'lossless':>9} {'minutes':>8}", flush=True)
    for name in given.only or RECIPES:
        recipe = replace(RECIPES[name], epochs=chosen.get(name, RECIPES[name].epochs))
        torch.manual_seed(given.seed)
        started = time.perf_counter()
        if name == VIT:
            net, tests = trained_transformer(images, recipe, given.out), ["mnist/test"]
        else:
            net = trained_family(name, images, recipe, given.out)
            tests = ["cifar10-jpeg/test", "cifar10/test"]
        minutes = (time.perf_counter() - started) / 60
        found = [f"{accuracy(net, images(part)):.2%}" for part in tests]
        print(f"{name:<16} {found[0]:>7} {(found[1:] or ['–'])[0]:>9} {minutes:8.1f}", flush=True)


if __name__ == "__main__":
    main()
