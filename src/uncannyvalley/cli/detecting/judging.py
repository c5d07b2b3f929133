"""An evaluation step by step: baselines, attackers who know the detector, the judgement, and what decided it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uncannyvalley.cli.detecting.networks import check_shape
from uncannyvalley.cli.printing import progress_bars
from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from uncannyvalley.cli.detecting.attack_files import AttackFiles
    from uncannyvalley.cli.detecting.attack_images import NamedAttack
    from uncannyvalley.cli.detecting.held_out import HeldOut, ImageSets
    from uncannyvalley.detect.evaluation.evaluate import Evaluation
    from uncannyvalley.detect.evaluation.outcome import DetectorOutcome
    from uncannyvalley.detect.evaluation.progress import Progress
    from uncannyvalley.detect.image_detector import ImageDetector

NAME = "this detector"

ADAPTIVE = "adaptive (best)"

LEAST_RIGHT = 0.5
"""Share of the images classified right below which something is probably wrong with them."""

MOST_KNOWN = 100
"""Images that adaptive attackers attack; the others stay as they are."""


@dataclass(frozen=True)
class Asked:
    """What is asked of the judgement: best robust accuracies known (by radius), a prevalence, turns of the timing, a seed."""

    known: Mapping[float, float]
    prevalence: float
    turns: int
    seed: int


def baselines_of(
    names: list[str],
    detector: "ImageDetector",
    clean: tuple[str | None, int | None],
    calibration: tuple[str | None, int | None],
    progress: "Progress | None",
) -> "tuple[dict[str, ImageDetector], list[str]]":
    """Name → baseline fitted to clean images and calibrated on others, each (name of the data, limit), and notes."""
    from uncannyvalley.cli.detecting.baselines import fit_baselines
    from uncannyvalley.cli.detecting.sources import read_images

    if not names:
        return {}, [
            "No baselines: whether the detector does more than log Gini or any other is not shown. --fit-data adds them."
        ]
    x, held = (
        None if name is None else read_images(name, limit=limit).x for name, limit in (clean, calibration)
    )
    if x is None:
        raise InputError("baselines need clean images: name them with --fit-data")
    check_shape(detector, x, "--fit-data")
    return fit_baselines(names, detector, x, held, progress)


def add_adaptive(
    detector: "ImageDetector",
    held: "HeldOut",
    sets: "ImageSets",
    settings: Mapping[str, Any],
    files: "AttackFiles",
    *,
    wanted: bool,
    quiet: bool,
) -> list[str]:
    """Attackers who know the detector become one more attack: the best of all, image by image."""
    from uncannyvalley.cli.detecting.attacking import radius, run_attackers

    if not wanted:
        return [
            "No attacker here knows the detector: the worst attack is only the worst of these. --adaptive adds those who do, "
            "uncanny detect attack shows them one by one."
        ]
    norm, seed = settings["norm"] or "linf", settings["seed"]
    known: dict[str, Any] = {
        "norm": norm,
        "eps": settings["eps"] or radius(norm, None),
        "steps": settings["steps"] or 40,
    }
    x, y = held.x[:MOST_KNOWN], held.y[:MOST_KNOWN]

    def made() -> "tuple[Tensor, list[str]]":
        table = run_attackers(detector, x, y, [], known, seed=seed, quiet=quiet)
        assert table.headline.images is not None  # attack_detector keeps them
        doubts = [str(one) for one in table.headline.diagnostics if one.fired]
        return table.headline.images.to(x).float(), doubts

    scores = detector.calibration.scores.tolist()  # they tell any two detectors of one network apart
    decided_by = {
        **known,
        "seed": seed,
        "recipe": repr(detector.recipe),
        "noise": detector.seed,
        "clean scores": scores,
    }
    images = held.x.clone()
    images[: len(x)], doubts = files.images(ADAPTIVE, decided_by, x, y, made)
    sets.attacks[ADAPTIVE] = images
    doubts = [f"{ADAPTIVE}: {one}" for one in doubts]
    if len(x) == len(held.x):
        sets.radii[ADAPTIVE] = known["eps"]
        return doubts
    return [
        f"{ADAPTIVE}: the first {len(x)} of {len(held.x)} images were attacked; the others are left as they are, and count as safe",
        *doubts,
    ]


def judged(
    detector: "ImageDetector",
    others: "dict[str, ImageDetector]",
    held: "HeldOut",
    sets: "ImageSets",
    asked: Asked,
    *,
    quiet: bool,
) -> "Evaluation":
    """The detector, as ``NAME``, and the others on all image sets, with bars."""
    from uncannyvalley.detect.evaluation import evaluate as judge

    with progress_bars(quiet, "images") as progress:
        return judge(
            {NAME: detector, **others}, held.x, held.y, sets.attacks, shifts=sets.shifts, controls=sets.controls,
            prevalence=asked.prevalence, seed=asked.seed, progress=progress, judged=[NAME], eps=sets.radii,
            known=asked.known or None, turns=asked.turns,
        )  # fmt: skip


def doubts_of(found: "Evaluation") -> list[str]:
    """What makes the numbers hard to believe, or the detector hard to prefer: a network that is hardly ever right, results too
    good to be true, baselines that do better."""
    doubts = []
    if found.right < LEAST_RIGHT * found.images:
        doubts.append(
            f"the network classifies only {found.right} of the {found.images} images right, and only those count; check the order of "
            "the classes (of folders: that of their names) and the range of the images"
        )
    doubts += [str(one) for one in found.detectors[NAME].claims if one.implausible]
    for what, value in (("its own worst attack", _worst_flagged), ("mean AUROC", _mean_auroc)):
        own = value(found.detectors[NAME])
        better = [name for name, one in found.detectors.items() if value(one) > own]
        if better:
            doubts.append(f"better than this detector in {what}: {', '.join(better)}")
    return doubts


def _worst_flagged(outcome: "DetectorOutcome") -> float:
    worst = outcome.headline["worst_flagged"]
    return -1.0 if worst is None else worst.value


def _mean_auroc(outcome: "DetectorOutcome") -> float:
    return outcome.headline["mean_auroc"]


def about_evaluation(
    detector: "ImageDetector",
    file: str,
    data: str,
    skip: int,
    held: "HeldOut",
    attacks: "Sequence[NamedAttack]",
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """What decided the evaluation, for its files."""
    import uncannyvalley
    from uncannyvalley.cli.detecting.promise import about
    from uncannyvalley.detect.saving import about_detector

    network = about_detector(file).model
    return {
        "detector": file, "network": f"{network.name or 'given by --model'} (SHA-256 {network.fingerprint[:16]}…)",
        "data": data, "skipped": skip, "images": len(held.x),
        "attacks": {one.title: one.about for one in attacks},
        "settings": dict(settings), "uncannyvalley": uncannyvalley.__version__, **about(detector),
    }  # fmt: skip
