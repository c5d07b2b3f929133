"""Noise images and recipes that detectors of small networks are tried on."""

import torch
from torch import Tensor

from uncannyvalley.detect.questions import Question
from uncannyvalley.detect.recipes import Recipe


def images(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *(shape or (1, 6, 6)), generator=torch.Generator().manual_seed(seed))


def recipe(*columns: str) -> Recipe:
    return Recipe("of a test", columns, (Question("all", dict.fromkeys(columns, 1.0)),))


WALKING = recipe("log_odds@climb2", "rise@climb1", "log_odds@descent1")
INNER = recipe("log_odds", "inner_sharpness@3")
REMEMBERING = recipe("log_mahalanobis", "log_local_dimension", "travel@noise2")
