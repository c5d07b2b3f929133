"""What a run's folder says of where its numbers come from."""

from uncannyvalley.analysis.words import WORDS
from uncannyvalley.run.folder import RunFolder


def provenance_of(run: RunFolder) -> dict[str, str]:
    """What made the numbers of a run, in words."""
    plan, manifest = run.plan, run.manifest()
    made = manifest.provenance[-1] if manifest.provenance else {}
    many = WORDS["image" if plan.prompts is None else "prompt"].many
    facts = {
        "key of the run": plan.key,
        "uncannyvalley": plan.version,
        "model": f"{plan.model.spec} (head {plan.model.head!r}, {plan.model.dtype}, SHA-256 {plan.model.fingerprint[:16]}…)",
        "data": f"{plan.data.spec} ({plan.data.examples} {many}, SHA-256 {plan.data.fingerprint[:16]}…)",
        "attack": f"{plan.attack.name} {plan.attack.settings}",
        "network as used": "; ".join(made.get("preparation", [])) or "as given",
        "made with": f"torch {made.get('torch')}, Python {made.get('python')}, {made.get('device')}, batch {made.get('batch_size')}",
        "seconds": f"{sum(one['seconds'] for one in manifest.shards.values()):.1f} without controls",
    }
    return facts | (_of_prompts(run) if plan.prompts is not None else {})


def _of_prompts(run: RunFolder) -> dict[str, str]:
    """What the recording says of its models and texts."""
    facts = {"models": ", ".join(run.trajectory.models), "notes": "; ".join(run.notes)}
    return {name: value for name, value in facts.items() if value}


def class_names_of(run: RunFolder) -> tuple[str, ...]:
    """The names of the classes as the data had them when the run was recorded; empty where it had none."""
    named = (one.get("class_names", ()) for one in reversed(run.manifest().provenance))
    return tuple(str(name) for name in next(filter(None, named), ()))
