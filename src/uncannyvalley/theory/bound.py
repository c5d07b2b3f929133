"""A number for each example that bounds something, and how far it can be trusted."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Side = Literal["upper", "lower"]
Status = Literal["certified", "estimated"]


@dataclass(frozen=True)
class Bound:
    """Bounds of one quantity, one an example, float64 on the CPU.

    value        the bounds, in the unit that the function which made them states
    side         "lower": the quantity is at least value; "upper": at most
    status       "certified": proved under the assumptions; "estimated": some ingredient was only sampled
    assumptions  what the statement rests on, one sentence each
    """

    value: Float[Tensor, "n"]
    side: Side
    status: Status
    assumptions: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", self.value.detach().to("cpu", torch.float64))

    def __len__(self) -> int:
        return len(self.value)

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """Side, status, median and range in a line, then the assumptions."""
        if len(self) == 0:
            return f"{self.status} {self.side} bounds of no examples"
        low, middle, high = (float(self.value.quantile(q)) for q in (0.0, 0.5, 1.0))
        first = (
            f"{self.status} {self.side} bounds of {len(self)} examples: "
            f"median {middle:.4g}, from {low:.4g} to {high:.4g}"
        )
        return "\n".join([first, *(f"  - {one}" for one in self.assumptions)])
