"""What runs are called, and what is said to have decided them, from their plans alone."""

from pathlib import Path
from typing import Any

from uncannyvalley.run.naming import decided, run_names, title_of
from uncannyvalley.run.plan import AttackPlan, DataPlan, ModelPlan, Plan, RecordingPlan

PLAN = Plan(
    model=ModelPlan(spec="demo", fingerprint="a" * 64, head="20", dtype="float32", prepared=True),
    data=DataPlan(spec="digits", examples=24, fingerprint="d" * 64),
    attack=AttackPlan(name="pgd", settings={"norm": "linf", "eps": 0.3, "step_size": 0.05, "random_start": False}),
    recording=RecordingPlan(
        steps=8, every=1, restarts=1, seed=0, keep_images=0, measures=dict.fromkeys(("loss", "margin", "entropy", "gap", "norm"), 1),
    ),
)  # fmt: skip


def changed(part: str, **settings: Any) -> Plan:
    return PLAN.model_copy(update={part: getattr(PLAN, part).model_copy(update=settings)})


WIDER = changed("attack", settings=PLAN.attack.settings | {"eps": 8 / 255})


def test_names_say_what_differs() -> None:
    plan, wider = PLAN, WIDER

    def named(*plans) -> list[str]:
        return run_names(plans, [Path(f"here/run{number}") for number in range(len(plans))])

    other = changed("model", spec="nets.py:build", arguments={"name": "wide"}, fingerprint="b")
    trained = changed("model", weights="nets/trained.pt", fingerprint="b")
    longer = changed("recording", steps=9, seed=4)
    assert named(plan, wider) == ["linf 0.3", "linf 8/255"]
    assert named(plan, other) == ["default", "wide"]
    assert named(plan, longer) == ["8 steps", "9 steps"]
    assert named(plan, trained) == ["no weights", "trained"]
    assert named(plan, plan) == ["run0", "run1"]
    assert named(plan, other, wider) == ["default, linf 0.3", "wide, linf 0.3", "default, linf 8/255"]
    assert named(plan, wider, wider) == ["linf 0.3, run0", "linf 8/255, run1", "linf 8/255, run2"]
    assert run_names([plan, plan], [Path("a/run"), Path("b/run")]) == ["a/run", "b/run"]


def test_what_decided_the_numbers_where_runs_differ() -> None:
    def beside(other: Plan) -> dict[str, dict[str, str]]:
        return decided({"plan": PLAN, "other": other})

    for same in (
        changed("recording", keep_images=9), changed("layout", shard_examples=3), changed("data", spec="parquet:a"),
        changed("model", spec="a.py:net", weights="a.pt"),
    ):  # fmt: skip
        assert beside(same) == {}
    assert beside(changed("recording", seed=4)) == {"recording.seed": {"plan": "0", "other": "4"}}
    assert beside(changed("data", spec="parquet:a", fingerprint="f" * 64)) == {
        "data.spec": {"plan": "digits", "other": "parquet:a"},
        "data.fingerprint": {"plan": "d" * 12, "other": "f" * 12},
    }
    more = changed("attack", settings=WIDER.attack.settings | {"more": True})
    assert beside(more) == {
        "attack.settings.eps": {"plan": "0.3", "other": "8/255"},
        "attack.settings.more": {"plan": "–", "other": "True"},
    }
    few = beside(changed("recording", measures={"margin": 1}))["recording.measures"]
    assert few["other"] == "margin 1"
    assert few["plan"].startswith(f"{len(PLAN.recording.measures)} (")


def test_titles_say_what_runs_share() -> None:
    square, elsewhere = (
        changed("attack", name="square"),
        changed("data", spec="parquet:far/away/test.parquet"),
    )
    assert title_of([PLAN, PLAN]) == "pgd on digits: 2 runs"
    assert title_of([PLAN, square, elsewhere]) == "pgd/square on away/test.parquet and digits: 3 runs"
    long = [changed("attack", name=letter * 30) for letter in "ab"]
    assert title_of(long) == "attacks on digits: 2 runs"
