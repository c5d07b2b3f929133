"""What curvature will cost on the user's own network: measured on a few images, layer by layer."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.derivatives.class_gradients import bytes_for_each_image
from uncannyvalley.derivatives.curved import MAX_EXACT_SIZE, MAX_EXACT_THIRD, LossAt
from uncannyvalley.derivatives.engine import chunk_size, measure_sites
from uncannyvalley.derivatives.linearity import linear_by_numbers, linear_by_operations
from uncannyvalley.derivatives.passes import saved_bytes, trace
from uncannyvalley.derivatives.quantities import QUANTITIES
from uncannyvalley.derivatives.results import BACKWARDS, Effort
from uncannyvalley.derivatives.sites import Site
from uncannyvalley.splitting import SplitModel

TRIAL_IMAGES = 4

OF_ORDER = {2: ("trace", "relative_sharpness"), 3: ("third_order",)}
"""The quantities whose cost is told for each order."""


@dataclass(frozen=True)
class LayerCost:
    """Predicted cost of one order at one layer.

    way        "class gradients" (exact), "Hessian products" (exact) or "estimate"
    backwards  backward passes over a chunk of images
    seconds    for one image, chunked
    megabytes  of gradients and saved activations, for a chunk
    chunk      images at a time
    """

    layer: str
    weights: int
    order: int
    way: str
    backwards: int
    seconds: float
    megabytes: float
    chunk: int


def predict_costs(
    model: SplitModel,
    sites: Sequence[Site],
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    order: int,
) -> Iterator[LayerCost]:
    """Costs of orders 2 to ``order`` at each site, from trials on a few of the images."""
    x, y = x[:TRIAL_IMAGES].to(model.device, model.dtype).contiguous(), y[:TRIAL_IMAGES].to(model.device)
    for site in sites:
        with torch.enable_grad():
            traced = trace(model, [site], x)
            straight = linear_by_operations(traced) or (
                traced.called_once() and linear_by_numbers(model, site, x)
            )
        for one in range(2, order + 1):
            make = _straight_cost if straight else _curved_cost
            yield make(model, site, x, y, one)


def _straight_cost(model: SplitModel, site: Site, x: Tensor, y: Tensor, order: int) -> LayerCost:
    quantities = [QUANTITIES[name] for name in OF_ORDER[order]]
    with saved_bytes() as saved:
        run = _timed(lambda: measure_sites(model, [site], x, y, quantities, Effort()))
    chunk = chunk_size(model, [site], quantities)
    item = torch.finfo(model.dtype).bits // 8
    gradients = bytes_for_each_image([site], quantities, model.classes, item)
    held = saved() / 2 / len(x) + gradients  # two runs
    return LayerCost(
        site.name, site.size(), order, "class gradients", model.classes - 1, run / len(x),
        chunk * held / 2**20, chunk,
    )  # fmt: skip


def _curved_cost(model: SplitModel, site: Site, x: Tensor, y: Tensor, order: int) -> LayerCost:
    relative = order == 3
    with saved_bytes() as saved, torch.enable_grad():
        loss = LossAt(model, site, x, y, relative=relative, highest=order)
        vector = torch.ones_like(loss.gradient)
        product = _timed(lambda: loss.product(vector) if order == 2 else loss.third_product(vector, vector))
    size = site.size(relative)
    exact = size <= (MAX_EXACT_SIZE if order == 2 else MAX_EXACT_THIRD)
    products = (size if order == 2 else size * (size + 1) // 2) if exact else BACKWARDS
    chunk = chunk_size(model, [site], [QUANTITIES[name] for name in OF_ORDER[order]])
    return LayerCost(
        site.name, site.size(), order, "Hessian products" if exact else "estimate", products,
        products * product / len(x), chunk * saved() / len(x) / 2**20, chunk,
    )  # fmt: skip


def _timed(work: Callable[[], object]) -> float:
    """Seconds of the second of two runs: the first one pays for what is done once."""
    for _ in range(2):
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
    return seconds
