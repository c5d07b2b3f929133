"""What a detector is fitted to: clean images for the shape of its columns, others for the threshold, and the changes that they bear."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley.checks import check_images
from uncannyvalley.detect.changes import change
from uncannyvalley.detect.conformal import rows_needed
from uncannyvalley.errors import InputError
from uncannyvalley.splitting import SplitModel

FEWEST_FITTED = 50
"""Clean images below which quantiles and a covariance mean nothing."""

AGREEMENT = 0.8
"""Share of clean images whose predicted class a change must leave alone to be used."""

TRIAL_IMAGES = 256


@dataclass(frozen=True)
class CleanImages:
    """``fitted`` shape the columns, ``held`` set the threshold; ``notes``: what the user should know of both."""

    fitted: Float[Tensor, "n ..."]
    held: Float[Tensor, "m ..."]
    notes: tuple[str, ...]


def clean_images(x_clean: object, calibration: object, fpr: float, seed: int) -> CleanImages:
    """Images checked and counted; without ``calibration`` x_clean in two halves drawn by the seed.

    Raises InputError for images out of range, for too few of them, with the number needed, and where most calibration images
    are also among those fitted.
    """
    x = check_images(x_clean)
    if calibration is None:
        _check_enough(len(x) // 2, len(x) - len(x) // 2, fpr, was_split=True)
        return _halves(x, seed)
    held = check_images(calibration)
    _check_enough(len(x), len(held), fpr, was_split=False)
    repeated = _repeated(x, held)
    if 2 * repeated > len(held):
        raise InputError(
            f"{repeated} of the {len(held)} calibration images are also among those fitted, so that the threshold would "
            "promise nothing; give others, or leave calibration out and x_clean is split in two"
        )
    return CleanImages(x, held, _notes_on(repeated, held))


def allowed_changes(
    model: SplitModel, x: Float[Tensor, "n ..."], names: Iterable[str], count: int, seed: int
) -> tuple[list[str], list[str]]:
    """The first ``count`` changes under which most clean images keep their predicted class, and a note on those left out."""
    trial = x[:TRIAL_IMAGES]
    classes = model.logits_of(trial).argmax(dim=1)
    allowed: list[str] = []
    refused: list[str] = []
    for name in names:
        if len(allowed) == count:
            break
        changed = model.logits_of(change(name, seed)(trial)).argmax(dim=1)
        share = (changed == classes).float().mean().item()
        if share >= AGREEMENT:
            allowed.append(name)
        else:
            refused.append(f"{name} ({1 - share:.0%})")
    if not refused:
        return allowed, []
    return allowed, [f"not used, since they change the class of clean images: {', '.join(refused)}"]


def _halves(x: Float[Tensor, "n ..."], seed: int) -> CleanImages:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    half = len(x) // 2
    note = (
        f"no calibration images given: fitted on {half} of the {len(x)} clean images, threshold from the other "
        f"{len(x) - half}; the promise needs images that the network was not trained on"
    )
    fitted, held = x[order[:half]], x[order[half:]]
    return CleanImages(fitted, held, (note, *_notes_on(_repeated(fitted, held), held)))


def _repeated(fitted: Float[Tensor, "n ..."], held: Float[Tensor, "m ..."]) -> int:
    """How many images of ``held`` are in ``fitted`` too, bit for bit."""
    seen = {_bytes(one) for one in fitted}
    return sum(_bytes(one) in seen for one in held)


def _notes_on(repeated: int, held: Float[Tensor, "m ..."]) -> tuple[str, ...]:
    if not repeated:
        return ()
    note = f"{repeated} of the {len(held)} calibration images are also among those fitted"
    return (f"{note}: the promise needs images that the detector has not seen",)


def _check_enough(fitted: int, held: int, fpr: float, *, was_split: bool) -> None:
    needed = rows_needed(fpr)
    if fitted >= FEWEST_FITTED and held >= needed:
        return
    if was_split:
        least = 2 * max(FEWEST_FITTED, needed)
        raise InputError(
            f"x_clean holds {fitted + held} images, and fpr={fpr:g} without calibration images needs {least}; give more"
        )
    if fitted < FEWEST_FITTED:
        raise InputError(f"x_clean holds {fitted} images; a detector is fitted on at least {FEWEST_FITTED}")
    raise InputError(f"calibration holds {held} images; fpr={fpr:g} needs at least {needed}")


def _bytes(image: Float[Tensor, "..."]) -> bytes:
    return image.detach().cpu().float().numpy().tobytes()
