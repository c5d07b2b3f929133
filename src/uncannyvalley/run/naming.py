"""What runs are called: the settings in which their plans differ, as people write them."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uncannyvalley.run.plan import Plan
from uncannyvalley.storing.places import Place
from uncannyvalley.typed_arguments import length_text

LENGTHS = ("eps", "step_size")
"""Settings in units of the input's range, which people write in 255ths."""

LISTED = 4
"""Up to so many measures are named one by one."""

DECIDES_NOTHING: dict[str, Any] = {"layout": True, "model": {"weights"}, "recording": {"keep_images"}}
"""Parts of a plan that no number depends on: weights count by the fingerprint."""


def run_names(plans: Sequence[Plan], paths: Sequence[Place]) -> list[str]:
    """A different name for each run: attack, model, ball and images where they differ, then finer settings, then folders."""
    coarse = [
        [plan.attack.name for plan in plans],
        _apart([plan.model.fingerprint for plan in plans], _model_labels(plans)),
        [_ball(plan) for plan in plans],
        _apart([plan.data.fingerprint for plan in plans], _data_labels(plans)),
    ]
    differing = [labels for labels in coarse if len(set(labels)) > 1]
    names = [", ".join(parts) for parts in zip(*differing, strict=True)] or [""] * len(plans)
    for labels in (*_finer(plans), [path.name for path in paths], [str(path) for path in paths]):
        longer = [", ".join(filter(None, parts)) for parts in zip(names, labels, strict=True)]
        if len(set(longer)) > len(set(names)):
            names = longer
    return names


def _apart(fingerprints: list[str], candidates: Sequence[list[str]]) -> list[str]:
    """The first labels that differ exactly where the fingerprints do; all alike where none do."""
    different = len(set(fingerprints))
    if different == 1:
        return [""] * len(fingerprints)
    for labels in candidates:
        if len(set(labels)) == different == len(set(zip(fingerprints, labels, strict=True))):
            return labels
    return [one[:8] for one in fingerprints]


def _model_labels(plans: Sequence[Plan]) -> list[list[str]]:
    """By the arguments that differ, by callable, by weights, by file, and by file and arguments."""
    models = [plan.model for plan in plans]
    keys = dict.fromkeys(key for model in models for key in model.arguments)
    differing = [key for key in keys if len({model.arguments.get(key) for model in models}) > 1]
    arguments = [" ".join(model.arguments.get(key, "default") for key in differing) for model in models]
    places = [model.spec.rpartition(":") for model in models]
    files = ["/".join(Path(file).parts[-2:]) for file, _, _ in places]
    weights = [Path(model.weights).stem or "no weights" for model in models]
    both = [f"{file} {text}".strip() for file, text in zip(files, arguments, strict=True)]
    return [arguments, [callable_ for _, _, callable_ in places], weights, files, both]


def _data_labels(plans: Sequence[Plan]) -> list[list[str]]:
    """By file, by folder and file, and by these with the number of images."""
    short = [Path(plan.data.spec.rpartition(":")[2]).stem for plan in plans]
    tails = [tail_of(plan.data.spec) for plan in plans]
    counts = [f"{plan.data.examples} images" for plan in plans]
    return [short, tails, counts, [f"{tail} {count}" for tail, count in zip(tails, counts, strict=True)]]


def tail_of(spec: str) -> str:
    """The last two parts of where images came from, without their kind."""
    return "/".join(Path(spec.partition(":")[2] or spec).parts[-2:])


def _ball(plan: Plan) -> str:
    """Norm and radius as people write them; attacks without a radius have none."""
    radius = plan.attack.settings.get("eps")
    ball = [str(plan.attack.settings.get("norm", "")), "" if radius is None else length_text(radius)]
    return " ".join(filter(None, ball)) or "no ball"


def _finer(plans: Sequence[Plan]) -> list[list[str]]:
    """Labels that are used only where the coarse ones leave two runs alike."""
    return [
        [f"{plan.recording.steps} steps" for plan in plans],
        [f"step {length_text(plan.attack.settings.get('step_size') or 0.0)}" for plan in plans],
        ["random start" if plan.attack.settings.get("random_start") else "clean start" for plan in plans],
        [
            f"target {plan.attack.target}" if plan.attack.settings.get("targeted") else "no target"
            for plan in plans
        ],
        [f"seed {plan.recording.seed}" for plan in plans],
        [plan.model.dtype for plan in plans],
        ["prepared" if plan.model.prepared else "as given" for plan in plans],
    ]


def title_of(plans: Sequence[Plan]) -> str:
    """What all runs share: attack and images."""
    attacks, data = {plan.attack.name for plan in plans}, {tail_of(plan.data.spec) for plan in plans}
    attack, images = "/".join(sorted(attacks)), " and ".join(sorted(data))
    return f"{attack if len(attack) < 40 else 'attacks'} on {images if len(images) < 40 else 'several data'}: {len(plans)} runs"


def decided(plans: Mapping[str, Plan]) -> dict[str, dict[str, str]]:
    """What decided the numbers where the runs differ: part of the plan → run → its value as text."""
    settings = {
        name: _flat(plan.model_dump(mode="json", exclude=DECIDES_NOTHING)) for name, plan in plans.items()
    }
    keys = dict.fromkeys(key for flat in settings.values() for key in flat)
    values = {key: {name: flat.get(key, "–") for name, flat in settings.items()} for key in keys}
    differing = {key: texts for key, texts in values.items() if len(set(texts.values())) > 1}
    # where a network or images came from matters only if they are others
    same = [f"{part}.spec" for part in ("model", "data") if f"{part}.fingerprint" not in differing]
    return {key: texts for key, texts in differing.items() if key not in same}


def _flat(content: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Nested settings as dotted names; fingerprints shortened, many measures as their number and a digest."""
    found: dict[str, str] = {}
    for name, value in content.items():
        key = f"{path}{name}"
        if key == "recording.measures":
            listed = [f"{measure} {version}" for measure, version in value.items()]
            digest = hashlib.sha256("".join(sorted(listed)).encode()).hexdigest()[:6]
            found[key] = ", ".join(listed) if len(listed) <= LISTED else f"{len(listed)} ({digest})"
        elif isinstance(value, dict):
            found |= _flat(value, f"{key}.")
        elif name in LENGTHS and value is not None:
            found[key] = length_text(value)
        else:
            found[key] = str(value)[:12] if name == "fingerprint" else str(value)
    return found
