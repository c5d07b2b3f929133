"""Random numbers that belong to an example: one stream for each (seed, id, restart, step).

The draw of an example therefore depends neither on its batch, nor on its neighbours, nor on the
order in which examples are walked, nor on which other draws were made before.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


class Streams:
    """Draws of one step for n examples; each row comes from its example's own stream.

    The streams are Philox counters (Salmon et al. 2011): key (seed, id), counter (·, step, restart, ·).
    """

    def __init__(self, seed: int, ids: Sequence[int], restart: int, step: int) -> None:
        self._keys = [[seed % 2**64, int(one) % 2**64] for one in ids]
        self._counter = [0, step, restart, 0]

    @cached_property
    def _generators(self) -> list[np.random.Generator]:
        """Made at the first draw: most steps of most attacks draw nothing."""
        return [np.random.Generator(np.random.Philox(key=key, counter=self._counter)) for key in self._keys]

    def _rows(self, draw: Callable[[np.random.Generator], np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack([draw(one) for one in self._generators]))

    def uniform(self, shape: torch.Size) -> Tensor:
        """Uniform on [0, 1), float32 (n, *shape), on the CPU."""
        return self._rows(lambda one: one.random(tuple(shape), dtype=np.float32))

    def normal(self, shape: torch.Size) -> Tensor:
        """Standard normal, float32 (n, *shape), on the CPU."""
        return self._rows(lambda one: one.standard_normal(tuple(shape), dtype=np.float32))

    def signs(self, shape: torch.Size) -> Tensor:
        """Fair −1 or +1, float32 (n, *shape), on the CPU."""
        bits = self._rows(lambda one: one.integers(0, 2, tuple(shape), dtype=np.int8))
        return 2.0 * bits.float() - 1.0
