"""Clean images that were changed without aim: what share a detector flags then, of which nothing is promised."""

import io
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detection.bench import Bench
from detection.features import Seen
from uncannyvalley.detect.changes import blurred
from uncannyvalley.detect.recipes import Recipe

NOISE_SEED = 1
"""Other noise than the detector's own."""


def shifts(bench: Bench, recipes: Mapping[str, Recipe]) -> dict[str, dict[str, float]]:
    """Share flagged of changed test images, whatever their class; printed, one line a detector."""
    changed = {name: Seen(bench.test.asker, x) for name, x in changes(bench.test.x).items()}
    print("\nshare flagged of test images that were changed without aim")
    print(f"{'':20}" + "".join(f"{one:>13}" for one in changed))
    found: dict[str, dict[str, float]] = {}
    for name, recipe in recipes.items():
        fitted = bench.fitted(recipe)
        found[name] = {
            one: float((fitted.predict(*bench.rows(recipe, seen)) < 0).mean())
            for one, seen in changed.items()
        }
        print(f"{name:20}" + "".join(f"{one:>13.3f}" for one in found[name].values()), flush=True)
    right = [float((one.predicted == bench.labels).double().mean()) for one in changed.values()]
    print(f"{'(classified right)':20}" + "".join(f"{one:>13.3f}" for one in right))
    return found


def changes(x: Tensor) -> dict[str, Tensor]:
    """Noise of two strengths (standard deviation), a light blur, brightness, JPEG of two qualities."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(NOISE_SEED))
    return {
        "none": x,
        "noise 4/255": (x + 4 / 255 * noise).clamp(0, 1),
        "noise 8/255": (x + 8 / 255 * noise).clamp(0, 1),
        "blur 0.6": blurred(x, 0.6),
        "darker": x * 0.8,
        "brighter": (x * 1.2).clamp(0, 1),
        "JPEG 75": jpeg(x, 75),
        "JPEG 30": jpeg(x, 30),
    }


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Images after JPEG at that quality."""
    done = []
    for one in (x * 255).round().byte().permute(0, 2, 3, 1).numpy():
        kept = io.BytesIO()
        Image.fromarray(one).save(kept, "JPEG", quality=quality)
        done.append(np.asarray(Image.open(kept)))
    return torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2).float() / 255
