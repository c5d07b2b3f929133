"""Slow twins of what a detector reads and how it judges: definitions in numpy and scipy, float64, one row at a time.

Nothing here imports the package, for the same reason as in oracles.py.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage, stats
from torch import Tensor, nn

from oracles import layer_derivative, weight_blocks

# --- changes of an image, (n, c, h, w) ---------------------------------------------------------------


def mirror(x: np.ndarray) -> np.ndarray:
    return x[..., ::-1]


def shifted(x: np.ndarray, down: int, right: int) -> np.ndarray:
    """Pixel (i, j) is that of (i − down, j − right), the border repeated."""
    height, width = x.shape[2:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return x[:, :, rows][..., columns]


def half_shift(x: np.ndarray) -> np.ndarray:
    """The mean of a pixel and its neighbours to the right, below, and below to the right."""
    return sum(shifted(x, -down, -right) for down in (0, 1) for right in (0, 1)) / 4


def blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    """scipy's, which truncates at three sigmas and at what the image can mirror."""
    reach = min(int(3 * sigma + 1), x.shape[2] - 1, x.shape[3] - 1)
    return ndimage.gaussian_filter(x, sigma=sigma, radius=reach, mode="mirror", axes=(2, 3))


def median(x: np.ndarray) -> np.ndarray:
    return ndimage.median_filter(x, size=(1, 1, 3, 3), mode="mirror")


def quantised(x: np.ndarray) -> np.ndarray:
    """The nearest of 0, 1/7, …, 1."""
    levels = np.arange(8) / 7
    return levels[np.abs(x[..., None] - levels).argmin(axis=-1)]


TWINS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirror": mirror,
    "left": lambda x: shifted(x, 0, -1),
    "right": lambda x: shifted(x, 0, 1),
    "up": lambda x: shifted(x, -1, 0),
    "down": lambda x: shifted(x, 1, 0),
    "diagonal": lambda x: shifted(x, -1, -1),
    "half_shift": half_shift,
    "blur": lambda x: blurred(x, 0.4),
    "strong_blur": lambda x: blurred(x, 0.5),
    "median": median,
    "quantised": quantised,
}
"""Name of a change → its twin; noise has none."""


# --- columns, by definition --------------------------------------------------------------------------


class Row:
    """One image as a float64 network ends in it: features, logits, probabilities, head."""

    def __init__(self, net: nn.Sequential, image: Tensor) -> None:
        with torch.no_grad():
            features = net[:-1](image[None])
            logits = net[-1](features)
        self.features, self.z = features[0].numpy(), logits[0].numpy()
        self.weight = net[-1].weight.detach().numpy()
        self.p = np.exp(self.z) / np.exp(self.z).sum()

    @property
    def top(self) -> int:
        return int(self.z.argmax())

    def log_odds(self, which: int) -> float:
        return math.log(self.p[which] / (1 - self.p[which]))

    def energy(self) -> float:
        return math.log(np.exp(self.z).sum())

    def log_norm(self) -> float:
        return math.log(np.linalg.norm(self.features))

    def class_sharpness(self) -> np.ndarray:
        """|φ|² p_s |w_s − w̄|² of each class."""
        apart = self.weight - self.p @ self.weight
        return np.linalg.norm(self.features) ** 2 * self.p * (apart**2).sum(axis=1)

    def sharpness(self) -> float:
        """κ = |φ|² ½ Σ_{s,s'} p_s p_s' |w_s − w_s'|²."""
        pairs = ((self.weight[:, None] - self.weight[None]) ** 2).sum(axis=2)
        return np.linalg.norm(self.features) ** 2 * (self.p @ pairs @ self.p) / 2

    def gini(self) -> float:
        return 1 - (self.p**2).sum()


def travel(here: Row, there: Row) -> float:
    return math.log(np.linalg.norm(there.features - here.features))


def turn(here: Row, there: Row) -> float:
    lengths = np.linalg.norm(here.features) * np.linalg.norm(there.features)
    return math.log(1 - here.features @ there.features / lengths)


def rise(here: Row, there: Row) -> float:
    return math.log(there.sharpness() / here.sharpness())


def drift(here: Row, there: list[Row]) -> float:
    """log |mean of φ over copies − φ|."""
    return math.log(np.linalg.norm(np.mean([one.features for one in there], axis=0) - here.features))


def grain(image: np.ndarray, along: str) -> float:
    """Mean log(1 + |difference| in grey levels of 255, less 0.01) of a (c, h, w) image's colour, pixel by pixel."""
    channels, height, width = image.shape
    mean = image.mean(axis=0) if channels > 1 else np.zeros((height, width))
    found = []
    for v in image - mean:
        for i in range(height - (along != "across") - (along == "down")):
            for j in range(width - (along != "down") - (along == "across")):
                if along == "across":
                    step = v[i, j] - 2 * v[i, j + 1] + v[i, j + 2]
                elif along == "down":
                    step = v[i, j] - 2 * v[i + 1, j] + v[i + 2, j]
                else:
                    step = v[i, j] - v[i, j + 1] - v[i + 1, j] + v[i + 1, j + 1]
                found.append(math.log(1 + max(0.0, abs(step) * 255 - 0.01)))
    return sum(found) / len(found)


def inner_sharpness(net: nn.Sequential, layer: str, image: Tensor) -> float:
    """log κ_layer − log Gini, from the materialised second derivative in the layer's weights."""
    row = Row(net, image)
    second = layer_derivative(net, layer, image, torch.tensor(row.top), 2)
    blocks = weight_blocks(net, layer)
    groups, out, inner = blocks.shape
    second = second.reshape(groups, out, inner, groups, out, inner)
    sharpness = torch.einsum("gsa,gta,gsigti->", blocks, blocks, second).item()
    return math.log(sharpness) - math.log(row.gini())


def walked(net: nn.Sequential, image: Tensor, steps: int, upwards: float, size: float) -> Tensor:
    """So many sign steps along the gradient of the log of the loss of the class predicted at the start."""
    label = net(image[None]).argmax(dim=1)
    for _ in range(steps):
        point = image.clone().requires_grad_()
        torch.nn.functional.cross_entropy(net(point[None]), label).log().backward()
        image = (image + upwards * size * point.grad.sign()).clamp(0, 1)
    return image


# --- columns with a memory ---------------------------------------------------------------------------


def local_dimension(point: np.ndarray, others: np.ndarray, neighbours: int) -> float:
    """log of −1/mean(log r_i/r_k) over the k − 1 nearest, r_k the furthest of them."""
    distances = np.sort(np.linalg.norm(others - point, axis=1))[:neighbours]
    return math.log(-1 / np.mean(np.log(distances[:-1] / distances[-1])))


# --- judgements --------------------------------------------------------------------------------------


def p_value(calibration: list[float], score: float, clean: int | None = None) -> float:
    """(1 + #{calibration ≥ score})/(clean + 1)."""
    above = sum(one >= score for one in calibration)
    return min(1.0, (1 + above) / ((len(calibration) if clean is None else clean) + 1))


def most_flags(images: int, calibration: int, fpr: float, coverage: float) -> int:
    """The fewest flags that clean images exceed with probability at most 1 − coverage.

    Of n + m exchangeable rows the j flagged of the m lie above the l-th largest of the n: C(j+l−1, j)·C(n−l+m−j, m−j)/C(n+m, m).
    """
    allowed = math.floor(fpr * (calibration + 1) + 1e-9)
    total, flags = 0.0, -1
    while total < coverage:
        flags += 1
        ways = math.comb(flags + allowed - 1, flags) * math.comb(
            calibration - allowed + images - flags, images - flags
        )
        total += ways / math.comb(calibration + images, images)
    return flags


def limited(nats: float, limit: float) -> float:
    """Beyond the limit a hundredth counts."""
    return nats if nats <= limit else limit + (nats - limit) / 100


def tail_nats(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """−log of the share of values above each point, beyond the 90 % quantile by an exponential law."""
    edge = np.quantile(values, 0.9)
    _, mean = stats.expon.fit(values[values > edge] - edge, floc=0)
    share = (values[None] > at[:, None]).mean(axis=1)
    with np.errstate(divide="ignore"):
        return np.where(at > edge, -math.log(0.1) + (at - edge) / mean, -np.log(share))
