"""What only the page of an evaluation shows: attacks in full, classes, equal confidence, attacks seen and unseen, cost, claims."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from uncannyvalley.report.detectors.cells import area, gain, number, rate, whole
from uncannyvalley.report.detectors.evaluation_tables import worst_first
from uncannyvalley.report.detectors.section import ResultTable

if TYPE_CHECKING:
    from uncannyvalley.detect.evaluation.outcome import AttackOutcome, DetectorOutcome
    from uncannyvalley.detect.evaluation.rates import Rate
    from uncannyvalley.detect.evaluation.strata import Contrast

MATCHED = "bins"
"""Way of matching that the tables of contrasts show; the JSON file has all."""


def more_tables(
    outcome: "DetectorOutcome", class_names: tuple[str, ...], prevalence: float
) -> list[ResultTable]:
    """All that the results have something to say in."""
    tables = [_detail_table(outcome, prevalence), _class_table(outcome.by_class, class_names)]
    tables += [_contrast_table(outcome), _matched_gain_table(outcome)] if outcome.contrasts else []
    tables += [_seen_table(outcome)] if outcome.seen_unseen is not None else []
    tables += [_cost_table(outcome)] if outcome.cost.timings else []
    tables += [_claim_table(outcome)] if outcome.claims else []
    return [one for one in tables if one.rows]


def _detail_table(outcome: "DetectorOutcome", prevalence: float) -> ResultTable:
    rates = sorted({at for one in outcome.attacks.values() for at in one.empirical})

    def row(name: str, one: "AttackOutcome") -> list[str]:
        precise = one.precision
        share = number(100 * precise.value, 0)
        if math.isfinite(precise.value):
            share += f" [{number(100 * precise.low, 0)}, {number(100 * precise.high, 0)}]"
        return [
            name,
            area(one.auroc),
            *(rate(one.empirical[at]) for at in rates),
            rate(one.right_or_rejected),
            share,
        ]

    return ResultTable(
        "The same attacks in full: flagged % at rates read off the held-out images",
        ["attack", "AUROC", *(f"at {100 * at:.3g} %" for at in rates), "right or rejected %", "precise %"],
        [row(name, one) for name, one in worst_first(outcome)],
        "Thresholds with exactly these false-positive rates on the held-out clean images that are classified right: they compare detectors "
        "and promise nothing. Precise: share of the flags that are attacks at the promised threshold, where "
        f"{100 * prevalence:.3g} % of all images are attacked; its interval takes the far ends of both rates' intervals.",
    )  # fmt: skip


def _class_table(rates: Mapping[int, "Rate"], names: tuple[str, ...]) -> ResultTable:
    rows = [
        [names[which] if which < len(names) else f"class {which}", str(one.out_of), rate(one)]
        for which, one in rates.items()
    ]
    return ResultTable(
        "Clean images flagged, class by class",
        ["class", "classified right", "flagged %"],
        rows,
        "The promise is over all classes, not in each.",
    )


def _matched(outcome: "DetectorOutcome") -> "dict[str, dict[str, Contrast]]":
    """Attack → the other group → the contrast at equal confidence and norm, where there are pairs."""
    return {
        name: {one.against: one for one in outcome.contrasts[name] if one.method == MATCHED and one.pairs}
        for name, _ in worst_first(outcome)
    }


def _contrast_table(outcome: "DetectorOutcome") -> ResultTable:
    found = _matched(outcome)
    others = list(dict.fromkeys(against for one in found.values() for against in one))
    rows = [
        [
            name,
            *(f"{area(one[against].auroc)} ({100 * one[against].covered:.0f} %)" if against in one else "–" for against in others),
        ]
        for name, one in found.items()
    ]  # fmt: skip
    return ResultTable(
        "At equal confidence and norm: AUROC",
        ["attack", *(f"against {one}" for one in others)],
        rows if others else [],
        "Pairs of images in the same quantile bins of margin and log |φ|: what is left is no confidence in disguise. In brackets the "
        "share of the attack's images that have a partner.",
    )


def _matched_gain_table(outcome: "DetectorOutcome") -> ResultTable:
    found = {name: one["clean"].gains for name, one in _matched(outcome).items() if "clean" in one}
    others = list(next(iter(found.values()), {}))
    return ResultTable(
        "At equal confidence and norm: gain in AUROC over baselines",
        ["attack", *(f"over {one}" for one in others)],
        [[name, *(gain(gains[one]) for one in others)] for name, gains in found.items()] if others else [],
        "Against clean images.",
    )


def _seen_table(outcome: "DetectorOutcome") -> ResultTable:
    found = outcome.seen_unseen
    assert found is not None  # the caller has looked
    rows = [
        [seen, *(whole(one) for one in caught)] for seen, caught in zip(found.rows, found.caught, strict=True)
    ]
    false = [one.value for row in found.clean for one in row if one.out_of]
    return ResultTable(
        "A supervised variant: attacks seen (rows) and tested (columns), flagged %",
        ["seen", *found.columns],
        rows,
        "Logistic regression on the same columns; its threshold is conformal on clean images, of which it flags "
        f"{number(100 * sum(false) / len(false), 1) if false else '–'} % on average here. The detector of this page has seen no attack.",
    )


def _cost_table(outcome: "DetectorOutcome") -> ResultTable:
    rows = [
        [str(one.batch), f"{1e3 * one.plain:.3g}", f"{1e3 * one.decision:.3g}", f"{one.ratio:.2f}", f"{1e3 * one.elapsed:.3g}"]
        for one in outcome.cost.timings
    ]  # fmt: skip
    return ResultTable(
        "Cost of a decision",
        ["batch", "network, ms", "decision, ms", "ratio", "latency, ms"],
        rows,
        f"{outcome.cost.forwards} forwards and {outcome.cost.backwards} backwards a decision. Processor time of the whole batch, medians "
        "in turns with the network; latency is wall-clock time.",
    )


def _claim_table(outcome: "DetectorOutcome") -> ResultTable:
    rows = [
        [
            f"{one.eps:.4g}", ", ".join(one.attacks), rate(one.accuracy), f"{one.implied_eps:.4g}",
            "–" if one.known is None else f"{100 * one.known:.1f}",
            "not given" if one.known is None else "implausible" if one.implausible else "possible",
        ]
        for one in outcome.claims
    ]  # fmt: skip
    return ResultTable(
        "What the result would imply",
        ["eps", "attacks up to it", "right or rejected %", "robust at eps/2", "best known %", "that is"],
        rows,
        "Tramèr 2022, arXiv 2107.11630: a detector that is right or rejects at eps implies a classifier of that robust accuracy at eps/2. "
        "More than the best known (--known) says that stronger attacks are missing here, not that the detector is so good.",
    )
