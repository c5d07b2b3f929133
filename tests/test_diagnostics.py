"""Each doubt fires where the method fails, and stays calm where it does not."""

import pytest
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from made import made
from uncannyvalley.analysis.diagnostics import Diagnostic


def doubts(
    net: nn.Module, x: Tensor, y: Tensor, *, eps: float = 0.3, step_size: float = 0.05, steps: int = 12
):
    walks = [
        uv.record(net, x, y, make(eps=eps, step_size=step_size), steps=steps)
        for make in (uv.attacks.pgd, uv.attacks.noise)
    ]
    found = uv.phases(walks[0], walks[1:], diagnostics=uv.diagnose(net, x, y)).diagnostics
    return {one.name: one for one in found}


@pytest.fixture
def labelled(small_net: nn.Module, small_images: tuple[Tensor, Tensor]) -> tuple[nn.Module, Tensor, Tensor]:
    """The small network with the labels it gives."""
    x = small_images[0]
    return small_net, x, small_net(x).argmax(dim=1)


def test_a_plain_network_raises_no_doubt(labelled: tuple[nn.Module, Tensor, Tensor]) -> None:
    found = doubts(*labelled)
    assert {one.name for one in found.values()} == {
        "flat to begin with", "explores too little", "zero gradients", "noise as strong as the attack",
        "loss not smooth",
    }  # fmt: skip
    assert not [one for one in found.values() if one.fired]


def test_a_flat_start(labelled: tuple[nn.Module, Tensor, Tensor]) -> None:
    """Logits a thousand times larger: every image is certain to float32."""
    net, x, y = labelled
    with torch.no_grad():
        net[-1].weight.mul_(1000)
        net[-1].bias.mul_(1000)
    assert doubts(net, x, y)["flat to begin with"].fired


def test_a_walk_that_is_too_short(labelled: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = labelled
    assert doubts(net, x, y, eps=1e-3, step_size=1e-4, steps=3)["explores too little"].fired


class Rounded(nn.Module):
    """Pixels rounded to a few levels; with a straight-through gradient on request."""

    def __init__(self, behind: nn.Module, straight_through: bool) -> None:
        super().__init__()
        self.behind, self.straight_through = behind, straight_through
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        rounded = (x * 15).round() / 15
        return self.behind(x + (rounded - x).detach() if self.straight_through else rounded)


def test_a_quantised_front_end_with_an_honest_looking_gradient(
    labelled: tuple[nn.Module, Tensor, Tensor],
) -> None:
    net, x, y = labelled
    found = doubts(Rounded(net, straight_through=True), x, y)
    assert found["loss not smooth"].fired
    assert found["loss not smooth"].figure == 1


def test_a_masked_gradient(labelled: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = labelled
    masked = Rounded(net, straight_through=False)
    assert uv.diagnose(masked, x, y)[0].fired
    walk = uv.record(masked, x, y, uv.attacks.noise(eps=0.3, step_size=0.05), steps=3)
    norms = walk.column("log_input_gradient_norm")[:, 0]
    assert (norms == -torch.inf).all()


def test_noise_that_flips_as_much_as_the_attack() -> None:
    attack = made([[0, 0, 0]] * 4, [[False, False, True], *[[False] * 3] * 3])
    noise = made([[0, 0, 0]] * 4, [[False, True, True]] * 2 + [[False] * 3] * 2, "noise")
    (found,) = [one for one in uv.phases(attack, [noise]).diagnostics if one.name.startswith("noise")]
    assert (found.figure, found.limit, found.fired) == (0.5, 0.25, True)
    (calm,) = [
        one for one in uv.phases(noise_as_attack(), [attack_as_noise()]).diagnostics if "noise" in one.name
    ]
    assert not calm.fired


def noise_as_attack():
    return made([[0, 0]] * 2, [[False, True]] * 2)


def attack_as_noise():
    return made([[0, 0]] * 2, [[False, True], [False, False]], "noise")


def test_a_diagnostic_says_what_it_means() -> None:
    text = str(Diagnostic("loss not smooth", 0.75, 0.5, True, "It has steps."))
    assert text == "loss not smooth: 0.75 (limit 0.50). It has steps."
