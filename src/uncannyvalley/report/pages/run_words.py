"""What a run is called on figures and pages, and what came of it in a sentence or two."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uncannyvalley.analysis.summary import PhaseSummary, WalkSummary
from uncannyvalley.run.folder import RunFolder
from uncannyvalley.run.naming import tail_of
from uncannyvalley.typed_arguments import length_text

NAMED_SETTINGS = ("search_width", "topk", "n_replace", "step_size")
"""Settings of an attack on prompts that titles name, where it has them."""

NORMS = {"linf": "Linf", "l2": "L2"}


def figure_title(run: RunFolder) -> str:
    """Attack, data, and how the attack may move."""
    return f"{run_title(run)}: {how(run)}"


def run_title(run: RunFolder) -> str:
    """The attack and where the images, by the last two parts of their place, or the prompts came from."""
    spec = run.plan.data.spec
    if run.plan.prompts is not None:
        return f"{run.plan.attack.name} on {Path(spec).name}"
    return f"{run.plan.attack.name} on {tail_of(spec)}"


def how(run: RunFolder) -> str:
    """The ball of an attack on images, and how it moves in it; how hard an attack on prompts searched."""
    return _ball(run) if run.plan.prompts is None else _search(run)


def _ball(run: RunFolder) -> str:
    settings = run.plan.attack.settings
    norm = NORMS[settings["norm"]]
    ball = f"{norm} ball of {length_text(settings['eps'])}" if "eps" in settings else f"nearest in {norm}"
    if "library" in settings:
        return f"{ball}, by {settings['library']}"
    return f"{ball}, steps of {length_text(settings['step_size'])}"


def _search(run: RunFolder) -> str:
    settings = run.plan.attack.settings
    named = [f"{name.replace('_', ' ')} {settings[name]}" for name in NAMED_SETTINGS if name in settings]
    is_shared = run.plan.prompts is not None and run.plan.prompts.universal
    shared = ["one suffix for all prompts"] if is_shared else []
    return ", ".join([*named, f"{run.plan.recording.steps} steps", *shared])


def attack_words(recipe: Mapping[str, Any]) -> str:
    """The attack under which networks are looked at, in words, of a recipe's settings; "" for none."""
    if recipe.get("eps") is None:
        return ""
    start = ", random start" if recipe["random_start"] else ""
    return f"PGD, {recipe['norm']} {length_text(recipe['eps'])}, {recipe['attack_steps']} steps{start}"


def run_lead(run: RunFolder, summary: PhaseSummary) -> str:
    """How many examples were walked, how many flipped and entered the valley, and how deep it is."""
    walk = summary.walks[0]
    if walk.examples == 0:
        return _nothing_walked(run, walk)
    return _lead_of_images(run, walk) if run.plan.prompts is None else _lead_of_prompts(run, walk)


def _nothing_walked(run: RunFolder, walk: WalkSummary) -> str:
    if run.plan.prompts is None:
        return f"None of the {walk.misclassified} images was classified correctly before {walk.name}: there is no walk to summarise."
    return f"All {walk.misclassified} prompts had a greedy target before {walk.name}: there is no walk to summarise."


def _lead_of_images(run: RunFolder, walk: WalkSummary) -> str:
    trajectory = run.trajectory
    length = (
        f"to {trajectory.rows} queries an image"
        if trajectory.is_observed
        else f"{run.plan.recording.steps} steps"
    )
    return (
        f"{walk.examples} images classified correctly, walked by {walk.name} ({_ball(run)}, {length}). "
        f"{walk.flipped.value:.0%} flipped; {walk.valley.value:.0%} then went below their clean sharpness, into the uncanny "
        f"valley; median depth {walk.depth.value:.1f} nats of log κ."
    )


def _lead_of_prompts(run: RunFolder, walk: WalkSummary) -> str:
    greedy = f" ({walk.misclassified} more had a greedy target already)" if walk.misclassified else ""
    return (
        f"{walk.examples} prompts{greedy}, walked by {walk.name} ({_search(run)}). The target became the greedy continuation of "
        f"{walk.flipped.value:.0%}; {walk.valley.value:.0%} then went below the sharpness of their start; median depth "
        f"{walk.depth.value:.1f} nats of log κ."
    )
