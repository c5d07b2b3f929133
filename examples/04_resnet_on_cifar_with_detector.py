"""Example 4. Can attacked images be told from clean ones, and how much of that is only confidence?

The field's second experiment: a trained ResNet-20 on CIFAR-10 under FGSM and PGD within Linf 8/255, and under PGD that
stops as soon as the label is wrong. Four detectors learn from clean images alone and promise to flag at most 5 % of them:
log Gini (nothing but confidence), log κ (relative sharpness at the head), and this package's with one forward a decision
and with four. Prints the rate of false alarms that was promised and the one that came out, and for each attack the AUROC
and the share of successful attacks that is flagged. About 50 s on one core.

    python examples/04_resnet_on_cifar_with_detector.py              # network and images in ../shared
    python examples/04_resnet_on_cifar_with_detector.py --model family:resnet18 --weights mine.pt --train … --test …
"""

import numpy as np
import torch
from materials import COLOURS, in_shared, parser_of, quick, run, save
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley.detect.baselines import baseline

EPS, FPR = 8 / 255, 0.05
STEPS, FITTED, HELD, ATTACKED = quick(20, 8), quick(1000, 300), quick(359, 160), quick(200, 48)


def main() -> None:
    parser = parser_of(__doc__, shared=True)
    parser.add_argument("--model", help="a network of your own, as in uncanny record --model")
    parser.add_argument("--weights", help="its weights")
    parser.add_argument("--train", help="images to learn from, such as parquet:train.parquet")
    parser.add_argument("--test", help="images that the network was not trained on")
    given = parser.parse_args()
    spec = given.model or f"{in_shared(given.shared, 'models/load_reference.py', '--model')}:load"
    net = uv.zoo.load(spec, {} if given.model else {"name": "cifar10_resnet20"}, weights=given.weights)
    train, test = (
        uv.data.load(
            spec or f"parquet:{in_shared(given.shared, f'data/cifar10/{part}.parquet', f'--{part}')}"
        )
        for part, spec in (("train", given.train), ("test", given.test))
    )
    if len(test) < HELD + 100:
        raise uv.InputError(
            f"expected at least {HELD + 100} test images, {HELD} to fix thresholds; got {len(test)}"
        )
    x, y = test[HELD:], test.labels[HELD:]  # the first HELD fix thresholds, the rest is judged
    right = ~misclassified(net, x, y)
    x, y = x[right][:ATTACKED], y[right][:ATTACKED]
    attacked = {
        "fgsm": attack(net, x, y, steps=1, step_size=EPS),
        "pgd": attack(net, x, y, steps=STEPS, step_size=2 / 255),
        "pgd, stopped": attack(net, x, y, steps=STEPS, step_size=0.5 / 255, stop=True),
    }
    detectors = {
        "log Gini alone": uv.ImageDetector(net, fpr=FPR, recipe=baseline("gini")),
        "log κ alone": uv.ImageDetector(net, fpr=FPR, recipe=baseline("sharpness")),
        "one forward": uv.ImageDetector(net, fpr=FPR, budget=1),
        "four forwards": uv.ImageDetector(net, fpr=FPR, budget=4),
    }
    judged = {"clean": x} | {which: one[misclassified(net, one, y)] for which, one in attacked.items()}
    scores = {}
    for name, detector in detectors.items():
        detector.fit(
            train[:FITTED], calibration=test[:HELD]
        )  # clean images only; the threshold is fixed here
        scores[name] = {which: -detector.score_samples(one) for which, one in judged.items()}
    print_table(scores, {name: one.threshold for name, one in detectors.items()})
    save(drawn(scores), given.out, "04_resnet_on_cifar_with_detector.png")


def attack(
    net: nn.Module, x: Tensor, y: Tensor, *, steps: int, step_size: float, stop: bool = False
) -> Tensor:
    """PGD as anyone writes it, watched: prints log κ of the clean images and of those that it returns."""
    pushed = x.clone()
    with uv.observe(net, x, y, measures=["log_relative_sharpness"], eps=EPS) as walk:
        for _ in range(steps):
            pushed.requires_grad_()
            logits = walk.model(pushed)
            slope = torch.autograd.grad(nn.functional.cross_entropy(logits, y, reduction="sum"), pushed)[0]
            moves = (logits.argmax(dim=1) == y).view(-1, 1, 1, 1) if stop else 1.0
            pushed = (pushed.detach() + moves * step_size * slope.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
        walk.model(pushed)
    kappa = np.median(walk.trajectory.column("log_relative_sharpness"), axis=0)
    print(f"{steps:2} steps{', stopped' if stop else '':9} median log κ {kappa[0]:6.2f} → {kappa[-1]:6.2f}")
    return pushed


def misclassified(net: nn.Module, images: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return net(images).argmax(dim=1) != y


def print_table(scores: dict[str, dict[str, np.ndarray]], thresholds: dict[str, float]) -> None:
    """False alarms, then AUROC and detected share of each attack that succeeded."""
    attacks = list(next(iter(scores.values())))[1:]
    counts = next(iter(scores.values()))
    print(
        f"\nPromised: at most {FPR:.0%} of clean images flagged. Judged on {len(counts['clean'])} that are classified right, and on"
    )
    print("successful attacks: " + ", ".join(f"{len(counts[one])} {one}" for one in attacks))
    print(f"{'':16}{'flagged clean':>13}" + "".join(f"{one + ' AUROC':>20}{'flagged':>9}" for one in attacks))
    for name, of in scores.items():
        cells = [f"{name:16}{(of['clean'] > thresholds[name]).mean():13.1%}"]
        for one in attacks:
            truth = np.r_[np.zeros(len(of["clean"])), np.ones(len(of[one]))]
            area = roc_auc_score(truth, np.r_[of["clean"], of[one]])
            cells.append(f"{area:20.3f}{(of[one] > thresholds[name]).mean():9.1%}")
        print("".join(cells))


def drawn(scores: dict[str, dict[str, np.ndarray]]) -> Figure:
    """One panel of ROC curves for each attack."""
    attacks = list(next(iter(scores.values())))[1:]
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, one in zip(figure.subplots(1, len(attacks), sharey=True), attacks, strict=True):
        for (name, of), colour in zip(scores.items(), ("noise", "pgd", "assist", "other"), strict=True):
            truth = np.r_[np.zeros(len(of["clean"])), np.ones(len(of[one]))]
            rates = roc_curve(truth, np.r_[of["clean"], of[one]])
            axes.plot(rates[0], rates[1], color=COLOURS[colour], label=name, linewidth=2)
        axes.axvline(FPR, color="#888888", linestyle=":")
        axes.set(title=one, xlabel="clean images flagged")
    figure.axes[0].set_ylabel("attacked images flagged")
    figure.axes[-1].legend(frameon=False, loc="lower right")
    return figure


if __name__ == "__main__":
    run(main)
