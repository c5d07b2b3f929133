"""Inner layers along a walk: columns are the curvature of the iterates, and the network stays as it was."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import uncannyvalley as uv
from layers import SMALL, dense, image_batch, images_for, layers_of, network, ready
from test_no_side_effects import assert_same, state_of
from worlds import iterates

STEPS = 2
LAYERS = {"conv_norm": "3", "gelu": "1"}


def measures_at(layer: str) -> list[str]:
    return [
        f"log_relative_sharpness@{layer}",
        f"log_trace_per_gini@{layer}",
        f"estimated_log_trace@{layer}",
        f"estimated_trace@{layer}",
        "curvature_along_step@input",
        "third_along_step@input",
        "log_relative_sharpness_per_gini@all",
        f"third_order@{layer}",
        "log_gini",
    ]


def attack(norm: str = "linf") -> uv.Attack:
    return uv.attacks.pgd(norm, eps=0.3, step_size=0.1)


def walked(name: str) -> tuple[nn.Module, Tensor, list[Tensor], uv.Trajectory]:
    net, (x, y) = network(name), images_for(name, 4)
    path = iterates(net, x, y, attack(), STEPS)
    return net, y, path, uv.record(net, x, y, attack(), steps=STEPS, measures=measures_at(LAYERS[name]))


@pytest.mark.parametrize("name", LAYERS)
def test_columns_are_the_curvature_of_the_iterates(name: str) -> None:
    layer, (net, y, path, trajectory) = LAYERS[name], walked(name)
    model = uv.split(net, path[0], prepare=False)
    gini = trajectory.column("log_gini")
    for row, x in enumerate(path):

        def logs(place: str, quantity: str, method: str = "exact", x: Tensor = x) -> np.ndarray:
            return uv.curvature(model, x, y, place, quantity, method).log_value.numpy()

        truth = {
            f"log_relative_sharpness@{layer}": logs(layer, "relative_sharpness"),
            f"log_trace_per_gini@{layer}": logs(layer, "trace") - gini[:, row],
            f"estimated_log_trace@{layer}": logs(layer, "trace", "estimate"),
            f"estimated_trace@{layer}": uv.curvature(model, x, y, layer, "trace", "estimate").value,
            f"third_order@{layer}": np.exp(logs(layer, "third_order")),
        }
        for place in layers_of(name)[:-1]:
            shown = logs(place, "relative_sharpness") - gini[:, row]
            truth[f"log_relative_sharpness_per_gini@{place}"] = shown
        for column, wanted in truth.items():
            found = trajectory.column(column)[:, row]
            np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-8, err_msg=f"{column}, row {row}")


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", LAYERS)
def test_derivatives_along_the_step_are_those_along_the_last_step(name: str, norm: str) -> None:
    net, (x, y) = network(name), images_for(name, 4)
    names = {"curvature_along_step@input": 2, "third_along_step@input": 3}
    path = iterates(net, x, y, attack(norm), STEPS)
    trajectory = uv.record(net, x, y, attack(norm), steps=STEPS, measures=list(names))
    for column, order in names.items():
        found = trajectory.column(column)
        assert np.isnan(found[:, 0]).all()
        for row in range(1, STEPS + 1):
            step = path[row] - path[row - 1]
            unit = step / step.flatten(1).norm(dim=1)[:, None, None, None]
            truth = uv.directional_derivative(net, path[row], y, "input", unit, order)
            np.testing.assert_allclose(found[:, row], truth, rtol=1e-8, atol=1e-10, err_msg=column)


def test_rows_left_out_do_not_change_the_rows_recorded() -> None:
    """The step before a recorded row is the attack's own step, not the way from the last recorded row."""
    net, (x, y) = network("gelu"), images_for("gelu", 4)
    names = ["curvature_along_step@input", "log_relative_sharpness@1"]
    whole = uv.record(net, x, y, attack(), steps=4, measures=names)
    thinned = uv.record(net, x, y, attack(), steps=4, measures=names, every=2)
    alone = uv.record(net, x, y, attack(), steps=4, measures=names, batch_size=1)
    for name in names:
        kept = whole.column(name)
        kept[:, [1, 3]] = np.nan
        np.testing.assert_allclose(thinned.column(name), kept, rtol=1e-9, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(
            alone.column(name), whole.column(name), rtol=1e-8, atol=1e-12, err_msg=name
        )


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 2e-5), (torch.float64, 1e-8)])
def test_folding_batch_norm_leaves_inner_layers_alone(dtype: torch.dtype, near: float) -> None:
    net, (x, y) = network("conv_norm").to(dtype), images_for("conv_norm", 4)
    x = x.to(dtype)
    names = [
        f"{name}@{layer}" for name in ("log_trace", "log_relative_sharpness") for layer in ("0", "3", "7")
    ]
    folded, plain = uv.split(net, x), uv.split(net, x, prepare=False)
    assert folded.prepared, "something must have been folded"
    one, two = (uv.record(model, x, y, attack(), steps=2, measures=names) for model in (folded, plain))
    for name in names:
        np.testing.assert_allclose(one.column(name), two.column(name), rtol=0, atol=near, err_msg=name)
    for layer in ("0", "3", "7"):
        found, truth = (uv.curvature(model, x, y, layer, "trace").value for model in (folded, net))
        torch.testing.assert_close(found, truth, rtol=near, atol=0)


def test_the_command_line_records_a_layer(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [
        "record", "--eps", "0.3", "--step-size", "0.1", "--steps", "2", "--limit", "6", "--no-controls",
        "--measures", "log_relative_sharpness@0,log_gini", "--out", str(out),
    ]  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-m", "uncannyvalley", *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    trajectory = uv.open_run(out).trajectory
    assert "log_relative_sharpness@0" in trajectory.measures
    from uncannyvalley import data, zoo

    images = data.load("digits")
    first = slice(0, int(trajectory.examples.max()) + 1)
    found = uv.curvature(zoo.demo(), images[first], images.labels[first], "0").log_value[trajectory.examples]
    np.testing.assert_allclose(trajectory.column("log_relative_sharpness@0")[:, 0], found, rtol=0, atol=1e-4)


# --- no side effects --------------------------------------------------------------------------------


CALLS = {
    "exact": ("conv_norm", lambda net, x, y: uv.curvature(net, x, y, "0")),
    "products": ("attention", lambda net, x, y: uv.curvature(net, x, y, "wide", "trace")),
    "estimate": ("gelu", lambda net, x, y: uv.curvature(net, x, y, "1", "trace", "estimate")),
    "third": ("conv_norm", lambda net, x, y: uv.curvature(net, x, y, "0", "third_order", "estimate")),
    "input": ("conv_norm", lambda net, x, y: uv.curvature(net, x, y, "input", "trace")),
    "along": ("gelu", lambda net, x, y: uv.directional_derivative(net, x, y, "1", torch.ones(4, 4), 3)),
    "record": ("gelu", lambda net, x, y: uv.record(net, x, y, attack(), steps=1, measures=["trace@all"])),
    "unknown layer": ("gelu", lambda net, x, y: uv.curvature(net, x, y, "7")),
    "bad labels": ("gelu", lambda net, x, y: uv.curvature(net, x, y + 3, "1")),
}


@pytest.mark.parametrize("call", CALLS)
def test_the_network_is_as_it_was(call: str) -> None:
    name, run = CALLS[call]
    net, (x, y) = network(name), images_for(name, 2)
    first = next(net.parameters())
    first.requires_grad_(False)
    first.grad = torch.ones_like(first)
    list(net.modules())[1].register_forward_hook(lambda *_: None)
    before, images = state_of(net), x.clone()
    with contextlib.suppress(uv.InputError):
        run(net, x, y)
    assert_same(before, state_of(net))
    assert torch.equal(x, images)


@pytest.mark.parametrize("wanted", [True, False])
def test_fused_attention_is_switched_back_on_after_success_and_failure(wanted: bool) -> None:
    usual = torch.backends.mha.get_fastpath_enabled()
    fused = (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())
    torch.backends.mha.set_fastpath_enabled(wanted)
    try:
        uv.curvature(network("encoder"), *images_for("encoder"), "block.linear1", "trace")
        assert torch.backends.mha.get_fastpath_enabled() is wanted
        net = ready(lambda: dense(F.hardsigmoid), SMALL)
        with pytest.raises(uv.InputError, match="no second derivative"):
            uv.curvature(net, image_batch(SMALL, 2), torch.tensor([0, 1]), "1", "trace")
        assert torch.backends.mha.get_fastpath_enabled() is wanted
        now = (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())
        assert now == fused
    finally:
        torch.backends.mha.set_fastpath_enabled(usual)


@pytest.mark.parametrize(
    "measured",
    [
        lambda net, x, y: uv.curvature(net, x, y, "1", "trace").value,
        lambda net, x, y: uv.directional_derivative(net, x, y, "1", torch.ones(4, 4), 3),
        lambda net, x, y: torch.tensor(
            uv.record(net, x, y, attack(), steps=1, measures=["trace@1"]).column("trace@1")
        ),
    ],
    ids=["curvature", "directional", "record"],
)
def test_measuring_without_gradients_leaves_them_off(measured: Callable[..., Tensor]) -> None:
    net, (x, y) = network("gelu"), images_for("gelu")
    usual = measured(net, x, y)
    with torch.no_grad():
        found = measured(net, x, y)
        assert not torch.is_grad_enabled()
    assert torch.equal(found, usual)
    assert not found.requires_grad
