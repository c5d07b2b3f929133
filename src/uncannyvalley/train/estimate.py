"""How long a training will take, from its first steps and a look at a few images."""

import time
from dataclasses import dataclass, replace

from uncannyvalley.train.evaluation import evaluate
from uncannyvalley.train.fitting import fit
from uncannyvalley.train.request import Training
from uncannyvalley.zoo.heads import plain_heads

TIMED_STEPS = 4
TIMED_IMAGES = 64


@dataclass(frozen=True)
class TrainingEstimate:
    """Steps of a training, its looks at the validation images, and how long they take; None: not timed."""

    steps: int
    looks: int
    seconds: float | None


def estimate(training: Training, *, timed: bool = True) -> TrainingEstimate:
    """Counts, and the seconds that they take on this machine on one device: the mean of a few steps, and a look at a few
    images, times their numbers.

    Writes nothing. Raises InputError for what training itself would refuse at its first step.
    """
    recipe = training.recipe
    steps, seen = training.steps, training.looked_at
    looks = -(-recipe.epochs // recipe.evaluate_every) if seen else 0
    if not timed or steps == 0:
        return TrainingEstimate(steps, looks, None)
    look = _seconds_of_a_look(training) * seen if looks else 0.0
    return TrainingEstimate(steps, looks, steps * _seconds_of_a_step(training) + looks * look)


def _seconds_of_a_step(training: Training) -> float:
    recipe, asked = training.recipe, training.request
    count = max(1, min(TIMED_STEPS + 1, len(training.images) // recipe.batch_size))
    short = replace(recipe, epochs=1, validation_share=0.0, eps=None, selection="last")
    clock: list[tuple[int, float]] = [(0, time.monotonic())]
    fit(
        training.net, training.images.first(count * recipe.batch_size), None, training.objective, short,
        head=training.head_name, accelerator=asked.device, precision=asked.precision,
        progress=lambda done, steps, losses: clock.append((done, time.monotonic())),
    )  # fmt: skip
    # the first step is slower than all others: take it in only where there is no other
    first = clock[1] if len(clock) > 2 else clock[0]
    done, ended = clock[-1]
    return (ended - first[1]) / max(1, done - first[0])


def _seconds_of_a_look(training: Training) -> float:
    """For one image."""
    images = (training.images if training.validation is None else training.validation).first(TIMED_IMAGES)
    begun = time.monotonic()
    evaluate(plain_heads(training.net).eval(), images, training.recipe)
    return (time.monotonic() - begun) / len(images)
