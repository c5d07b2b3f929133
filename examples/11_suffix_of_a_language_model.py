"""Example 11. Is there a ridge, or a valley, while a suffix is searched that makes a language model say something?

A real but tiny Llama (260 000 parameters, children's stories) is to continue short beginnings with a word of our choice.
GCG searches eight tokens to put between; beside it random substitutions, and a soft prompt that walks the same tokens'
embeddings through continuous space. Every step is recorded for every token of the target. Prints the share of targets that
became the greedy continuation and how log κ moved, and one suffix as text. It asks about *this* model: whether the valley
is weaker in language models than in image classifiers cannot be settled by one of this size. About 25 s on one core.

    python examples/11_suffix_of_a_language_model.py                        # the model in ../shared
    python examples/11_suffix_of_a_language_model.py --model hf-lm:ORG/NAME

Needs the extra: pip install 'uncannyvalley[hf]'.
"""

import numpy as np
from materials import COLOURS, in_shared, parser_of, quick, run, save
from matplotlib.figure import Figure

import uncannyvalley as uv
from uncannyvalley import llm

STEPS = quick(40, 8)
SUFFIX = "! ! ! ! ! ! ! !"
PROMPTS = (
    ("Once upon a time, there was a little", "boy"),
    ("Tom and Lily went to the", "zoo"),
    ("The cat sat on the", "ball"),
    ("She was very happy because she had a new", "dog"),
    ("One day, a big bear came to the", "house"),
    ("He looked up and saw a bright red", "bird"),
)[: quick(6, 3)]


def main() -> None:
    parser = parser_of(__doc__, shared=True)
    parser.add_argument("--model", help="a causal language model, such as hf-lm:ORG/NAME")
    given = parser.parse_args()
    name = given.model or f"hf-lm:{in_shared(given.shared, 'models/stories260k', '--model')}"
    model = llm.load_language_model(name, device="cpu")
    prompts = [llm.Prompt(goal, target) for goal, target in PROMPTS]
    attacks = [
        llm.gcg(search_width=quick(64, 24), topk=quick(64, 32)), llm.soft_prompt(step_size=0.1), llm.random_tokens(),
    ]  # fmt: skip
    walks = [llm.record(model, prompts, attack, steps=STEPS, suffix=SUFFIX) for attack in attacks]

    print(f"{len(prompts)} targets, {STEPS} steps: medians over prompts of the mean over a target's tokens")
    print(f"{'':15}{'greedy at some step':>20}{'loss, nats':>17}{'log κ':>17}{'height':>8}{'depth':>8}")
    for walk in walks:
        found, joined = (
            uv.phases(walk),
            walk.prompts(),
        )  # a flip: the target has become the greedy continuation
        loss, kappa = (np.median(joined.column(one), axis=0) for one in ("loss", "log_relative_sharpness"))
        print(f"{walk.attack:15}{np.isfinite(found.flip_step).mean():20.0%}{loss[0]:9.2f} → {loss[-1]:5.2f}"
              f"{kappa[0]:9.2f} → {kappa[-1]:5.2f}{np.median(found.ridge_height):8.2f}{np.median(found.depth):8.2f}")  # fmt: skip

    gcg = walks[0]
    best = int(np.argmin(gcg.prompts().column("loss")[0]))
    rows = gcg.table.to_pylist()
    suffix = next(row["suffix"] for row in rows if row["example"] == 0 and row["step"] == best)
    print(f"\nBest suffix of the first prompt, at step {best}: {PROMPTS[0][0]} {suffix!r} → {PROMPTS[0][1]}")
    save(drawn(walks), given.out, "11_suffix_of_a_language_model.png")


def drawn(walks: list[uv.Trajectory]) -> Figure:
    """Loss and log κ of every prompt, and their medians."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    names = {"loss": "loss of the target (nats)", "log_relative_sharpness": "log κ (nats)"}
    for axes, (measure, title) in zip(figure.subplots(1, 2), names.items(), strict=True):
        for walk, colour in zip(walks, ("pgd", "assist", "noise"), strict=True):
            values = walk.prompts().column(measure)
            axes.plot(values.T, color=COLOURS[colour], linewidth=0.6, alpha=0.3)
            axes.plot(np.median(values, axis=0), color=COLOURS[colour], linewidth=2, label=walk.attack)
        axes.set(xlabel="step", ylabel=title)
    figure.axes[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    run(main)
