"""What attacks by name end at: the images themselves, not the walk."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from uncannyvalley.cli.detecting.attack_choices import AttackChoice, request_of

if TYPE_CHECKING:
    from torch import Tensor

    from uncannyvalley.adversaries import Adversary
    from uncannyvalley.cli.detecting.attack_files import AttackFiles
    from uncannyvalley.detect.evaluation.progress import Advance, Progress
    from uncannyvalley.splitting import SplitModel
    from uncannyvalley.types import Attack
    from uncannyvalley.walking import MaskingGuard

STEPS = 20

PART = 50
"""Images that are attacked, and kept, together; libraries draw for a part as a whole. Fewer where a batch holds fewer."""

CONTROLS = tuple(AttackChoice(name, name) for name in ("noise", "assist"))


@dataclass(frozen=True)
class NamedAttack:
    """An attack that is ready to run, under the title that tables show."""

    title: str
    attack: "Attack | Adversary"
    steps: int
    seed: int

    @property
    def about(self) -> dict[str, Any]:
        """All that decides its images, beside the images and the network."""
        from uncannyvalley.types import Attack

        found = {"attack": self.attack.name, "settings": dict(self.attack.settings), "seed": self.seed}
        return found | (
            {"steps": self.steps} if isinstance(self.attack, Attack) else {"library": self.attack.library}
        )

    @property
    def radius(self) -> tuple[str, float] | None:
        """Norm and radius of the ball that it stays in, if any."""
        eps = self.attack.settings.get("eps")
        return (str(self.attack.settings["norm"]), float(eps)) if eps else None


def named_attacks(
    choices: Sequence[AttackChoice],
    model: "SplitModel",
    *,
    norm: str | None,
    eps: float | None,
    steps: int | None,
    seed: int,
) -> list[NamedAttack]:
    """The attacks with all their settings; InputError for any that cannot be made, before the first one runs."""
    from uncannyvalley.run.named_attack import make_attack

    requests = [request_of(one, norm=norm, eps=eps, steps=steps, seed=seed) for one in choices]
    return [
        NamedAttack(choice.title, make_attack(one, model), one.steps or STEPS, seed)
        for choice, one in zip(choices, requests, strict=True)
    ]


def attack_images(
    attacks: Sequence[NamedAttack],
    model: "SplitModel",
    x: "Tensor",
    y: "Tensor",
    *,
    batch_size: int,
    files: "AttackFiles | None" = None,
    progress: "Progress | None" = None,
) -> "dict[str, Tensor]":
    """Title → (n, …), the last image of each walk; from ``files`` where they hold it."""
    found = {}
    for one in attacks:
        advance = progress(one.title, len(x)) if progress else (lambda done: None)
        found[one.title] = ends_of(one, model, x, y, batch_size, advance, files)
    return found


def radii(attacks: Sequence[NamedAttack], norm: str | None) -> dict[str, float]:
    """Title → radius of the attacks that stay in a ball of that norm."""
    within = {one.title: one.radius for one in attacks}
    return {title: ball[1] for title, ball in within.items() if ball and ball[0] == (norm or "linf")}


def ends_of(
    attack: NamedAttack,
    model: "SplitModel",
    x: "Tensor",
    y: "Tensor",
    batch_size: int,
    advance: "Advance",
    files: "AttackFiles | None" = None,
) -> "Tensor":
    """(n, …) float32 on the CPU: where the attack leaves each image."""
    import torch

    from uncannyvalley.walking import MaskingGuard

    guard, size = MaskingGuard(len(x)), min(PART, batch_size)
    parts = []
    for first in range(0, len(x), size):
        images, classes = x[first : first + size], y[first : first + size]
        left = _Left(len(images), advance)
        make = partial(_made, attack, model, images, classes, first, left, guard)
        decided_by = {**attack.about, "first": first}
        ends, _ = files.images(attack.title, decided_by, images, classes, make) if files else make()
        parts.append(ends)
        left.finish()
    return torch.cat(parts)


class _Left:
    """The images of a part that are not yet told to be done; a share of the part counts as so many whole images."""

    def __init__(self, images: int, advance: "Advance") -> None:
        self._images, self._told, self._share, self._advance = images, 0, 0.0, advance

    def share(self, one: float) -> None:
        """So much of the part is done, of 1."""
        self._share += one
        self._tell(min(self._images, int(self._share * self._images + 1e-9)))

    def finish(self) -> None:
        self._tell(self._images)

    def _tell(self, done: int) -> None:
        self._advance(done - self._told)
        self._told = done


def _made(
    named: NamedAttack,
    model: "SplitModel",
    x: "Tensor",
    y: "Tensor",
    first: int,
    left: _Left,
    guard: "MaskingGuard",
) -> "tuple[Tensor, list[str]]":
    """The images that the attack ends at, and no remarks."""
    from uncannyvalley.types import Attack

    if isinstance(named.attack, Attack):
        end = _walked(named, model, x, y, first, left, guard)
    else:
        end = _of_library(named, model, x, y, first)
    return end.float().cpu(), []


def _walked(
    named: NamedAttack,
    model: "SplitModel",
    x: "Tensor",
    y: "Tensor",
    first: int,
    left: _Left,
    guard: "MaskingGuard",
) -> "Tensor":
    from uncannyvalley.probe import Prober
    from uncannyvalley.types import Attack
    from uncannyvalley.walking import Recording, walk

    attack, steps = named.attack, named.steps
    assert isinstance(attack, Attack)  # the caller has looked
    prober = Prober(model, x, y, None, attack.objective, aims=attack.targeted)
    last = prober.clean
    recording = Recording(steps, (), named.seed, every=steps)
    ids = list(range(first, first + len(x)))
    for _, probe in walk(prober, attack, recording, ids, masking=guard):
        last = probe.x
        left.share(1 / (recording.last_row(attack) + 1))
    return last.detach()


def _of_library(named: NamedAttack, model: "SplitModel", x: "Tensor", y: "Tensor", first: int) -> "Tensor":
    import numpy as np

    from uncannyvalley.adversaries import Adversary
    from uncannyvalley.watched_model import Joined

    assert isinstance(named.attack, Adversary)  # the caller has looked
    seed = int(np.random.SeedSequence([named.seed, first]).generate_state(1)[0])
    network = Joined(model, prepared=True).eval()
    return named.attack.run(network, model.place(x), y.to(model.device), seed).images
