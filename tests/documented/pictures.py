"""Small images, and the model file of a reader that classifies them."""

import io
from pathlib import Path

import numpy as np

CLASSES, EDGE = 10, 32

MODEL = f'''"""A small network for images of {EDGE} x {EDGE}, as a user's file would hold it."""

import torch
from torch import nn


def build(width: int = 8) -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, width, 4, stride=4), nn.BatchNorm2d(width, momentum=None), nn.ReLU(),
        nn.Flatten(), nn.Linear({(EDGE // 4) ** 2} * width, {CLASSES}),
    )
    net(nn.functional.interpolate(torch.rand(64, 3, 4, 4), size={EDGE}, mode="bilinear"))
    return net.eval()
'''


def smooth_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random images as bytes (n, edge, edge, 3), and the classes that the network of ``MODEL`` gives them."""
    import torch

    from uncannyvalley import zoo

    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(count))
    x = torch.nn.functional.interpolate(coarse, size=(EDGE, EDGE), mode="bilinear").mul(255).round()
    model = Path("my_model.py")
    if not model.exists():
        model.write_text(MODEL)
    with torch.no_grad():
        y = zoo.load("my_model.py:build")(x / 255).argmax(dim=1)
    return x.byte().permute(0, 2, 3, 1).numpy(), y.numpy()


def png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()
