"""The variant that has seen attacks, on the columns of one recipe: what it catches of an attack it saw, and of one it did not."""

from detection.bench import FPR, Bench
from uncannyvalley.detect.evaluation.supervised import SeenUnseen, seen_unseen
from uncannyvalley.detect.recipes import Recipe


def learned(bench: Bench, name: str, recipe: Recipe) -> SeenUnseen | None:
    """Printed: share caught of each attack, and the false positives beside it; None where images are too few."""
    count = min(len(one) for one in bench.attacks.values())
    pushed = {
        attack: (bench.rows(recipe, one)[0], bench.counted(attack)) for attack, one in bench.attacks.items()
    }
    clean = bench.rows(recipe, bench.test)[0][:count]
    table = seen_unseen(clean, bench.right[:count], pushed, fpr=FPR)
    if table is None:
        return None
    print(f"\nlearned from attacks, columns of {name}: TPR (false positives) of a detector that saw")
    print(f"{'attack':14}{'images':>7}{'all others':>16}{'this one alone':>16}")
    for place, attack in enumerate(table.columns):
        rows = [0] + ([table.rows.index(attack)] if attack in table.rows else [])
        cells = [
            f"{table.caught[row][place].value:.3f} ({table.clean[row][place].value:.3f})" for row in rows
        ]
        images = table.caught[0][place].out_of
        print(f"{attack:14}{images:>7}" + "".join(f"{one:>16}" for one in cells), flush=True)
    return table
