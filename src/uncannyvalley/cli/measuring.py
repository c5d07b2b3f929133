"""``uncanny measure``: the curvature of every layer, image by image, and over depth."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import console, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from uncannyvalley.run.layer_table import LayerTable

SHOWN_ROWS = 200


def measure(
    model: options.Model = "demo",
    model_arg: options.ModelArg = [],  # noqa: B006 (typer reads it)
    weights: options.Weights = None,
    data: options.Data = "digits",
    layer: Annotated[
        str, typer.Option(help="Name of a layer, several with commas, all, or input for the image itself.")
    ] = "all",
    order: Annotated[int, typer.Option(help="2: Hessian; 3: third derivatives too.")] = 2,
    method: Annotated[str, typer.Option(help="exact, or estimate with standard errors.")] = "exact",
    quantities: Annotated[
        str | None, typer.Option(help="Comma-separated (see: uncanny list quantities); by order if left out.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Relative standard error at which an estimate stops.")
    ] = 0.05,
    backwards: Annotated[int, typer.Option(help="Most backward passes of an estimate.")] = 200,
    limit: options.Limit = 64,
    batch_size: options.BatchSize = None,
    seed: Annotated[int, typer.Option(help="Seed of the probes of estimates.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for curvature.parquet and depth.png.", show_default=False)
    ] = None,
    examples: Annotated[
        bool, typer.Option("--examples", help="Print a row for each image and layer.")
    ] = False,
    head: options.HeadName = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    json: options.Json = False,
) -> None:
    """Measure curvature in the weights of any layer: exact by class gradients, or estimated with error bars."""
    from uncannyvalley.derivatives.results import Effort
    from uncannyvalley.run.layer_table import measure_layers
    from uncannyvalley.run.request import Request

    request = Request(
        model=model, model_arguments=options.pairs(model_arg), weights=weights, data=data, limit=limit, batch_size=batch_size, head=head,
        device=device, dtype=dtype, prepare=False,
    )  # fmt: skip
    effort = Effort(method, tolerance, backwards, seed)  # type: ignore[arg-type]  # checked there
    with progress_bars(quiet=json) as progress:
        found = measure_layers(request, layer, order, effort, options.names(quantities), progress)
    files = _write(found, out, model) if out is not None else {}
    if json:
        content: dict[str, Any] = {"files": files, "layers": _summary(found)}
        if examples:
            content["examples"] = found.table.to_pylist()
        print_json(content)
        return
    _print(found, examples)
    for name, path in files.items():
        console.print(f"[bold]{name:>7}[/bold]  {path}", soft_wrap=True)


def _summary(found: "LayerTable") -> list[dict[str, Any]]:
    """Medians over images, layer by layer."""
    import numpy as np

    rows = []
    for place, (layer, way) in enumerate(zip(found.layers, found.ways(), strict=True)):
        row: dict[str, Any] = {"layer": layer, "how": way}
        for name in found.quantities:
            for title, values in (
                (f"log_{name}", found.column(f"log_{name}")),
                (f"log_{name}_per_gini", found.per_gini(name)),
            ):
                median = (
                    float(np.nanmedian(values[place])) if not np.isnan(values[place]).all() else float("nan")
                )
                row[title] = median if np.isfinite(median) else None
            if found.estimated:
                row[f"{name}_stderr"] = float(np.nanmedian(found.column(f"{name}_stderr")[place]))
                value = np.exp(found.column(f"log_{name}")[place])
                row[f"{name}_relative_stderr"] = float(
                    np.nanmedian(found.column(f"{name}_stderr")[place] / value)
                )
        rows.append(row)
    return rows


def _print(found: "LayerTable", examples: bool) -> None:
    from uncannyvalley.run.layer_table import formulas

    if examples:
        names = [name for name in found.table.column_names if name not in ("how", "depth")]
        rows = found.table.select(names).slice(0, SHOWN_ROWS).to_pylist()
        cells = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
        print_table("Images", names, cells)
        if found.table.num_rows > SHOWN_ROWS:
            console.print(
                f"… {found.table.num_rows - SHOWN_ROWS} more rows: write them with --out, or use --json"
            )
        console.print()
    rows = _summary(found)
    columns = [_column(found, name) for name in found.quantities]
    header = ["layer", *(title for titles, _ in columns for title in titles)]
    cells = [[row["layer"], *(cell for _, read in columns for cell in read(row))] for row in rows]
    print_table("Medians over images, nats (…/Gini is the view without confidence)", header, cells)
    console.print()
    for way in dict.fromkeys(found.ways()):
        count = sum(row["how"] == way for row in rows)
        console.print(f"[dim]by {way}: {count} of {len(rows)} layers[/dim]")
    for name, formula in formulas(found.quantities).items():
        console.print(f"[dim]{name}: {formula}[/dim]", soft_wrap=True)


def _column(found: "LayerTable", name: str) -> tuple[list[str], Callable[[dict[str, Any]], list[str]]]:
    """Headings and cells of one quantity: its logarithm, with the error of an estimate, and traces over Gini."""
    from uncannyvalley.derivatives.quantities import QUANTITIES

    symbol = QUANTITIES[name].symbol
    over_gini = QUANTITIES[name].kind == "trace"

    def cells(row: dict[str, Any]) -> list[str]:
        value = row[f"log_{name}"]
        shown = "–" if value is None else f"{value:.3g}"
        if found.estimated:
            shown += f" ±{100 * row[f'{name}_relative_stderr']:.0f}%"
        ratio = row[f"log_{name}_per_gini"]
        return [shown, *(["–" if ratio is None else f"{ratio:.3g}"] if over_gini else [])]

    return [f"log {symbol}", *([f"log {symbol}/Gini"] if over_gini else [])], cells


def _write(found: "LayerTable", out: Path, model: str) -> dict[str, str]:
    from uncannyvalley.report.drawings.depth import DepthCurve, draw_depth
    from uncannyvalley.report.drawings.figures import to_png
    from uncannyvalley.storing.files import write_bytes

    table, figure = out / "curvature.parquet", out / "depth.png"
    found.write(table)
    curves = [DepthCurve(name.replace("_", " "), found.per_gini(name)) for name in found.quantities]
    drawn = draw_depth(f"Curvature over depth, {model}", found.layers, curves, "log(quantity / Gini)")
    write_bytes(figure, to_png(drawn))
    return {"table": str(table), "figure": str(figure)}
