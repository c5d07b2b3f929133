"""``uncanny show`` on the folder of a training, or of several: how far they came, epoch by epoch."""

from pathlib import Path
from typing import Any

from uncannyvalley.cli.printing import console, print_json, print_table, shared_and_varying
from uncannyvalley.cli.training.tables import MOST_ROWS, percent


def show_trainings(folder: str, found: list[Path], json: bool) -> None:
    """One training with its epochs, or a row for each of several."""
    states = [_state(one) for one in found]
    if found == [Path(folder)]:
        _show_one(states[0], json)
    else:
        _show_all(folder, found, states, json)


def _state(folder: Path) -> dict[str, Any]:
    """What the plan and the log of a training say."""
    from uncannyvalley.report.pages.run_words import attack_words
    from uncannyvalley.train.history import LOG_FILE, read_log, selected_row
    from uncannyvalley.train.plan import PLAN_FILE, read_plan
    from uncannyvalley.zoo.fitted import NETWORK_FILE

    plan = read_plan(folder / PLAN_FILE)
    history = read_log(folder / LOG_FILE) if (folder / LOG_FILE).exists() else []
    has_network = (folder / NETWORK_FILE).exists()
    origin = plan.get("about", {}).get("origin", {})
    return {
        "folder": str(folder), "key": plan["key"], "complete": has_network and len(history) == plan["recipe"]["epochs"],
        "epochs": f"{len(history)} of {plan['recipe']['epochs']}",
        "model": origin.get("spec") or "made in Python", "head": origin.get("head", "linear"),
        "objective": f"{plan['objective']['name']} {plan['objective'].get('settings', {})}",
        "examples": plan["data"].get("examples"), "attack": attack_words(plan["recipe"]), "seed": plan["recipe"]["seed"],
        "selected": dict(selected_row(history)) if history else None, "history": history,
    }  # fmt: skip


def _show_one(state: dict[str, Any], json: bool) -> None:
    from uncannyvalley.report.trainings.training import epochs_table

    if json:
        print_json(state)
        return
    about = [[name, str(value)] for name, value in state.items() if name not in ("selected", "history")]
    print_table(f"Training {state['folder']}", ["", ""], about, left=2)
    if state["history"]:
        table = epochs_table(state["history"])
        console.print()
        print_table(table.title, table.header, table.rows)
    if not state["complete"]:
        console.print("\nNot finished; the same uncanny train goes on with it.")


def _show_all(folder: str, found: list[Path], states: list[dict[str, Any]], json: bool) -> None:
    complete = sum(one["complete"] for one in states)
    if json:
        print_json({"folder": folder, "complete": complete, "trainings": states})
        return
    labels = [dict(part.split("=", 1) for part in one.relative_to(folder).parts) for one in found]
    shared, varying = shared_and_varying(labels) if labels else ("", [])
    attacks = list(dict.fromkeys(one["attack"] for one in states if one["attack"]))
    rows = [
        [
            *(label[axis] for axis in varying),
            "complete" if one["complete"] else "begun",
            one["epochs"],
            *_accuracies(one),
            *([one["attack"]] if len(attacks) > 1 else []),
        ]
        for label, one in zip(labels, states, strict=True)
    ]
    header = [*varying, "state", "epochs", "clean", "robust", *(["robust to"] if len(attacks) > 1 else [])]
    title = "; ".join(filter(None, [f"Trainings in {folder}", shared]))
    print_table(title, header, rows[:MOST_ROWS], left=len(varying) + 1)
    if len(rows) > MOST_ROWS:
        console.print(f"… and {len(rows) - MOST_ROWS} more (--json lists all)")
    console.print(
        f"\n{len(states)} trainings begun, {complete} complete; accuracies are those at validation"
        + (f", robust to {attacks[0]}." if len(attacks) == 1 else ".")
    )


def _accuracies(state: dict[str, Any]) -> list[str]:
    row = state["selected"] or {}
    return [percent(row.get("clean_accuracy")), percent(row.get("robust_accuracy"))]
