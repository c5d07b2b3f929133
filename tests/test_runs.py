"""Run folders: whole or not there, resumed where they stopped, never mixed up, the same whatever the batch size."""

import errno
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import uncannyvalley as uv
from full_disk import no_file_grows_beyond
from uncannyvalley import InputError, data, zoo
from uncannyvalley.run import recorder
from uncannyvalley.run.folder import open_run
from uncannyvalley.run.plan import Plan
from uncannyvalley.run.request import Request, make_work
from uncannyvalley.storing.locks import held
from uncannyvalley.study.recording import record_with_controls


@pytest.fixture
def request_() -> Request:
    return Request(eps=0.3, step_size=0.05, steps=4, limit=10, shard_examples=4, keep_images=3)


def run_it(request: Request, out: Path, **options):
    run, outcome = record_with_controls(request, out, **options)
    return run, outcome.recorded


def test_a_run_holds_plan_shards_images_controls_and_manifest(request_: Request, tmp_path: Path) -> None:
    run, recorded = run_it(request_, tmp_path / "run")
    assert recorded == 3 * 3
    names = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    shards = {f"shards/part-0000{number}.parquet" for number in range(3)}
    assert {"plan.toml", "manifest.json", "images/part-00000.parquet", *shards} <= names
    assert {f"controls/{name}/{shard}" for name in ("noise", "assist") for shard in shards} <= names
    assert not [name for name in names if name.endswith(".tmp")]
    trajectory = run.trajectory
    assert trajectory.column("log_relative_sharpness").shape == (10, 5)
    assert list(run.controls()) == ["noise", "assist"]
    assert trajectory.table.column_names[:7] == [
        "run", "example", "restart", "step", "label", "predicted", "adversarial"
    ]  # fmt: skip
    assert trajectory.table.column_names[7:9] == ["distance_linf", "distance_l2"]


def test_a_run_equals_record(request_: Request, tmp_path: Path) -> None:
    run, _ = run_it(request_, tmp_path / "run", controls=False)
    images = data.load("digits").first(10)
    direct = uv.record(
        zoo.demo(), images[:], images.labels, uv.attacks.pgd(eps=0.3, step_size=0.05), steps=4, batch_size=4
    )
    for name in direct.measures:
        np.testing.assert_array_equal(direct.column(name), run.trajectory.column(name), err_msg=name)


def test_the_same_command_on_a_finished_folder_does_nothing(request_: Request, tmp_path: Path) -> None:
    run, _ = run_it(request_, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (run.path / "shards").iterdir()}
    _, recorded = run_it(replace(request_, batch_size=2), tmp_path / "run")
    assert recorded == 0
    assert before == {path: path.stat().st_mtime_ns for path in (run.path / "shards").iterdir()}


def test_a_stopped_run_goes_on_to_the_same_table(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run_it(request_, tmp_path / "whole", controls=False)
    plain, calls = recorder.record_batch, iter(range(100))

    def stops(*args, **kwargs):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return plain(*args, **kwargs)

    monkeypatch.setattr(recorder, "record_batch", stops)
    with pytest.raises(KeyboardInterrupt):
        run_it(request_, tmp_path / "stopped", controls=False)
    left = open_run(tmp_path / "stopped")
    assert len(left.missing_shards()) == 1
    assert not list(left.path.rglob("*.tmp"))
    assert len(left.trajectory) == 8
    monkeypatch.undo()
    resumed, recorded = run_it(replace(request_, batch_size=2), tmp_path / "stopped", controls=False)
    assert recorded == 1
    for name in whole.trajectory.measures:
        np.testing.assert_allclose(
            resumed.trajectory.column(name), whole.trajectory.column(name), atol=1e-4, err_msg=name
        )


def test_a_new_folder_without_a_finished_shard_is_removed(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(recorder, "record_batch", stops)
    with pytest.raises(KeyboardInterrupt):
        run_it(request_, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_process_killed_in_a_shard_leaves_a_folder_that_resumes(tmp_path: Path) -> None:
    """SIGKILL, which nothing can catch, in the middle of the second shard."""
    code = """
    import os, signal
    from pathlib import Path
    from uncannyvalley.run import recorder
    from uncannyvalley.run.request import Request
    from uncannyvalley.study.recording import record_with_controls
    plain, calls = recorder.record_batch, iter(range(100))
    def dies(*args, **kwargs):
        if next(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*args, **kwargs)
    recorder.record_batch = dies
    request = Request(eps=0.3, step_size=0.05, steps=4, limit=10, shard_examples=4, keep_images=3, batch_size=2)
    record_with_controls(request, Path(%r), controls=False)
    """
    out = tmp_path / "run"
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code % str(out))], check=False)
    assert ended.returncode == -9
    assert list(out.rglob("*.tmp"))
    request = Request(
        eps=0.3, step_size=0.05, steps=4, limit=10, shard_examples=4, keep_images=3, batch_size=2
    )
    run, recorded = run_it(request, out, controls=False)
    assert recorded == 2
    assert not list(out.rglob("*.tmp"))
    undisturbed, _ = run_it(request, tmp_path / "undisturbed", controls=False)
    assert run.trajectory.table.equals(undisturbed.trajectory.table)


def test_another_run_or_anything_else_in_the_folder_is_refused(request_: Request, tmp_path: Path) -> None:
    run_it(request_, tmp_path / "run", controls=False)
    with pytest.raises(InputError, match=r"another run \(it differs in recording\.seed\).*--overwrite"):
        run_it(replace(request_, seed=1), tmp_path / "run")
    replaced, _ = run_it(replace(request_, seed=1), tmp_path / "run", overwrite=True, controls=False)
    assert replaced.plan.recording.seed == 1
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="holds no run"):
            run_it(request_, tmp_path / "thesis", overwrite=overwrite)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


def test_two_processes_do_not_share_a_folder(request_: Request, tmp_path: Path) -> None:
    run_it(request_, tmp_path / "run", controls=False)
    with held(tmp_path / "run"), pytest.raises(InputError, match="another process"):
        run_it(request_, tmp_path / "run")


def test_a_flipped_bit_is_noticed_and_mended(request_: Request, tmp_path: Path) -> None:
    run, _ = run_it(request_, tmp_path / "run", controls=False)
    shard = run.path / "shards" / "part-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"part-00001\.parquet is damaged"):
        _ = open_run(run.path).trajectory
    mended, recorded = run_it(request_, tmp_path / "run", controls=False)
    assert recorded == 1
    assert len(mended.trajectory) == 10


def test_edited_plans_and_folders_that_cannot_be_written(request_: Request, tmp_path: Path) -> None:
    run, _ = run_it(request_, tmp_path / "run", controls=False)
    plan = run.path / "plan.toml"
    plan.write_text(plan.read_text().replace("steps = 4", "steps = 5"))
    with pytest.raises(InputError, match="edited after the run"):
        open_run(run.path)
    plan.write_text("steps = ")
    with pytest.raises(InputError, match="cannot be read"):
        open_run(run.path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        run_it(request_, tmp_path / "file")
    with pytest.raises(InputError, match="cannot write"):
        run_it(request_, Path("/proc/run"))


def test_a_full_disk_leaves_nothing_half_written(request_: Request, tmp_path: Path) -> None:
    with no_file_grows_beyond(20_000), pytest.raises(InputError, match=os.strerror(errno.EFBIG)):
        run_it(replace(request_, steps=60, shard_examples=10), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_key_speaks_of_content_alone(request_: Request) -> None:
    plan, _ = make_work(request_)
    assert Plan.model_validate(plan.model_dump()).key == plan.key
    assert make_work(replace(request_, batch_size=3, shard_examples=7))[0].key == plan.key
    for change in (
        {"steps": 5},
        {"eps": 0.2},
        {"limit": 9},
        {"prepare": False},
        {"dtype": "float64"},
        {"every": 2},
    ):
        assert make_work(replace(request_, **change))[0].key != plan.key, change


def test_kept_images_are_the_phases_iterates(request_: Request, tmp_path: Path) -> None:
    request = replace(request_, keep_images=10, shard_examples=256, steps=8)
    run, _ = run_it(request, tmp_path / "run", controls=False)
    kept, found = run.images(), uv.phases(run.trajectory)
    assert set(kept) == set(range(10))
    model = uv.split(zoo.demo(), torch.rand(1, 1, 8, 8))
    sharpness = run.trajectory.column("log_relative_sharpness")
    for example in range(10):
        steps = {role: step for step, (roles, _) in kept[example].items() for role in roles}
        assert len(kept[example]) == (9 if example < 8 else len(set(steps.values())))
        assert steps["clean"] == 0
        assert steps["ridge"] == found.ridge_step[example]
        for role, column in (("flip", found.flip_step), ("valley", found.valley_step)):
            expected = column[example]
            assert steps.get(role) == (None if np.isnan(expected) else expected)
        pixels = torch.tensor(kept[example][steps["ridge"]][1])[None]
        label = torch.tensor([int(found.label[example])])
        again = uv.record(model, pixels, label, uv.attacks.noise(eps=0.1, step_size=0.1), steps=1)
        np.testing.assert_allclose(
            again.column("log_relative_sharpness")[0, 0], sharpness[example, steps["ridge"]], atol=1e-4
        )


@pytest.mark.parametrize("keep", ["logits", "features"])
def test_kept_logits_give_the_measures_again(keep: str, request_: Request, tmp_path: Path) -> None:
    run, _ = run_it(replace(request_, keep=keep), tmp_path / "run", controls=False)
    table = run.trajectory.table
    logits = np.array(table["logits"].to_pylist())
    np.testing.assert_array_equal(logits.argmax(axis=1), table["predicted"].to_numpy())
    norms = table["feature_norm"].to_numpy()
    if keep == "features":
        features = np.array(table["features"].to_pylist())
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), norms, rtol=1e-6)
    head = run.head()
    probe_kappa = [
        float(norm) ** 2 * float(np.cov(head.weight.double().numpy().T, aweights=p, bias=True).trace())
        for p, norm in zip(
            np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)), norms, strict=True
        )
    ]
    kappa = np.exp(table["log_relative_sharpness"].to_numpy())
    np.testing.assert_allclose(kappa, probe_kappa, rtol=1e-3)


def test_shards_carry_page_checksums(request_: Request, tmp_path: Path) -> None:
    run, _ = run_it(request_, tmp_path / "run", controls=False)
    shard = run.path / "shards" / "part-00000.parquet"
    assert pq.read_table(shard, page_checksum_verification=True).num_rows == 4 * 5
