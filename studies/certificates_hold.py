"""Do the certificates and the bound on the loss hold? Every shared network and test image against attacks.

    python studies/certificates_hold.py --shared ../shared --peers build/peers

For each network: certified Lipschitz constant of the features, the radii it gives (flip distance / L and Tsuzuku's
margin certificate), the smallest L2 distance at which PGD in twelve balls flips each image (with --peers also
foolbox's DDN; the folder of recording_cost.py), and how many images are flipped inside a certified radius above 0.
Then the flatness bound on the loss against random and PGD perturbations: how many, how many above the bound, and the
largest ratio of a loss change to its bound.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import data, zoo
from uncannyvalley.run.bounding import NEEDED, bounds_along
from uncannyvalley.theory.certificate import tsuzuku_radius
from uncannyvalley.theory.loss_bound import head_diameter

NETWORKS = (
    "mnist_conv_small_nat", "mnist_cnn_a_adv", "cifar10_conv_small_pgd", "cifar10_oval_base", "cifar10_oval_wide",
    "cifar10_cnn_a_adv", "cifar10_cnn_a_adv_alt", "cifar10_cnn_a_mix4", "cifar10_marabou_small",
    "cifar10_marabou_medium", "cifar10_resnet2b_adv", "cifar10_resnet20", "cifar10_resnet32",
)  # fmt: skip
WALKED = 64
"""Images of the loss bound: 64 images, two walks of 80 steps, 10 240 perturbations a network."""


def distances_by_ddn(net: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """L2 distance at which foolbox's DDN (Rony et al. 2019) flips each image; inf where it does not."""
    import foolbox

    attacked = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.DDNAttack(steps=steps)
    parts = []
    for images, labels in zip(x.split(64), y.split(64), strict=True):
        _, found, flipped = attack(attacked, images, labels, epsilons=None)
        distance = (found.double() - images.double()).flatten(1).norm(dim=1)
        parts.append(distance.where(flipped, torch.inf))
    return torch.cat(parts)


def radii(net: nn.Module, x: Tensor, y: Tensor, steps: int, peers: bool) -> Iterator[str]:
    """The line of one network: constants, radii, violations."""
    model = uv.split(net, x)
    logits = model.logits_of(x)
    correct = logits.argmax(dim=1) == y
    x, y, logits = x[correct], y[correct], logits[correct]
    constant = uv.lipschitz_bound(model)
    sampled = uv.sampled_lipschitz(model, x[:16])
    certified = uv.certify(model, x, y, lipschitz=constant).value
    margin = tsuzuku_radius(logits, model.head, constant)
    attacked = uv.attacked_radius(model, x, y, steps=steps).value
    if peers:
        attacked = torch.minimum(attacked, distances_by_ddn(net, x, y, 2 * steps))
    ratio = (certified / attacked).median()
    broken = int(((attacked < certified) & (certified > 0)).sum())
    yield f"{len(x):6} {constant.value:10.3g} {sampled.value:8.3g} {certified.median():11.3g} {margin.median():11.3g}"
    yield f"{attacked.median():9.3g} {ratio:9.2g} {broken:7} of {int((certified > 0).sum())}"
    yield loss_bounds(model, x[:WALKED], y[:WALKED], (constant, sampled))


def loss_bounds(model: uv.SplitModel, x: Tensor, y: Tensor, constants: tuple) -> str:
    """Random directions and PGD, 80 steps each, against the bound with the certified constant."""
    tested = broken = 0
    tightest = 0.0
    for make in (uv.attacks.pgd, uv.attacks.noise):
        walked = uv.record(model, x, y, make("l2", eps=1.0, step_size=0.05), steps=80, measures=NEEDED)
        found = bounds_along(walked, head_diameter(model.head), constants)
        ratio = (found.change / np.where(found.certified > 0, found.certified, np.inf))[:, 1:]
        tested, broken = tested + ratio.size, broken + int((ratio > 1).sum())
        tightest = max(tightest, float(ratio.max()))
    return f"{tested:8} {broken:6} {tightest:9.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), help="folder with models/ and data/"
    )
    parser.add_argument("--images", type=int, help="use only the first IMAGES test images")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--peers", type=Path, help="folder with foolbox")
    given = parser.parse_args()
    if given.peers:
        sys.path.append(str(given.peers.resolve()))
    print(
        f"{'network':24} {'right':>6} {'L':>10} {'sampled':>8} {'radius':>11} {'Tsuzuku':>11} {'attacked':>9} "
        f"{'rad./att.':>9} {'flipped inside':>14} | loss: {'tested':>6} {'above':>6} {'tightest':>9}"
    )
    for name in given.networks:
        started = time.perf_counter()
        images = data.load(f"parquet:{given.shared}/data/{name.split('_')[0]}/test.parquet").first(
            given.images
        )
        cells = radii(
            zoo.load(f"{given.shared}/models/load_reference.py:load", {"name": name}),
            images[:],
            images.labels,
            given.steps,
            given.peers is not None,
        )
        print(f"{name:24} " + " ".join(cells) + f"   ({time.perf_counter() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
