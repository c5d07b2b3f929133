"""What an attack costs: images that pass through the network, and gradients that come back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from uncannyvalley.splitting import SplitModel


@dataclass
class Spent:
    """Images that the network saw, and images whose gradient it passed back: a batch of n counts n."""

    forwards: int = 0
    backwards: int = 0


@contextmanager
def metered(model: SplitModel) -> Iterator[Spent]:
    """Counts every pass through the network inside, whoever makes it: the walk, the detector's copies, a library.

    Passes that begin at an inner layer are not seen.
    """
    spent = Spent()

    def passed(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if not isinstance(output, Tensor):
            return
        count = len(output)
        spent.forwards += count
        if output.requires_grad:
            output.register_hook(lambda gradient: _add(spent, count))

    modules = {id(one): one for one in (model.module, model.plain)}
    hooks = [one.register_forward_hook(passed) for one in modules.values()]
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


def _add(spent: Spent, count: int) -> None:
    spent.backwards += count
