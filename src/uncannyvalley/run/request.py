"""What a user asks for, by names → the plan that decides the numbers, and the work at hand."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from uncannyvalley import data, zoo
from uncannyvalley.adversaries import Adversary
from uncannyvalley.analysis.diagnostics import Diagnostic, diagnose_queries
from uncannyvalley.analysis.smoothness import diagnose
from uncannyvalley.checks import check_count, check_labels
from uncannyvalley.data import Images
from uncannyvalley.derivatives.layer_measures import with_layers
from uncannyvalley.errors import InputError, first_line, unknown_name
from uncannyvalley.measures import resolve
from uncannyvalley.observing import chosen_measures
from uncannyvalley.recording import check_target, choose_batch_size
from uncannyvalley.run.folder import RunFolder
from uncannyvalley.run.named_attack import CONTROL_STEPS, EPS, control_attacks, make_attack
from uncannyvalley.run.plan import (
    SHARD_EXAMPLES,
    AttackPlan,
    DataPlan,
    LayoutPlan,
    ModelPlan,
    Plan,
    RecordingPlan,
)
from uncannyvalley.run.recorder import Work
from uncannyvalley.splitting import SplitModel, split
from uncannyvalley.types import Attack
from uncannyvalley.walking import Recording
from uncannyvalley.watching import add_counts

DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "bfloat16", "float16")}


@dataclass(frozen=True)
class Request:
    """One recording, as ``uncanny record`` takes it; fields are its options."""

    model: str = "demo"
    data: str = "digits"
    attack: str = "pgd"
    attack_arguments: Mapping[str, str] = field(default_factory=dict)
    norm: str | None = None
    eps: float | None = None
    step_size: float | None = None
    steps: int | None = None
    random_start: bool = False
    target: str | None = None
    restarts: int = 1
    seed: int = 0
    every: int = 1
    measures: Sequence[str] | None = None
    limit: int | None = None
    batch_size: int | None = None
    keep: str | None = None
    keep_images: int = 64
    head: str | None = None
    device: str = "auto"
    dtype: str | None = None
    prepare: bool = True
    compile: bool = False
    shard_examples: int = SHARD_EXAMPLES
    model_arguments: Mapping[str, str] = field(default_factory=dict)
    weights: str | None = None

    @property
    def ball_norm(self) -> str:
        """The norm, linf where none is given."""
        return self.norm or "linf"

    @property
    def ball_eps(self) -> float:
        """The radius, 8/255 in linf and 0.5 in l2 where none is given."""
        return EPS.get(self.ball_norm, EPS["linf"]) if self.eps is None else self.eps


def load_images(request: Request) -> Images:
    """The data asked for."""
    if request.limit is not None:
        check_count("limit", request.limit, 1)
    return data.load(request.data).first(request.limit)


def load_model(request: Request, images: Images) -> tuple[SplitModel, str]:
    """The network asked for, split and on its device, with the fingerprint of its weights."""
    if request.dtype is not None and request.dtype not in DTYPES:
        raise unknown_name("dtype", request.dtype, DTYPES)
    net = zoo.load(request.model, request.model_arguments, weights=request.weights)
    model = split(
        net, images[: min(8, len(images))], request.head, prepare=request.prepare, compile=request.compile,
        device=device_of(request.device), dtype=None if request.dtype is None else DTYPES[request.dtype],
    )  # fmt: skip
    check_labels(images.labels, len(images), model.classes)
    return model, zoo.fingerprint(net)


def device_of(name: str) -> torch.device:
    """The device of that name; "auto": a GPU where there is one. InputError where it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device, dtype=torch.float64)  # measures are summed in float64
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise InputError(
            f"device {name!r} cannot be used here ({first_line(error)}); try --device cpu"
        ) from error
    return device


def make_work(
    request: Request, images: Images | None = None, network: tuple[SplitModel, str] | None = None
) -> tuple[Plan, Work]:
    """Everything a recording needs, checked, and the plan that names it; images and network where they are loaded."""
    check_count("keep_images", request.keep_images, 0)
    check_count("shard_examples", request.shard_examples, 1)
    images = load_images(request) if images is None else images
    model, fingerprint = load_model(request, images) if network is None else network
    attack = make_attack(request, model)
    recording = _recording(request, attack, model)
    work = Work(
        model, images, attack, recording,
        _target(request, images, attack, model.classes) if isinstance(attack, Attack) else None,
        min(choose_batch_size(model, request.batch_size), request.shard_examples),
    )  # fmt: skip
    return make_plan(request, work, fingerprint), work


def _recording(request: Request, attack: Attack | Adversary, model: SplitModel) -> Recording:
    """How the walk is recorded; beside a library's attack, how its control walks are."""
    if isinstance(attack, Adversary):
        measures = chosen_measures(model, request.measures)
        return Recording(CONTROL_STEPS, measures, request.seed)
    steps = request.steps if request.steps is not None else (attack.max_steps or 20)
    measures = resolve(with_layers(model, request.measures))
    return Recording(steps, measures, request.seed, request.restarts, request.every, request.keep)


def _target(request: Request, images: Images, attack: Attack, classes: int) -> Tensor | None:
    """Target classes from a number, a class name, or 'least-likely' (chosen while recording)."""
    if request.target is None or request.target == "least-likely":
        return None
    if request.target in images.class_names:
        number = images.class_names.index(request.target)
    elif request.target.isdigit():
        number = int(request.target)
    else:
        raise unknown_name(
            "target class", request.target, ["least-likely", "a class number", *images.class_names]
        )
    return check_target(number, images.labels, attack, classes)


def make_plan(request: Request, work: Work, fingerprint: str) -> Plan:
    """The plan of ``work``: what decides its numbers."""
    recording, model = work.recording, work.model
    return Plan(
        model=ModelPlan(
            spec=request.model, arguments=dict(request.model_arguments), fingerprint=fingerprint,
            weights=request.weights or "", head=model.head_name, dtype=str(model.dtype).removeprefix("torch."), prepared=model.prepared,
        ),
        data=DataPlan(spec=request.data, examples=len(work.images), fingerprint=work.images.fingerprint),
        attack=AttackPlan(
            name=work.attack.name, settings=work.settings, target=request.target or "least-likely"
        ),
        recording=RecordingPlan(
            steps=recording.steps, every=recording.every, restarts=recording.restarts, seed=recording.seed,
            keep=recording.keep or "measures", keep_images=min(request.keep_images, len(work.images)),
            measures={one.name: one.version for one in recording.measures},
        ),
        layout=LayoutPlan(shard_examples=request.shard_examples),
    )  # fmt: skip


def control_runs(plan: Plan, work: Work) -> Iterator[tuple[str, Plan, Work]]:
    """Name, plan and work of each control walk: same images, ball, steps and seed; no images kept."""
    for attack in control_attacks(work.attack):
        settings = AttackPlan(name=attack.name, settings=dict(attack.settings))
        recording = plan.recording.model_copy(update={"keep_images": 0})
        control = plan.model_copy(update={"attack": settings, "recording": recording})
        yield attack.name, control, replace(work, attack=attack, target=None)


def doubts_about(work: Work) -> list[dict[str, Any]]:
    """What only the model can tell about the method, asked of the first images."""
    found = diagnose(work.model, work.images[:16], work.images.labels[:16])
    return [vars(one) for one in found if math.isfinite(one.figure)]


def doubts_of(run: RunFolder) -> list[Diagnostic]:
    """The diagnostics that were kept when the run was recorded, and what the counts of its queries say."""
    entries = run.manifest().shards.values()
    queries = [one["queries"] for one in entries if "queries" in one]
    kept = [Diagnostic(**doubt) for one in entries for doubt in one.get("diagnostics", ())]
    return [*kept, *(diagnose_queries(add_counts(queries)) if queries else [])]
