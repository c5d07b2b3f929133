"""Operator norms of matrices and convolutions, bound from above."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import uncannyvalley as uv
from uncannyvalley.theory.operator_norm import (
    _dense,
    _gram_iteration,
    convolution_norm,
    matrix_norm,
    torus_norm,
)

quick = settings(max_examples=60, deadline=None, derandomize=True)


def largest(matrix: Tensor) -> float:
    return torch.linalg.matrix_norm(matrix.double(), 2).item()


@given(rows=st.integers(1, 30), columns=st.integers(1, 30), scale=st.sampled_from([1e-6, 1.0, 1e9]))
@quick
def test_matrix_norm_is_the_largest_singular_value_rounded_up(rows: int, columns: int, scale: float) -> None:
    weight = scale * torch.randn(
        rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(rows)
    )
    assert largest(weight) <= matrix_norm(weight) <= largest(weight) * (1 + 1e-8)


def test_gram_iteration_bounds_from_above_and_comes_close() -> None:
    weight = torch.randn(60, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = math.sqrt(_gram_iteration(weight @ weight.T))
    assert largest(weight) * (1 - 1e-12) <= found <= largest(weight) * 1.005
    wide = torch.randn(700, 800, generator=torch.Generator().manual_seed(0))
    assert largest(wide) <= matrix_norm(wide) <= largest(wide) * 1.005


def test_matrices_of_zeros_have_norm_zero_and_nan_is_an_error() -> None:
    assert matrix_norm(torch.zeros(3, 4)) == 0
    with pytest.raises(uv.InputError, match="NaN"):
        matrix_norm(torch.full((2, 2), torch.nan))


@st.composite
def convolutions(draw: st.DrawFn) -> dict:
    axes = draw(st.integers(1, 3))
    biggest = {1: 14, 2: 6, 3: 3}[axes]
    each = lambda low, high: [draw(st.integers(low, high)) for _ in range(axes)]  # noqa: E731
    taps, stride, padding, dilation = each(1, 3), each(1, 3), each(0, 3), each(1, 2)
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(taps, dilation, padding, strict=True)]
    size = [draw(st.integers(one, max(one, biggest))) for one in least]
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    shape = [groups * draw(st.integers(1, 2)), draw(st.integers(1, 2)), *taps]
    draws = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    kernel = torch.randn(shape, dtype=torch.float64, generator=draws)
    return {
        "kernel": kernel, "input_size": size, "stride": stride, "padding": padding, "dilation": dilation,
        "groups": groups,
    }  # fmt: skip


def dense(case: dict) -> Tensor:
    """All channels and groups at once, from unit images."""
    channels = case["kernel"].shape[1] * case["groups"]
    inputs = channels * math.prod(case["input_size"])
    units = torch.eye(inputs, dtype=torch.float64).reshape(inputs, channels, *case["input_size"])
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(case["input_size"]) - 1]
    options = {name: case[name] for name in ("stride", "padding", "dilation", "groups")}
    return convolve(units, case["kernel"], **options).flatten(1).T


@given(case=convolutions())
@quick
def test_torus_norm_is_never_below_the_norm_of_the_convolution(case: dict) -> None:
    kernel = case["kernel"].reshape(case["groups"], -1, *case["kernel"].shape[1:])
    points = [
        math.ceil((n + p) / s) * s
        for n, p, s in zip(case["input_size"], case["padding"], case["stride"], strict=True)
    ]
    truth = largest(dense(case))
    assert torus_norm(kernel, points, case["stride"], case["dilation"]) >= truth * (1 - 1e-12)
    assert truth <= convolution_norm(**case) <= truth * (1 + 1e-8)  # small ones are measured as a matrix


@given(case=convolutions(), seed=st.integers(0, 99))
@quick
def test_torus_norm_is_the_norm_of_the_circular_convolution(case: dict, seed: int) -> None:
    """The polyphase form against the matrix of the circular convolution itself."""
    kernel, stride, dilation = case["kernel"][:1], case["stride"], case["dilation"]
    points = [
        s * math.ceil((d * k + 1) / s) for s, d, k in zip(stride, dilation, kernel.shape[2:], strict=True)
    ]
    inputs = kernel.shape[1] * math.prod(points)
    units = torch.eye(inputs, dtype=torch.float64).reshape(inputs, kernel.shape[1], *points)
    around = [d * (k - 1) for d, k in zip(dilation, kernel.shape[2:], strict=True)]
    for axis, extra in enumerate(around):  # wrap by hand: what lies behind the end is the beginning
        units = torch.cat([units, units.narrow(axis + 2, 0, extra)], dim=axis + 2)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(points) - 1]
    matrix = convolve(units, kernel, stride=stride, dilation=dilation).flatten(1)
    assert torus_norm(kernel[None], points, stride, dilation) == pytest.approx(largest(matrix), rel=2e-9)


def test_torus_norm_is_close_for_larger_images() -> None:
    kernel = torch.randn(4, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    truth = largest(_dense(kernel, [16, 16], [1, 1], [1, 1], [1, 1]))
    assert truth <= convolution_norm(kernel, [40, 40], padding=1)  # larger images only add to it
    assert truth <= torus_norm(kernel[None], [17, 17], [1, 1], [1, 1]) <= truth * 1.05


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_convolutions_of_one_tap_are_matrices_at_any_size(stride: int) -> None:
    kernel = torch.randn(5, 7, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = convolution_norm(kernel, [50, 60], stride=stride, padding=1)
    assert found == pytest.approx(largest(kernel[:, :, 0, 0]), rel=2e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 0}, "stride"),
        ({"padding": [1, 1, 1]}, "padding"),
        ({"groups": 3}, "groups"),
        ({"dilation": 9}, "does not fit"),
    ],
)
def test_impossible_convolutions_are_named(options: dict, words: str) -> None:
    with pytest.raises(uv.InputError, match=words):
        convolution_norm(torch.ones(2, 2, 3, 3), [6, 6], **options)
