"""Example 13. How are many runs planned, recorded and read as one table?

A plan file is a grid: here two attacks at three radii from two seeds on the digits network, twelve runs. It is written,
planned (how many shards, how long, how much disk), run, and run again, which finds nothing left to do. Then one tidy row a
run becomes a DataFrame, and the question is answered by a pivot table: how do height and depth grow with the radius? One
more question is asked of all rows of all shards at once, through Arrow. About 40 s on one core.

    python examples/13_a_study_of_runs.py
"""

import pyarrow.compute as pc
from materials import COLOURS, parser_of, quick, run, save, uncanny
from matplotlib.figure import Figure

import uncannyvalley as uv

PLAN = f"""\
seeds = {[0, 1][: quick(2, 1)]}
shard_size = 32          # images of a shard, the unit of resuming
keep_images = 0
controls = false

[[models]]
model = "demo"

[[data]]
data = "digits"
limit = {quick(96, 32)}

[[attacks]]
attack = ["pgd", "momentum"]
eps = {[0.1, 0.4, 0.2][: quick(3, 2)]}    # lists span the grid
step_size = 0.02
steps = {quick(40, 20)}
random_start = true

[[measures]]
name = "head"
measures = ["loss", "margin", "confidence", "feature_norm", "log_gini", "log_geometry", "log_relative_sharpness"]
"""


def main() -> None:
    given = parser_of(__doc__).parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    plan, folder = given.out / "13_plan.toml", given.out / "study"
    plan.write_text(PLAN, encoding="utf-8")
    print(uncanny("plan", str(plan)))
    print(uncanny("run", str(plan), "--out", str(folder), "--overwrite"))
    print(uncanny("run", str(plan), "--out", str(folder)))  # the same command resumes; here nothing is left

    study = uv.open_study(folder)
    results = uv.results(study).to_pandas()
    results["attack"] = results["attack"].str.partition("-")[0]  # labels hold the settings that vary, too
    print(f"\n{len(results)} runs; medians over images, means over seeds")
    grid = results.pivot_table(index="eps", columns="attack", values=["flipped", "ridge_height", "depth"])
    print(grid.round(2).to_string())

    rows = uv.dataset_of(study).to_table(
        columns=["log_relative_sharpness", "confidence"],
        filter=pc.field("adversarial") & (pc.field("confidence") > 0.99),
    )
    sharp = pc.mean(rows["log_relative_sharpness"]).as_py()
    print(
        f"\nSure of a wrong class, at more than 99 %: {rows.num_rows} rows of all shards, mean log κ {sharp:.2f}"
    )
    save(drawn(results), given.out, "13_a_study_of_runs.png")


def drawn(results: object) -> Figure:
    """Height and depth with their intervals over the radius; each seed is a point."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, number in zip(figure.subplots(1, 2), ("ridge_height", "depth"), strict=True):
        for (attack, of), colour in zip(results.groupby("attack"), ("assist", "pgd"), strict=True):
            reach = [of[number] - of[f"{number}_low"], of[f"{number}_high"] - of[number]]
            shift = 0.004 if attack == "pgd" else -0.004
            axes.errorbar(
                of["eps"] + shift, of[number], yerr=reach, fmt="o", color=COLOURS[colour], label=attack
            )
        axes.axhline(0, color="#888888", linewidth=0.8)
        axes.set(xlabel="eps (Linf)", ylabel=f"{number.replace('_', ' ')}, nats (median, 95 % interval)")
    figure.axes[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    run(main)
