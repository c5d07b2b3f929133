"""``curvature``: second and third derivatives of the loss at any layer, exact or estimated, chunk by chunk."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uncannyvalley.checks import check_count
from uncannyvalley.derivatives import estimates
from uncannyvalley.derivatives.class_gradients import bytes_for_each_image, exact_quantities
from uncannyvalley.derivatives.curved import LossAt, exact_quantity
from uncannyvalley.derivatives.linearity import linear_by_numbers, linear_by_operations
from uncannyvalley.derivatives.passes import check_ownership, saved_bytes, trace
from uncannyvalley.derivatives.quantities import Quantity, quantity_named
from uncannyvalley.derivatives.results import (
    BACKWARDS,
    TOLERANCE,
    Effort,
    Estimate,
    Method,
    joined,
    scaled_back,
)  # fmt: skip
from uncannyvalley.derivatives.sites import Site, find_site
from uncannyvalley.splitting import SplitModel, split_for

CHUNK_BYTES = 2**29
"""Memory that one chunk of images may take: activations kept for backward passes, and gradients."""

CURVED_GRAPH = 4
"""How many times more is kept where gradients are differentiated again (measured on GELU networks: 3 to 4)."""

MAX_CHUNK = {"cpu": 64}
"""Most images at a time, 256 where nothing is said: on a CPU more only leave the caches (measured)."""


def curvature(
    net: nn.Module | SplitModel,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    layer: str,
    quantity: str = "relative_sharpness",
    method: Method = "exact",
    *,
    tolerance: float = TOLERANCE,
    backwards: int = BACKWARDS,
    seed: int = 0,
    batch_size: int | None = None,
) -> Estimate:
    """A quantity of the loss surface of each image, in the weights of one layer of ``net``.

    layer       name of an nn.Linear or convolution of ``net.named_modules()``, or "input" for the image itself
    quantity    trace, relative_sharpness, top_eigenvalue, relative_top_eigenvalue, third_derivative, third_order
    method      "exact", or "estimate" with a standard error
    tolerance   relative standard error at which an estimate stops
    backwards   most backward passes of an estimate for a batch, at least 10
    batch_size  images at a time; chosen by memory where left out

    The Hessian is that of ℓ = −log p_y in nats in this layer's weights alone, the others held. Where the network is
    piecewise linear between the layer and its logits (found by its operations, else by a second derivative), exact
    costs classes − 1 backwards for a whole batch; elsewhere one for each weight, for layers of up to 4096 weights.

    Returns an Estimate on the CPU. Raises InputError for unknown names, layers that are not called once an image,
    and exact values that would cost too much.

    Example
    -------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    >>> curvature(net, torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), "1", "trace").value.shape
    torch.Size([2])
    """
    effort = Effort(method, tolerance, backwards, seed)
    model, x, y = split_for(net, x, y, prepare=False)
    site, asked = find_site(model, layer), quantity_named(quantity)
    if asked.relative:
        _ = site.weight  # the input has none: say so before any work
    check_ownership(model, [site])
    size = None if batch_size is None else check_count("batch_size", batch_size, 1)
    found = measure_sites(model, [site], x, y, [asked], effort, batch_size=size)
    return found[site.name, asked.name]


def measure_sites(
    model: SplitModel,
    sites: Sequence[Site],
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    quantities: Sequence[Quantity],
    effort: Effort,
    *,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[tuple[str, str], Estimate]:
    """Every quantity at every site, by (site, quantity), in chunks of bounded memory.

    Exact quantities of several sites of a piecewise linear network share their backward passes.
    """
    size = batch_size or chunk_size(model, sites, quantities)
    parts: dict[tuple[str, str], list[Estimate]] = {}
    for first in range(0, len(x), size):
        rows = slice(first, first + size)
        chunk = _measure_chunk(
            model,
            sites,
            x[rows].to(model.device, model.dtype).contiguous(),
            y[rows].to(model.device),
            quantities,
            effort,
        )
        for key, one in chunk.items():
            parts.setdefault(key, []).append(one)
        if progress is not None:
            progress(len(x[rows]))
    return {key: joined(ones) for key, ones in parts.items()}


def chunk_size(model: SplitModel, sites: Sequence[Site], quantities: Sequence[Quantity]) -> int:
    """Images at a time: as many as stay within CHUNK_BYTES, by a forward of one grey image."""
    item = torch.finfo(model.dtype).bits // 8
    grey = torch.full((1, *model.sample_shape), 0.5, dtype=model.dtype, device=model.device)
    with saved_bytes() as saved:
        traced = trace(model, sites, grey)
    highest = max(one.order for one in quantities)
    graph = saved() * (1 if linear_by_operations(traced) else CURVED_GRAPH ** (highest - 1))
    each = graph + bytes_for_each_image(sites, quantities, model.classes, item)
    return max(1, min(MAX_CHUNK.get(model.device.type, 256), CHUNK_BYTES // each))


@torch.enable_grad()  # measures are read without gradients
def _measure_chunk(
    model: SplitModel,
    sites: Sequence[Site],
    x: Tensor,
    y: Tensor,
    quantities: Sequence[Quantity],
    effort: Effort,
) -> dict[tuple[str, str], Estimate]:
    traced = trace(model, sites, x)
    straight = list(sites)
    if not linear_by_operations(traced):
        straight = [
            site
            for site in sites
            if len(traced.outputs[site.name]) == 1 and linear_by_numbers(model, site, x)
        ]
    found: dict[tuple[str, str], Estimate] = {}
    if straight and effort.method == "exact":
        logs, backwards = exact_quantities(traced, straight, quantities)
        for (layer, name), log_value in logs.items():
            one = quantity_named(name)
            found[layer, name] = Estimate(
                layer, one, log_value.exp(), log_value, None, "class gradients", backwards
            )
    for site in sites:
        for one in quantities:
            if (site.name, one.name) not in found:
                is_straight = site in straight
                if is_straight and one.kind == "trace":
                    found[site.name, one.name] = _by_class_probes(model, site, x, one, effort)
                else:
                    label = traced.logits.detach().argmax(dim=1) if is_straight else y
                    found[site.name, one.name] = _by_products(model, site, x, label, one, effort)
    return found


def _by_class_probes(model: SplitModel, site: Site, x: Tensor, one: Quantity, effort: Effort) -> Estimate:
    found, log_scale, dropped, backwards = estimates.trace_by_classes(
        trace(model, [site], x), site, relative=one.relative, tolerance=effort.tolerance,
        backwards=effort.backwards, seed=effort.seed,
    )  # fmt: skip
    return scaled_back(site, one, *found, log_scale, "class probes", backwards, dropped)


def _by_products(
    model: SplitModel, site: Site, x: Tensor, y: Tensor, one: Quantity, effort: Effort
) -> Estimate:
    """Where the network curves, or where the Hessian's eigenvectors and third derivatives are probed."""
    loss = LossAt(model, site, x, y, relative=one.relative, highest=one.order)
    if effort.method == "exact":
        value = exact_quantity(loss, one, site)
        return scaled_back(site, one, value, None, loss.log_scale, "Hessian products", loss.backwards)
    if one.kind == "trace":
        found = estimates.trace_by_products(loss, effort.tolerance, effort.backwards, effort.seed)
        return scaled_back(site, one, *found, loss.log_scale, "Hutch++", loss.backwards)
    if one.kind == "top_eigenvalue":
        found = estimates.top_eigenvalue_by_products(loss, effort.tolerance, effort.backwards)
        return scaled_back(site, one, *found, loss.log_scale, "Lanczos", loss.backwards)
    found = estimates.third_norm_by_probes(loss, effort.tolerance, effort.backwards, effort.seed)
    return scaled_back(site, one, *found, loss.log_scale, "probes", loss.backwards)
