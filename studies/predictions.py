"""Four predictions about the valley, each of which can fail: told before, measured, and judged by a rule fixed before.

    python studies/predictions.py --shared ../shared --cache build/training

(i) one curve for all confident points; (ii) no valley under the squared loss, and no protection; (iii) a floor that can be
computed before any attack for cosine heads; (iv) robust networks differ by the growth of their margin alone. PGD Linf in 20
steps of 2.5 eps/20, no random start, every step recorded. (ii), (iii) and the pairs of (iv) that differ in nothing but their
training need networks of `studies/training.py`, from the same cache; those that are not there are left out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from predictions import curve, floor, margins, squared
from predictions.figure import draw
from predictions.subjects import SHARED, Subject, shared_subject, trained_subject
from training.networks import Trained, finished

PARTS = ("curve", "squared", "floor", "margins")

NEAREST = ("cifar10 marabou_medium", "cifar10 conv_small_pgd")
"""The closest pair of a hardly robust and a robust shared network: the same two convolutions."""


def pairs(subjects: Sequence[Subject]) -> dict[str, tuple[list[Subject], list[Subject]]]:
    """What (iv) compares: all standard and robust networks of a data set, and pairs that differ in less."""
    found = {}
    for group in dict.fromkeys(one.group for one in subjects):
        standard, robust = (
            [one for one in subjects if one.group == group and one.kind == kind]
            for kind in ("standard", "robust")
        )
        if standard and robust:
            found[group] = (standard, robust)
    by_name = {f"{one.group} {one.name}": one for one in subjects}
    if all(name in by_name for name in NEAREST):
        found[" / ".join(NEAREST)] = ([by_name[NEAREST[0]]], [by_name[NEAREST[1]]])
    return found


def ask_curve(subjects: Sequence[Subject]) -> None:
    """Prediction (i) at three thresholds, and where it promises nothing."""
    for threshold in curve.THRESHOLDS:
        fits = curve.judge(subjects, threshold)
        curve.table(f"(i) where p_t ≥ {threshold} at the clean image and at the point", fits)
        if threshold == curve.THRESHOLDS[0]:
            judged = fits
    curve.table(f"(i) elsewhere (p_t < {curve.THRESHOLDS[0]} at either)", curve.unsure(subjects))
    print()
    curve.verdict(judged)


def ask_margins(subjects: Sequence[Subject]) -> None:
    """Prediction (iv)."""
    margins.growth_table(subjects)
    answers = {}
    for pair, (standard, robust) in pairs(subjects).items():
        answers[pair] = [margins.ask(question, standard, robust) for question in margins.QUESTIONS]
        margins.table(pair, answers[pair])
    print()
    margins.verdict(answers)


def of(trained: Sequence[Trained], dataset: str, name: str, given: argparse.Namespace) -> list[Subject]:
    """All seeds of one objective."""
    return [
        trained_subject(one, given.shared, given.cache)
        for one in trained
        if (one.dataset, one.name) == (dataset, name)
    ]


def ask_squared(trained: Sequence[Trained], given: argparse.Namespace) -> None:
    """Prediction (ii), on data sets where both losses were trained."""
    for dataset in dict.fromkeys(one.dataset for one in trained):
        plain, other = (of(trained, dataset, name, given) for name in ("erm", "squared"))
        seeds = min(len(plain), len(other))
        if seeds:
            squared.ask(dataset, plain[:seeds], other[:seeds])


def ask_floor(trained: Sequence[Trained], given: argparse.Namespace) -> list[Subject]:
    """Prediction (iii), on every network with a cosine head."""
    asked = [
        trained_subject(one, given.shared, given.cache, deep=floor.DEEP) for one in trained if one.is_cosine
    ]
    if asked:
        found = [floor.floors(one) for one in asked]
        floor.table(found)
        print()
        floor.verdict(found)
    return asked


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--cache", type=Path, default=Path("build/training"))
    parser.add_argument("--out", type=Path, default=Path("runs/predictions"), help="for the figure")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    trained = list(finished(given.cache))
    shared = [shared_subject(name, given.shared, given.cache) for name in SHARED]
    compared = ("erm", "pgd-at", "trades")
    asked = [one for one in trained if one.name in compared]
    own = [trained_subject(one, given.shared, given.cache) for one in asked]
    first = [one for one, made in zip(own, asked, strict=True) if made.seed == 0]
    print(
        f"{len(shared)} shared networks, {len(trained)} trained here; of these {len(own)} are asked (iv), and {len(first)} first seeds (i)"
    )
    if "curve" in given.parts:
        ask_curve([*shared, *first])
    if "squared" in given.parts:
        ask_squared(trained, given)
    cosine = ask_floor(trained, given) if "floor" in given.parts else []
    if "margins" in given.parts:
        ask_margins([*shared, *own])
    given.out.mkdir(parents=True, exist_ok=True)
    plain, other = (of(trained, "digits", name, given) for name in ("erm", "squared"))
    draw([*shared, *first], plain, other, cosine, given.out / "predictions.png")
    print(f"\nfigure: {given.out / 'predictions.png'}")


if __name__ == "__main__":
    main()
