"""Claim 2: the pattern appears on several architectures and data sets."""

from pathlib import Path

import numpy as np

from claims import pictures
from claims.printed import BREADTH, Walked, breadth
from claims.valley import STEPS
from claims.verdicts import Criterion, Outcome, Part, point, share, share_of
from claims.walks import DOUBLED, MOST, Pattern, World, pattern
from uncannyvalley import attacks

RISES = Criterion("flipped images whose κ has doubled by the flip", "above", MOST, ".0%")
FALLS = Criterion("flipped images that end at less than half the clean κ, label wrong", "above", MOST, ".0%")
PRINTED_RISE = Criterion("median height of the ridge, nats", "above", DOUBLED)
PRINTED_FALL = Criterion("images that go below their clean κ after the flip", "above", MOST, ".0%")

RADII = {
    "digits": 0.5,
    "mnist_conv_small_nat": 0.4,
    "cifar10_marabou_medium": 16 / 255,
    "cifar10_resnet32": 8 / 255,
    "cifar10_resnet20": 8 / 255,
}
"""Networks of standard training that are walked here, and how far: small images and small networks need more."""

TITLES = {
    "digits": "small CNN, digits",
    "mnist_conv_small_nat": "small CNN, MNIST",
    "cifar10_marabou_medium": "plain CNN, CIFAR-10",
    "cifar10_resnet32": "ResNet-32, CIFAR-10",
    "cifar10_resnet20": "ResNet-20, CIFAR-10",
}

FAMILIES = {
    "vgg11-bn, width ¼": "VGG-11, ¼ width",
    "resnet18, width ¼": "ResNet-18, ¼ width",
    "wideresnet28-4, width ¼": "WRN-28-4, ¼ width",
    "densenet121, width ¼": "DenseNet-121, ¼ width",
    "ViT (MNIST)": "ViT, MNIST",
}
"""Networks whose training takes long: their walks were printed by studies/breadth.py."""


def measure(world: World) -> Outcome:
    """PGD on five networks here and on five in print."""
    found, parts = {}, []
    networks = ["digits"] if world.quick else list(RADII)
    for network in networks:
        eps = RADII[network]
        steps = world.few(STEPS, 12)
        attack = attacks.pgd(eps=eps, step_size=2.5 * eps / steps)
        found[TITLES[network]] = pattern(world.walk(network, attack, steps))
        parts += judged_here(TITLES[network], found[TITLES[network]])
    in_print = {row.network: row for row in breadth() if row.attack == "pgd" and row.network in FAMILIES}
    for network, title in FAMILIES.items():
        parts += judged_in_print(title, in_print[network])
    lines = [f"{'':24}{'images':>7}{'rises':>7}{'valley':>8}{'rise':>7}{'fall':>7}"]
    for title, one in found.items():
        lines.append(
            f"{title:24}{len(one.rise):>7}{one.doubles.mean():>7.0%}{one.valley.mean():>8.0%}"
            f"{np.median(one.rise):>7.1f}{np.median(one.fall):>7.1f}"
        )
    for network, title in FAMILIES.items():
        row = in_print[network]
        lines.append(
            f"{title:24}{row.right:>7}{'–':>7}{row.valley:>8.0%}{row.height:>7.1f}{row.depth:>7.1f}  in print"
        )

    def draw(path: Path) -> None:
        figure, panels = pictures.sheet(9.6, 3.9, 2)
        names = [*found, *FAMILIES.values()]
        rises, falls = parts[::2], parts[1::2]
        shown = [part for part in rises if part.rule == RISES.rule and "median" not in part.text]
        pictures.intervals(panels[0], shown, MOST, names[: len(shown)])
        panels[0].set_title("κ doubles by the flip: walked here")
        pictures.intervals(panels[1], falls, MOST, names)
        panels[1].set_title("valley, label wrong: with those in print")
        for panel in panels:
            panel.set_xlim(-0.02, 1.02)
            panel.set_xlabel("share of flipped images")
        pictures.save(figure, path)

    both = [
        rise.verdict == fall.verdict == "holds" for rise, fall in zip(parts[::2], parts[1::2], strict=True)
    ]
    valleys = sum(part.verdict == "holds" for part in parts[1::2])
    short = f"{sum(both)} of {len(both)} networks rise and then fall; {valleys} have the valley"
    return Outcome(parts, short, lines, draw)


def judged_here(title: str, one: Pattern) -> list[Part]:
    """Rise and fall of a network that was walked in this run."""
    return [
        RISES.judge(share(one.doubles[one.flipped]), of=title),
        FALLS.judge(share(one.valley[one.flipped]), of=title),
    ]


def judged_in_print(title: str, row: Walked) -> list[Part]:
    """The same of a printed walk, whose height has no interval and whose valley is any fall below clean."""
    valley = share_of(row.count(row.valley), row.count(row.flipped))
    return [
        PRINTED_RISE.judge(point(row.height), of=title, source=BREADTH),
        PRINTED_FALL.judge(valley, of=title, source=BREADTH),
    ]
