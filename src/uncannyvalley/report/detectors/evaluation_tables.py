"""What an evaluation says first, as texts: the headline and the tables that terminal and page share."""

import math
from typing import TYPE_CHECKING

from uncannyvalley.report.detectors.cells import gain, number, rate, short_area, whole
from uncannyvalley.report.detectors.section import ResultTable

if TYPE_CHECKING:
    from uncannyvalley.detect.evaluation.evaluate import Evaluation
    from uncannyvalley.detect.evaluation.outcome import AttackOutcome, DetectorOutcome, Flags

SHOWN_RATES = (0.05, 0.01)
"""False-positive rates at whose promised thresholds the table of attacks counts, beside the detector's own."""


def headline(outcome: "DetectorOutcome", prevalence: float) -> list[str]:
    """The result in three sentences: the worst attack, false positives, cost."""
    clean = outcome.clean
    rates = (
        f"Of held-out clean images {rate(clean.all)} % are flagged ({100 * outcome.fpr:.3g} % were promised); of those classified right "
        f"{rate(clean.right)} %."
    )
    return [_worst(outcome, prevalence), rates, _cost(outcome)]


def _worst(outcome: "DetectorOutcome", prevalence: float) -> str:
    if outcome.worst is None:
        return "No attack got enough images misclassified to be judged."
    worst, attacks = outcome.attacks[outcome.worst], len(outcome.attacks)
    which = f"The worst of {attacks} attacks is" if attacks > 1 else "The only attack is"
    flagged = f"{which} {outcome.worst}: {rate(worst.flagged)} % of its {worst.counted} successful images are flagged."
    if not math.isfinite(worst.precision.value):
        return flagged
    return (
        f"{flagged} Were {100 * prevalence:.3g} % of all images attacked like that, {100 * worst.precision.value:.0f} % of the flags "
        "would be right."
    )


def _cost(outcome: "DetectorOutcome") -> str:
    cost = outcome.cost
    passes = f"A decision takes {cost.forwards} forward{'s' if cost.forwards > 1 else ''} and {cost.backwards} backwards"
    times = [
        f"{_time(one.elapsed)} for {one.batch} image{'s' if one.batch > 1 else ''} ({one.ratio:.2f} times the network)"
        for one in cost.timings
    ]
    return f"{': '.join([passes, ', '.join(times)]) if times else passes}."


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def attack_table(outcome: "DetectorOutcome") -> ResultTable:
    """Attacks, the worst first, as narrow as a terminal."""
    own = f"flagged {100 * outcome.fpr:.3g} %"
    rates = [one for one in SHOWN_RATES if one != outcome.fpr]

    def row(name: str, one: "AttackOutcome") -> list[str]:
        return [
            name, f"{one.counted}/{one.tried}", whole(one.flagged), *(whole(one.promised.get(at)) for at in rates),
            short_area(one.auroc), number(100 * one.right_or_rejected.value, 0),
        ]  # fmt: skip

    return ResultTable(
        "Attacks, the worst first",
        ["attack", "counted", own, *(f"at {100 * at:.3g} %" for at in rates), "AUROC", "safe %"],
        [row(name, one) for name, one in worst_first(outcome)],
        "Counted: images classified right when clean and wrong when attacked, of those right when clean. Flagged: percent of these, "
        f"at thresholds that were fixed on the calibration images for false-positive rates of {100 * outcome.fpr:.3g} % and "
        f"{' and '.join(f'{100 * at:.3g} %' for at in rates)} (–: too few of them). Safe: right or rejected, of all images, failed "
        "attacks included. All intervals: 95 %.",
    )


def worst_first(outcome: "DetectorOutcome") -> "list[tuple[str, AttackOutcome]]":
    """Attacks in the order in which they get past the detector; those without any successful image last."""

    def place(item: "tuple[str, AttackOutcome]") -> float:
        return item[1].flagged.value if item[1].counted else math.inf

    return sorted(outcome.attacks.items(), key=place)


def rate_table(outcome: "DetectorOutcome") -> ResultTable:
    """What is flagged that is no attack."""
    rows: dict[str, "Flags"] = {"held-out clean images": outcome.clean, **outcome.shifts}
    rows |= {f"{name} (control)": one for name, one in outcome.controls.items()}
    return ResultTable(
        "Flagged although nobody attacks",
        ["images", "all %", "right %", "misclassified %"],
        [[name, rate(one.all), rate(one.right), whole(one.wrong)] for name, one in rows.items()],
        f"{100 * outcome.fpr:.3g} % were promised for all clean images like the calibration images; nothing for those classified right "
        "or wrong alone, nor for the others. Controls: walks in the same ball, of noise and up the confidence in the true class.",
    )


def comparison_table(found: "Evaluation") -> ResultTable:
    """Detectors side by side, the best worst case first."""
    rows = []
    for name, one in found.detectors.items():
        head = one.headline
        caught = head["worst_flagged"]
        rows.append(
            (
                -1.0 if caught is None else caught.value,
                [
                    name, head["worst_attack"] or "–", whole(caught), number(100 * head["mean_flagged"], 0),
                    number(head["mean_auroc"], 3), number(100 * one.clean.all.value, 1), f"{one.cost.forwards}+{one.cost.backwards}",
                ],
            )
        )  # fmt: skip
    return ResultTable(
        "Beside baselines",
        ["detector", "its worst", "flagged %", "mean", "AUROC", "false %", "passes"],
        [row for _, row in sorted(rows, key=lambda item: -item[0])],
        "Every baseline was fitted and calibrated on the same clean images. Flagged: of its own worst attack; mean and AUROC: over "
        "all attacks. False: of held-out clean images. Passes: forwards + backwards a decision.",
    )  # fmt: skip


def gain_table(outcome: "DetectorOutcome") -> ResultTable | None:
    """AUROC above that of log Gini and of all baselines together, attack by attack; None without these."""
    plain = {
        attack: one
        for attack, contrasts in outcome.contrasts.items()
        for one in contrasts
        if one.method == "all pairs" and one.against == "clean" and one.gains
    }
    others = list(next(iter(plain.values())).gains) if plain else []
    if not others:
        return None
    ordered = [(name, plain[name]) for name, _ in worst_first(outcome) if name in plain]
    return ResultTable(
        "Gain in AUROC over baselines",
        ["attack", *(f"over {one}" for one in others)],
        [[name, *(gain(one.gains[other]) for other in others)] for name, one in ordered],
        "Against held-out clean images; images resampled together, so that differences are paired. An interval above 0 is a gain.",
    )


def terminal_tables(found: "Evaluation", name: str) -> list[ResultTable]:
    """What is printed; the page shows these and more."""
    outcome = found.detectors[name]
    tables = [attack_table(outcome), rate_table(outcome)]
    if len(found.detectors) > 1:
        gains = gain_table(outcome)
        tables += [comparison_table(found), *([gains] if gains else [])]
    return tables


def shared_notes(found: "Evaluation") -> list[str]:
    """The notes, those that several detectors share said once."""
    names: dict[str, list[str]] = {}
    for note in found.notes:
        name, colon, rest = note.partition(": ")
        text, whose = (rest, name) if colon and name in found.detectors else (note, "")
        names.setdefault(text, []).append(whose)
    return [
        text if not any(whose) else f"{whose[0] if len(whose) == 1 else f'{len(whose)} detectors'}: {text}"
        for text, whose in names.items()
    ]
