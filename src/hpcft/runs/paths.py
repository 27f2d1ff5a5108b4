"""The names of everything in a run directory. No other module spells them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """A run directory.

    Who writes what: the client `config`, `client`, `provenance`, `script`, `code`; rank 0 of the newest attempt
    everything else; each rank its own `rank_log` and `monitor`.
    """

    root: Path

    @property
    def config(self) -> Path:
        """The job, whole, as it was submitted; a spec file that can be submitted again."""
        return self.root / "config.yaml"

    @property
    def client(self) -> Path:
        """Journal of the submitting side: intent, job id, what Slurm refused."""
        return self.root / "client.jsonl"

    def submission(self, number: int) -> Path:
        """Made exclusively by the client that submits the run for the n-th time, and locked while it does."""
        return self.root / f"submission.{number}"

    @property
    def provenance(self) -> Path:
        """Versions, git commit and change of the user's project, origin of each configured value."""
        return self.root / "provenance.json"

    @property
    def script(self) -> Path:
        """The batch script, as submitted."""
        return self.root / "job.sh"

    @property
    def code(self) -> Path:
        """Snapshot of the package, so that an edited checkout does not change a requeued attempt."""
        return self.root / "code"

    @property
    def batch_log(self) -> Path:
        """What the batch script and the ranks print (Slurm's --output, appended over attempts)."""
        return self.root / "job.log"

    @property
    def status(self) -> Path:
        """Heartbeat: state, step, loss; replaced atomically."""
        return self.root / "status.json"

    @property
    def end_early(self) -> Path:
        """Written by a sweep's controller: this trial is to keep what it has and end."""
        return self.root / "end_early"

    @property
    def retries(self) -> Path:
        """What the batch script decided after failed starts: again or not, and why. It alone writes it."""
        return self.root / "retries.jsonl"

    @property
    def done(self) -> Path:
        """The end marker: written last, after the artifacts were verified. Its presence is success."""
        return self.root / "done.json"

    @property
    def data_report(self) -> Path:
        """What a check of the data found, and its version."""
        return self.root / "data_report.json"

    @property
    def logs(self) -> Path:
        """System log and training progress in words."""
        return self.root / "logs.txt"

    @property
    def metrics(self) -> Path:
        """Summary metrics (the keys of wandb's summary)."""
        return self.root / "metrics.json"

    @property
    def evaluation(self) -> Path:
        """Scores of the last validation of the kept model."""
        return self.root / "evaluation_results.json"

    @property
    def benchmark(self) -> Path:
        """Latency, memory and FLOPs of the model in use, and the machine that they were measured on."""
        return self.root / "benchmark.json"

    @property
    def predictions(self) -> Path:
        """Inputs, references and predictions of that validation."""
        return self.root / "predictions.jsonl"

    @property
    def results_summary(self) -> Path:
        """Configuration, training loss and scores in one small file."""
        return self.root / "results_summary.json"

    @property
    def gradients(self) -> Path:
        """Gradient norms: `.group_norms.csv`, `.layer_norms.csv`, `.summary.json` and `.gradient_norms.json`, each
        behind this path."""
        return self.root / "gradient_analysis"

    @property
    def checkpoints(self) -> Path:
        """`checkpoint-N/`: best and last."""
        return self.root / "checkpoints"

    @property
    def student(self) -> Path:
        """A student as it was made, for attempts to begin with; removed at the end."""
        return self.root / "student"

    @property
    def lessons(self) -> Path:
        """What a teacher said of the training rows; removed at the end."""
        return self.root / "lessons"

    @property
    def final_model(self) -> Path:
        """The adapter or model that the run is for."""
        return self.root / "final_model"

    @property
    def wandb(self) -> Path:
        """wandb's own files."""
        return self.root / "wandb"

    @property
    def synced(self) -> Path:
        """What of the run is known to be in wandb; written by `hpcft sync` alone."""
        return self.wandb / "synced.json"

    @property
    def attempts(self) -> Path:
        """One folder an attempt: 1, 2, …"""
        return self.root / "attempts"

    def attempt(self, number: int) -> Path:
        """Folder of one attempt."""
        return self.attempts / str(number)

    def events(self, number: int) -> Path:
        """Event log of one attempt."""
        return self.attempt(number) / "events.jsonl"

    def holder(self, number: int) -> Path:
        """Which process holds an attempt."""
        return self.attempt(number) / "holder.json"

    def pulse(self, number: int) -> Path:
        """Touched every few seconds while an attempt lives, gone when it has ended by itself."""
        return self.attempt(number) / "pulse"

    def saving(self, number: int) -> Path:
        """Where an attempt writes its checkpoints until they are whole."""
        return self.checkpoints / f".saving-{number}"

    def rank_log(self, number: int, rank: int) -> Path:
        """Log of one rank of one attempt."""
        return self.attempt(number) / f"rank{rank}.log"

    def monitor(self, number: int, rank: int) -> Path:
        """What one rank of one attempt used, every few seconds."""
        return self.attempt(number) / f"monitor{rank}.jsonl"

    def attempt_numbers(self) -> list[int]:
        """Numbers of the attempts so far, ascending."""
        if not self.attempts.is_dir():
            return []
        return sorted(int(p.name) for p in self.attempts.iterdir() if p.name.isdecimal())
