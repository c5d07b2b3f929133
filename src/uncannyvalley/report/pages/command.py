"""The command that records a run again, from its plan alone."""

import shlex
from typing import Any

from uncannyvalley.run.folder import RunFolder
from uncannyvalley.run.plan import Plan, PromptPlan

OPTIONS = ("norm", "eps", "step_size", "steps", "restarts")
"""Settings of an attack that are options of the command; others are given by --attack-arg."""

IMPLIED = ("random_start", "targeted", "library", "version", "batch_size")
"""Settings that other options give, or that are facts and no choice."""


def command_of(run: RunFolder) -> str:
    """``uncanny record …`` with everything that decided the numbers of ``run``."""
    plan = run.plan
    if plan.prompts is not None:
        return _of_prompts(run.path.name, plan, plan.prompts)
    recording, settings = plan.recording, plan.attack.settings
    parts: list[Any] = [
        "uncanny record", "--model", plan.model.spec,
        *(f"--model-arg {name}={value}" for name, value in plan.model.arguments.items()),
        *(["--weights", plan.model.weights] if plan.model.weights else []),
        "--data", plan.data.spec, "--limit", plan.data.examples, "--attack", plan.attack.name,
        *_settings(plan),
        *(["--random-start"] if settings.get("random_start") else []),
        *(["--target", plan.attack.target] if settings.get("targeted") else []),
        "--seed", recording.seed, "--every", recording.every, "--keep-images", recording.keep_images,
        *(["--keep", recording.keep] if recording.keep != "measures" else []),
        "--out", shlex.quote(run.path.name),
    ]  # fmt: skip
    return " ".join(str(part) for part in parts)


def _of_prompts(out: str, plan: Plan, prompts: PromptPlan) -> str:
    recording = plan.recording
    parts: list[Any] = [
        "--model", plan.model.spec, *(part for spec in prompts.more_models for part in ("--also-model", spec)),
        "--dtype", plan.model.dtype, "--prompts", plan.data.spec, *_given("--targets", prompts.targets),
        "--limit", plan.data.examples, "--attack", plan.attack.name,
        *(part for name, value in plan.attack.settings.items() for part in ("--attack-arg", f"{name}={value}")),
        "--steps", recording.steps, "--restarts", recording.restarts, "--seed", recording.seed, "--every", recording.every,
        "--suffix", prompts.suffix, *(["--universal"] if prompts.universal else []), "--chat-template", prompts.template,
        *_given("--system", prompts.system), "--new-tokens", prompts.new_tokens, *_given("--judge", prompts.judge),
        "--out", out,
    ]  # fmt: skip
    return f"uncanny record {shlex.join(map(str, parts))}"


def _given(option: str, value: str) -> list[str]:
    """An option, where it was given a value."""
    return [option, value] if value else []


def _settings(plan: Plan) -> list[Any]:
    settings = plan.attack.settings
    given = {name: settings[name] for name in OPTIONS if name in settings}
    if "library" not in settings:
        given |= {"steps": plan.recording.steps, "restarts": plan.recording.restarts}
    parts: list[Any] = []
    for name, value in given.items():
        parts += [f"--{name.replace('_', '-')}", value]
    for name, value in settings.items():
        if name not in (*OPTIONS, *IMPLIED):
            parts.append(f"--attack-arg {shlex.quote(f'{name}={value}')}")
    return parts + (["--batch-size", settings["batch_size"]] if "batch_size" in settings else [])
