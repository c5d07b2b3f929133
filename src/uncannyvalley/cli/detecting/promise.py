"""What a calibrated detector promises, in words and numbers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uncannyvalley.detect.image_detector import ImageDetector


def interval_of(count: int, total: int) -> tuple[float, float]:
    """Clopper-Pearson interval of a share; (0, 1) without any images."""
    from uncannyvalley.detect.evaluation.rates import clopper_pearson

    return clopper_pearson(count, total)


def share(count: int, total: int) -> str:
    """A share with its interval, as a cell of a table."""
    if total == 0:
        return "–"
    low, high = interval_of(count, total)
    return f"{count / total:.1%} [{low:.1%}, {high:.1%}]"


def percent(count: int, total: int) -> str:
    """The same in whole percents, for wide tables."""
    if total == 0:
        return "–"
    low, high = interval_of(count, total)
    return f"{100 * count / total:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def promise_of(detector: "ImageDetector") -> str:
    """The promise in one sentence, with the condition under which it holds."""
    calibration = detector.calibration
    low, high = calibration.interval()
    doubt = (
        f", of which at most {calibration.contamination} are not clean" if calibration.contamination else ""
    )
    return (
        f"Of clean images like the {len(calibration.scores)} calibration images{doubt}, at most {100 * detector.fpr:.3g} % are flagged on "
        f"average over the draw of the calibration images; the rate of this one threshold lies between {100 * low:.2g} and {100 * high:.2g} % "
        "in 95 % of draws. It holds if the network was not trained on the calibration images, and says nothing about images "
        "that are unlike them."
    )


def about(detector: "ImageDetector") -> dict[str, Any]:
    """The same for machines."""
    calibration = detector.calibration
    low, high = calibration.interval()
    return {
        "fpr": detector.fpr, "threshold": detector.threshold, "calibration_images": len(calibration.scores),
        "contamination": calibration.contamination, "rate_interval": [low, high], "promise": promise_of(detector),
        "budget": detector.budget, "forwards": detector.forwards, "backwards": detector.backwards, "seed": detector.seed,
        "recipe": detector.recipe.name, "columns": list(detector.recipe.columns),
        "questions": [one.name for one in detector.recipe.questions], "notes": list(detector.notes),
    }  # fmt: skip


def cost(detector: "ImageDetector") -> str:
    """Passes of one decision, in words."""

    def passes(number: int, what: str) -> str:
        return f"{number} {what}{'' if number == 1 else 's'}"

    return f"{passes(detector.forwards, 'forward')} and {passes(detector.backwards, 'backward')} a decision"
