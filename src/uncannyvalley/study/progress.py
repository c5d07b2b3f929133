"""How far a study came: shards done and failed, and how fast they were made."""

from collections.abc import Mapping
from dataclasses import dataclass

from uncannyvalley.run.plan import shard_name
from uncannyvalley.study.folder import StudyRun


@dataclass(frozen=True)
class RunProgress:
    """Of one run with its controls: shards in all, done, failed; examples done and the seconds they took a worker.

    errors  shard → what went wrong
    """

    labels: Mapping[str, str]
    shards: int
    done: int
    errors: Mapping[str, str]
    examples: int
    seconds: float

    @property
    def state(self) -> str:
        """complete, failed (nothing is left but failures), unfinished or not begun."""
        if self.done == self.shards:
            return "complete"
        if self.done + len(self.errors) == self.shards:
            return "failed"
        return "unfinished" if self.done else "not begun"

    @property
    def rate(self) -> float | None:
        """Examples a second of one worker; None where no shard was timed."""
        return self.examples / self.seconds if self.seconds else None


def progress_of(one: StudyRun) -> RunProgress:
    """Counted by the files that are there, and not read: ``verify`` does that."""
    shards = done = examples = 0
    seconds = 0.0
    errors: dict[str, str] = {}
    for run in (one.run, *one.run.control_folders().values()):
        shards += run.plan.shard_count
        for block in range(run.blocks):
            listed = run.manifest(block)
            done += sum(run.shard(number).exists() for number in run.numbers(block))
            errors |= {
                f"{run.path}/shards/{name}": failure["error"] for name, failure in listed.failed.items()
            }
            for number in run.numbers(block):
                entry = listed.shards.get(shard_name(number))
                if entry is not None and entry["seconds"]:
                    rows = run.plan.shard_rows(number)
                    seconds, examples = seconds + entry["seconds"], examples + rows.stop - rows.start
    return RunProgress(one.labels, shards, done, errors, examples, seconds)
