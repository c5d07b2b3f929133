"""Curvature of many layers as one table: a row for each image and layer, with units, as Parquet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from uncannyvalley.checks import check_count
from uncannyvalley.derivatives.engine import measure_sites
from uncannyvalley.derivatives.passes import called_layers, check_ownership
from uncannyvalley.derivatives.quantities import QUANTITIES, Quantity, quantity_named
from uncannyvalley.derivatives.results import Effort, Estimate
from uncannyvalley.derivatives.sites import INPUT, find_site
from uncannyvalley.errors import InputError
from uncannyvalley.run.request import Request, load_images, load_model
from uncannyvalley.softmax import TopClassSoftmax
from uncannyvalley.splitting import SplitModel
from uncannyvalley.storing.files import write_whole

OF_ORDER = {
    2: ("trace", "relative_sharpness", "top_eigenvalue"),
    3: ("trace", "relative_sharpness", "top_eigenvalue", "third_order"),
}
AT_INPUT = {2: ("trace", "top_eigenvalue"), 3: ("trace", "top_eigenvalue", "third_derivative")}


@dataclass(frozen=True)
class LayerTable:
    """Columns: example, label, predicted, log_gini, depth, layer, how, then log_QUANTITY and, of estimates,
    QUANTITY_stderr (linear). Layers in the order of the network; units in the fields' metadata.
    """

    table: pa.Table
    layers: tuple[str, ...]
    quantities: tuple[str, ...]
    estimated: bool

    def column(self, name: str) -> np.ndarray:
        """float64 (layers, examples)."""
        values = self.table.column(name).to_numpy().astype(np.float64)
        return values.reshape(len(self.layers), -1)

    def per_gini(self, quantity: str) -> np.ndarray:
        """log(quantity / (1 − Σp²)): the view without confidence, (layers, examples)."""
        return self.column(f"log_{quantity}") - self.column("log_gini")

    def ways(self) -> list[str]:
        """How each layer was measured."""
        return list(self.table.column("how").to_pylist()[:: self.table.num_rows // len(self.layers)])

    def write(self, path: Path) -> None:
        """As one Parquet file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(
            path,
            lambda scratch: pq.write_table(self.table, scratch, compression="zstd", write_page_checksum=True),
        )


def measure_layers(
    request: Request,
    layer: str,
    order: int,
    effort: Effort,
    quantities: Sequence[str] | None = None,
    progress: Callable[[str, int], Callable[[int], None]] | None = None,
) -> LayerTable:
    """The quantities up to ``order`` at ``layer`` (a name, several with commas, "all" or "input") for every image."""
    if order not in OF_ORDER:
        raise InputError(f"order must be 2 or 3, got {order}")
    images = load_images(request)
    model, _ = load_model(request, images)
    x, y = images[:], images.labels
    names = called_layers(model) if layer == "all" else [name.strip() for name in layer.split(",")]
    sites = [find_site(model, name) for name in names]
    defaults = AT_INPUT if names == [INPUT] else OF_ORDER
    asked = [quantity_named(name) for name in quantities or defaults[order]]
    for site in sites:
        if any(one.relative for one in asked):
            _ = site.weight
    check_ownership(model, sites)
    size = None if request.batch_size is None else check_count("batch_size", request.batch_size, 1)
    exact = effort.method == "exact"
    groups = [sites] if exact else [[site] for site in sites]  # exact ones share their backward passes
    counter = progress("curvature", len(x) * len(groups)) if progress else None
    found: dict[tuple[str, str], Estimate] = {}
    for group in groups:
        found |= measure_sites(model, group, x, y, asked, effort, batch_size=size, progress=counter)
    return _table(model, x, y, names, asked, found, estimated=not exact)


def _table(
    model: SplitModel,
    x: torch.Tensor,
    y: torch.Tensor,
    names: Sequence[str],
    asked: Sequence[Quantity],
    found: dict[tuple[str, str], Estimate],
    *,
    estimated: bool,
) -> LayerTable:
    softmax = TopClassSoftmax.of(model.logits_of(x))
    count, layers = len(x), len(names)

    def each_layer(values: torch.Tensor) -> np.ndarray:
        return np.tile(values.numpy(), layers)

    columns: dict[str, tuple[pa.Array, str]] = {
        "example": (pa.array(np.tile(np.arange(count), layers)), ""),
        "label": (pa.array(each_layer(y.cpu())), ""),
        "predicted": (pa.array(each_layer(softmax.top)), ""),
        "log_gini": (pa.array(each_layer(softmax.log_gini)), "log"),
        "depth": (pa.array(np.repeat(np.arange(layers), count)), ""),
        "layer": (pa.array(np.repeat(np.asarray(names, dtype=object), count).tolist()), ""),
        "how": (pa.array([found[name, asked[0].name].how for name in names for _ in range(count)]), ""),
    }
    for one in asked:
        ones = [found[name, one.name] for name in names]
        columns[f"log_{one.name}"] = pa.array(torch.cat([e.log_value for e in ones]).numpy()), "log"
        if estimated:
            errors = [torch.zeros_like(e.value) if e.stderr is None else e.stderr for e in ones]
            columns[f"{one.name}_stderr"] = pa.array(torch.cat(errors).numpy()), one.unit
    schema = pa.schema(
        [pa.field(name, values.type, metadata={"unit": unit}) for name, (values, unit) in columns.items()]
    )
    table = pa.Table.from_arrays([values for values, _ in columns.values()], schema=schema)
    return LayerTable(table, tuple(names), tuple(one.name for one in asked), estimated)


def formulas(quantities: Sequence[str]) -> dict[str, str]:
    """Name → formula."""
    return {name: QUANTITIES[name].formula for name in quantities}
