"""A study as a Slurm job array: a batch script that submits itself, and that may be submitted again."""

import math
import shlex
from pathlib import Path

from uncannyvalley.checks import check_count
from uncannyvalley.study.plan_file.labels import safe

MARGIN = 2.0
"""Times the estimate: nodes differ, and a part that is out of time has to be submitted again."""

LEAST_SECONDS = 600
"""A job is given so much at least: it loads its network first."""

MOST_PARTS = 1000
"""The highest array number where a cluster keeps Slurm's default, MaxArraySize = 1001."""

_SCRIPT = """\
#!/usr/bin/env bash
# {parts} of a study as a Slurm job array, and after them a job that writes what is drawn from all. Submit it with
#
#     bash job.sh        # also with options for sbatch: bash job.sh --partition=NAME --account=NAME
#
# in the folder that the paths below start from. A part that was requeued goes on where it stopped; after a failure
# or the end of its time, submit the same script again: what is finished is kept.
#
#SBATCH --job-name={name}
#SBATCH --array=1-{count}
{time}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cpus}
{gpu}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={logs}/%A_%a.log
#
# Remove one # to switch a line on. To run eight parts at once and no more, end the line of --array with %8.
##SBATCH --partition=NAME
##SBATCH --account=NAME
##SBATCH --mem-per-cpu=4G
set -euo pipefail

plan={plan}
out={out}

if [[ -z "${{SLURM_ARRAY_TASK_ID:-}}" ]]; then
    # Not in a job yet. Slurm makes no folder for logs, and a job without it fails.
    mkdir -p {logs}
    array=$(sbatch --parsable "$@" "$0")
    array="${{array%%;*}}"
    # Number 0 starts when every part has ended well, and is cancelled when one has failed.
    last=$(sbatch --parsable "$@" --array=0 --dependency="afterok:$array" --kill-on-invalid-dep=yes "$0")
    echo "Job $array: {parts}. Job ${{last%%;*}}: figures and pages. Logs: {logs}"
    exit
fi

# Whatever makes uncanny known to the node:
# module load python
# source .venv/bin/activate

export OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"

if [[ "$SLURM_ARRAY_TASK_ID" == 0 ]]; then
    uncanny run "$plan" --out "$out"
else
    uncanny run "$plan" --out "$out" --part "$SLURM_ARRAY_TASK_ID/{count}"
fi
"""


def batch_script(
    plan: Path, out: str, parts: int, *, seconds: float | None, cpus: int = 1, on_gpu: bool = False
) -> str:
    """The script that runs the plan file ``plan`` into ``out`` in ``parts`` parts.

    seconds  of the longest part, as estimated; None leaves the time limit to whoever submits it
    cpus     for each part, and its threads       on_gpu  whether a part asks for a GPU

    Run by bash outside of Slurm it submits the array, and a last job that depends on it. Every other line is what a
    part does. Raises InputError for counts below 1.
    """
    check_count("parts", parts, 1)
    check_count("cpus", cpus, 1)
    name = safe(plan.stem) or "study"
    return _SCRIPT.format(
        parts="1 part" if parts == 1 else f"{parts} parts",
        count=parts,
        name=name,
        time="##SBATCH --time=01:00:00" if seconds is None else f"#SBATCH --time={time_limit(seconds)}",
        cpus=cpus,
        gpu=f"{'#' if on_gpu else '##'}SBATCH --gres=gpu:1",
        logs=f"logs/{name}",
        plan=shlex.quote(str(plan)),
        out=shlex.quote(out),
    )


def time_limit(seconds: float) -> str:
    """The time asked for as hh:mm:ss, in whole minutes: the estimate with its margin, and ten minutes at least."""
    minutes = math.ceil(max(LEAST_SECONDS, MARGIN * seconds) / 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"
