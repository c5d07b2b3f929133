"""Measures of inner layers, recordable at every step of any walk: ``NAME@LAYER``.

NAME is a quantity (``relative_sharpness``), its logarithm (``log_relative_sharpness``), or the confidence-free view
(``log_relative_sharpness_per_gini``: log of the quantity over 1 − Σp²); ``estimated_`` in front asks for an estimate.
LAYER is a layer of the network, ``input``, or ``all`` for every layer. At ``input`` there are also
``curvature_along_step`` and ``third_along_step``: D²ℓ[v, v] and D³ℓ[v, v, v], v the unit direction of the last step.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley.derivatives.directional import derivative_along
from uncannyvalley.derivatives.engine import chunk_size, measure_sites
from uncannyvalley.derivatives.passes import called_layers, check_ownership
from uncannyvalley.derivatives.quantities import QUANTITIES, Quantity
from uncannyvalley.derivatives.results import Effort
from uncannyvalley.derivatives.sites import INPUT, Site, find_site
from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.splitting import SplitModel
from uncannyvalley.types import Measure, PerExample, Probe

ESTIMATED, PER_GINI, LOG = "estimated_", "_per_gini", "log_"
ALONG_STEP = {"curvature_along_step": 2, "third_along_step": 3}


def with_layers(
    model: SplitModel, measures: Sequence[str | Measure] | None
) -> Sequence[str | Measure] | None:
    """``measures`` with every ``NAME@LAYER`` replaced by a measure of that layer of ``model``.

    Names that ask for the same quantities share their backward passes. Raises InputError for unknown names and layers.
    """
    if measures is None or isinstance(measures, str):
        return measures
    expanded = [one for given in measures for one in _expanded(model, given)]
    asked = [one for one in expanded if isinstance(one, str) and "@" in one]
    made = _make(model, asked)
    return [made[one] if isinstance(one, str) and one in made else one for one in expanded]


def _expanded(model: SplitModel, measure: str | Measure) -> list[str | Measure]:
    if isinstance(measure, str) and measure.endswith("@all"):
        return [f"{measure.removesuffix('all')}{layer}" for layer in called_layers(model)]
    return [measure]


def _make(model: SplitModel, names: Sequence[str]) -> dict[str, Measure]:
    """The measures of those names."""
    wanted: dict[str, Measure] = {}
    shared: dict[tuple[str, bool], dict[str, Quantity]] = {}
    parsed = {}
    for full in names:
        name, _, layer = full.partition("@")
        if name in ALONG_STEP:
            wanted[full] = _along_step(model, full, name, layer)
            continue
        site, quantity, estimated = find_site(model, layer), _quantity_in(name), name.startswith(ESTIMATED)
        if quantity.relative:
            _ = site.weight
        parsed[full] = (site, quantity, estimated)
        shared.setdefault((layer, estimated), {})[quantity.name] = quantity
    sites = {site.name: site for site, _, _ in parsed.values()}
    if sites:
        check_ownership(model, list(sites.values()))
    readers: dict[tuple[frozenset[str], bool], _Reader] = {}
    for (layer, estimated), quantities in shared.items():
        key = (frozenset(quantities), estimated)
        reader = readers.setdefault(key, _Reader(model, list(quantities.values()), estimated))
        reader.sites.append(sites[layer])
    for full, (site, quantity, estimated) in parsed.items():
        reader = readers[frozenset(shared[site.name, estimated]), estimated]
        wanted[full] = _measure(full, site, quantity, reader)
    return wanted


def _quantity_in(name: str) -> Quantity:
    bare = name.removeprefix(ESTIMATED)
    if bare.endswith(PER_GINI) and not bare.startswith(LOG):
        raise InputError(f"{name!r} is recorded as a logarithm: write {LOG}{bare}")
    bare = bare.removeprefix(LOG).removesuffix(PER_GINI)
    if bare not in QUANTITIES:
        known = [
            *QUANTITIES,
            *(LOG + one for one in QUANTITIES),
            *(LOG + one + PER_GINI for one in QUANTITIES),
        ]
        raise unknown_name("measure of a layer", name, [*known, *ALONG_STEP])
    return QUANTITIES[bare]


class _Reader:
    """Reads the same quantities at several sites of one probe, with shared backward passes."""

    def __init__(self, model: SplitModel, quantities: Sequence[Quantity], estimated: bool) -> None:
        self._model = model
        self._quantities = quantities
        self._effort = Effort("estimate" if estimated else "exact")
        self._chunk: int | None = None
        self.sites: list[Site] = []

    def __call__(self, probe: Probe) -> Float[Tensor, "m n"]:
        """Value and logarithm of each quantity at each site, in the order of ``position``."""
        if self._chunk is None:
            self._chunk = chunk_size(self._model, self.sites, self._quantities)
        found = measure_sites(
            self._model, self.sites, probe.x, probe.y, self._quantities, self._effort, batch_size=self._chunk
        )
        rows = [row for one in found.values() for row in (one.value, one.log_value)]
        self._positions = {key: 2 * place for place, key in enumerate(found)}
        return torch.stack(rows).to(probe.logits.device)

    def row(self, probe: Probe, site: Site, quantity: Quantity, *, logarithm: bool) -> Float[Tensor, "n"]:
        table = probe.once(self)
        return table[self._positions[site.name, quantity.name] + logarithm]


def _measure(full: str, site: Site, quantity: Quantity, reader: _Reader) -> Measure:
    name = full.partition("@")[0]
    is_log, per_gini = LOG in name, name.endswith(PER_GINI)

    def fn(probe: Probe) -> Tensor:
        value = reader.row(probe, site, quantity, logarithm=is_log)
        return value - probe.softmax.log_gini if per_gini else value

    shown = f"log({quantity.formula})" if is_log else quantity.formula
    fn.__doc__ = f"{shown} at {site.name}" + (" − log Gini." if per_gini else ".")
    unit = "log" if is_log else quantity.unit
    return Measure(full, unit, quantity.order, fn, default=False)


def _along_step(model: SplitModel, full: str, name: str, layer: str) -> Measure:
    if layer != INPUT:
        raise InputError(f"{name} is a derivative in the image: write {name}@{INPUT}")
    fn = functools.partial(_derivative_along_step, model, Site.of_input(model.sample_shape), ALONG_STEP[name])
    return Measure(
        full, f"nats/pixel{'²³'[ALONG_STEP[name] - 2]}", ALONG_STEP[name], _documented(fn), default=False
    )


def _documented(fn: Callable[[Probe], Tensor]) -> PerExample:
    def along_step(probe: Probe) -> Tensor:
        """Derivative of the loss along the unit direction of the last step; NaN at the first row."""
        return fn(probe)

    return along_step


def _derivative_along_step(model: SplitModel, site: Site, order: int, probe: Probe) -> Float[Tensor, "n"]:
    if probe.previous is None:
        return torch.full_like(probe.label_gap, torch.nan)
    step = (probe.x - probe.previous).flatten(1)
    length = step.norm(dim=1, keepdim=True)
    along = (step / length).reshape(-1, *site.shape)  # NaN where nothing moved: there is no direction
    return derivative_along(model, site, probe.x.contiguous(), probe.y, along, order)
