"""Normalisation layers by plain operations, for third derivatives.

torch (2.13) differentiates its own layer and instance normalisation rightly twice and wrongly three times: the third
derivative comes out unsymmetric and off by up to several times its size. The same formulas in plain operations are right.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class PlainNorms(TorchFunctionMode):
    """While it is active, layer_norm and instance_norm are computed by mean, variance and division."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func in (nn.functional.layer_norm, torch.layer_norm):
            return _layer_norm(*args, **named)
        if func is nn.functional.instance_norm:
            return _instance_norm(*args, **named)
        return func(*args, **named)


def _standardised(x: Tensor, axes: list[int], eps: float) -> Tensor:
    away = x - x.mean(axes, keepdim=True)
    return away / (away.square().mean(axes, keepdim=True) + eps).sqrt()


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    result = _standardised(input, list(range(-len(normalized_shape), 0)), eps)
    result = result if weight is None else result * weight
    return result if bias is None else result + bias


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    channels = (1, -1, *[1] * (input.dim() - 2))
    if use_input_stats or running_mean is None or running_var is None:
        result = _standardised(input, list(range(2, input.dim())), eps)
    else:
        spread = (running_var.reshape(channels) + eps).sqrt()
        result = (input - running_mean.reshape(channels)) / spread
    result = result if weight is None else result * weight.reshape(channels)
    return result if bias is None else result + bias.reshape(channels)
