"""The report that the field asks of a detector: worst attack first, counts and intervals everywhere, baselines beside it."""

from uncannyvalley.detect.evaluation.evaluate import evaluate
from uncannyvalley.detect.evaluation.outcome import Evaluation
from uncannyvalley.detect.evaluation.supervised import SupervisedDetector
from uncannyvalley.detect.evaluation.together import fit_together

__all__ = ["Evaluation", "SupervisedDetector", "evaluate", "fit_together"]
