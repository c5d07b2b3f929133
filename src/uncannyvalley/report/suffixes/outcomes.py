"""What became of the targets: matched by the greedy continuation, and, which is another thing, judged a success."""

from typing import Any

from uncannyvalley.analysis.phase_table import phases
from uncannyvalley.llm.completions import read_completions
from uncannyvalley.run.folder import RunFolder
from uncannyvalley.trajectory import Trajectory

COMPLETIONS_FILE = "completions.json"
"""Behaviour id → the completions of its test cases, with ``target_match``, and after judging ``label`` and ``judge``."""


def outcome_facts(run: RunFolder) -> dict[str, Any]:
    """How many prompts matched their target, and how many a judge calls successes; what is not known is left out.

    Raises InputError where the file of completions cannot be read.
    """
    place = run.path / COMPLETIONS_FILE
    completions = read_completions(place) if place.exists() else []
    facts: dict[str, Any] = {}
    matched = [one.target_match for one in completions if one.target_match is not None]
    if matched:
        facts["target_match"] = {"prompts": sum(matched), "of": len(matched)}
    labels = [one.label for one in completions if one.label is not None]
    if labels:
        names = dict.fromkeys(one.judge or "unnamed" for one in completions if one.label is not None)
        facts["attack_success"] = {"judge": ", ".join(names), "prompts": sum(labels), "of": len(labels)}
    return facts


def outcome_lines(run: RunFolder) -> list[str]:
    """The same in words, a line each: a match says nothing of success, and a judge nothing of the target."""
    facts, lines = outcome_facts(run), []
    if "target_match" in facts:
        match = facts["target_match"]
        lines.append(f"target match: {match['prompts']} of {match['of']}")
    if "attack_success" in facts:
        success = facts["attack_success"]
        lines.append(f"attack success (judge {success['judge']}): {success['prompts']} of {success['of']}")
    return lines


def model_lines(tokens: Trajectory) -> list[str]:
    """What the same suffixes do to each of several models, a line for each; none where there is one model."""
    lines = []
    for number, name in enumerate(tokens.models if len(tokens.models) > 1 else ()):
        summary = phases(tokens.prompts(number)).own_summary
        lines.append(
            f"{name}: target is greedy {summary.flipped:.0%}, depth {summary.depth:.2f} nats, of {summary.examples} prompts"
        )
    return lines
