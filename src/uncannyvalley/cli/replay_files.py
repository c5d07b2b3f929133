"""The files of ``uncanny replay --out``: figure, numbers, the replayed walks and their head."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from uncannyvalley.cli.replay_tables import replays_as_json

if TYPE_CHECKING:
    from uncannyvalley.analysis.phase_table import Phases
    from uncannyvalley.replaying.replayable_run import ReplayableRun
    from uncannyvalley.replaying.replayed_walk import ChosenHead

FIGURE_FILE, NUMBERS_FILE = "replay.png", "replay.json"
WALK_FILE, HEAD_FILE = "replay.parquet", "replayed_head.safetensors"


def write_replays(
    found: "ReplayableRun", replays: "Sequence[tuple[ChosenHead, Phases]]", out: Path, *, several: bool
) -> dict[str, str]:
    """Write them and return their paths by name; walks and head only where there is one replay."""
    import json

    from uncannyvalley.report.drawings.figures import to_png
    from uncannyvalley.report.drawings.replay_figure import draw_replay, figure_of_replays
    from uncannyvalley.storing.files import write_bytes

    out.mkdir(parents=True, exist_ok=True)
    files = {"figure": out / FIGURE_FILE, "numbers": out / NUMBERS_FILE}
    write_bytes(files["figure"], to_png(draw_replay(figure_of_replays(found, replays))))
    text = json.dumps(replays_as_json(found, replays), indent=1, allow_nan=False)
    write_bytes(files["numbers"], text.encode())
    if not several:
        chosen, phases = replays[0]
        files |= _write_walks(phases, out)
        files["head"] = out / HEAD_FILE
        write_bytes(files["head"], _head_bytes(chosen))
    return {name: str(path) for name, path in files.items()}


def _write_walks(phases: "Phases", out: Path) -> dict[str, Path]:
    from uncannyvalley.storing.parquet import write_parquet

    walks = {"walk": (phases.trajectory, out / WALK_FILE)}
    for name, control in phases.controls.items():
        walks[name] = (control.trajectory, out / f"control_{name}.parquet")
    for trajectory, path in walks.values():
        write_parquet(path, trajectory.table.schema, [trajectory.table])
    return {name: path for name, (_, path) in walks.items()}


def _head_bytes(chosen: "ChosenHead") -> bytes:
    """W/T and b/T, as a network's own tensors would be saved."""
    from safetensors.torch import save

    from uncannyvalley.replaying.stored_probe import at_temperature

    head = at_temperature(chosen.head, chosen.temperature)
    tensors = {"weight": head.weight.float().contiguous()}
    if head.bias is not None:
        tensors["bias"] = head.bias.float().contiguous()
    return save(tensors)
