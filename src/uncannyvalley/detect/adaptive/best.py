"""The best point of a search for each image: misclassified first, then the least suspicious."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Best:
    """What a search has found so far for n images, judged by the detector's own score.

    images         (n, …): the clean image until something is misclassified
    misclassified  bool (n,)
    suspicion      float64 (n,), inf until something is misclassified
    succeeded      bool (n,): misclassified and not flagged
    needed, flat   iterates at which the score had to fall, and those of them where its gradient was exactly zero
    """

    def __init__(self, clean: Float[Tensor, "n ..."], threshold: float) -> None:
        self.images = clean.detach().clone()
        self.misclassified = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        self.suspicion = torch.full((len(clean),), torch.inf, dtype=torch.float64, device=clean.device)
        self.threshold = threshold
        self.needed = 0
        self.flat = 0

    @property
    def succeeded(self) -> Bool[Tensor, "n"]:
        return self.misclassified & (self.suspicion <= self.threshold)

    def see(
        self,
        rows: Int[Tensor, "m"],
        x: Float[Tensor, "m ..."],
        misclassified: Bool[Tensor, "m"],
        suspicion: Float[Tensor, "m"],
    ) -> None:
        """Keep the points that are better than what is known of their images ``rows``, each named at most once."""
        better = misclassified & (suspicion < self.suspicion[rows])
        chosen = rows[better]
        self.images[chosen] = x[better].to(self.images)
        self.misclassified[chosen] = True
        self.suspicion[chosen] = suspicion[better].double()

    def take(self, rows: Int[Tensor, "m"], other: "Best") -> None:
        """Join the search ``other`` for some of the images, wherever it was made."""
        here = self.suspicion.device
        self.see(rows, other.images.to(here), other.misclassified.to(here), other.suspicion.to(here))
        self.count_gradients(other.needed, other.flat)

    def count_gradients(self, needed: int, flat: int) -> None:
        """Add to the iterates at which the score had to fall, and to those where it was flat."""
        self.needed += needed
        self.flat += flat
