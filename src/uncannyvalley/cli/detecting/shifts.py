"""Clean images under everyday changes: what a detector must not take for an attack."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NOISE, BLUR = 0.04, 0.7
"""Standard deviations, of the noise in units of the range [0, 1], and of the blur in pixels."""

BRIGHTNESS = (0.8, 1.2)
JPEG = (90, 75)


def shifted_images(x: "Tensor", seed: int = 0) -> "dict[str, Tensor]":
    """Name → changed images (n, …) in [0, 1]; blur and JPEG only of images of 1 or 3 channels."""
    import torch

    from uncannyvalley.detect.changes import blurred

    draws = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    found = {f"noise {NOISE}": (x + NOISE * draws.to(x)).clamp(0, 1)}
    found |= {f"brightness × {factor}": (factor * x).clamp(0, 1) for factor in BRIGHTNESS}
    if x.dim() == 4 and x.shape[1] in (1, 3) and min(x.shape[2:]) >= 3:
        found[f"blur {BLUR} px"] = blurred(x, BLUR).clamp(0, 1)
        found |= {f"JPEG {quality}": jpeg(x, quality) for quality in JPEG}
    return found


def jpeg(x: "Tensor", quality: int) -> "Tensor":
    """Images (n, 1 or 3, h, w) through a JPEG file of that quality."""
    import numpy as np
    import torch

    from uncannyvalley.data.decoding import decode_all

    pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    encoded = [(f"image {i}", _encoded(one, quality)) for i, one in enumerate(pixels)]
    return torch.from_numpy(np.ascontiguousarray(decode_all(encoded))).to(x) / 255


def _encoded(pixels: "object", quality: int) -> bytes:
    import numpy as np
    from PIL import Image

    array = np.asarray(pixels)
    image = Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
