"""The commands that mend a run, computed from its own job and from what was measured."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hpcft.cluster.explain.evidence import Line, Start
from hpcft.cluster.explain.scheduler import Facts
from hpcft.cluster.explain.verdict import Cause, Mend
from hpcft.cluster.slurm import call, parse_partition_values
from hpcft.errors import DataError, NotAllowedError
from hpcft.runs.events import read_log
from hpcft.runs.record import read_record
from hpcft.runs.run import Run, label
from hpcft.spec.types import format_time, parse_time

# So many finished runs are looked at for what they needed.
_LOOKED_AT = 300
# What gives a module, where that is known: a package of the module's own name may be anybody's.
_PACKAGES = {"PIL": "pillow", "cv2": "opencv-python-headless", "sklearn": "scikit-learn", "yaml": "pyyaml"}
_SAME = "accelerate bitsandbytes datasets deepspeed jinja2 numpy optuna pandas peft pydantic safetensors scipy"
_SAME += " sentencepiece submitit tokenizers torch transformers typer wandb"
_PACKAGES |= {name: name for name in _SAME.split()}


@dataclass(frozen=True)
class Case:
    """A failed run with all that is known of it."""

    run: Run
    facts: Facts
    start: Start
    line: Line | None
    # Inside a job nobody reads the commands that mend it.
    to_mend: bool = True

    def get(self, key: str, default: Any = None) -> Any:
        """A value of the run's own job, `training.seed` style."""
        value: Any = self.run.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return default if value is None else value

    def number(self, key: str, default: float) -> float:
        """The same, a number."""
        value = self.get(key, default)
        return float(value) if isinstance(value, int | float) else default

    @property
    def text(self) -> str:
        """The words of the evidence, its continuation too."""
        return "" if self.line is None else self.line.text + self.line.more

    def resume(self, *pairs: str) -> str:
        """The command that goes on with the run, from its newest checkpoint."""
        return _command("hpcft", "resume", run_word(self.run), *_sets(pairs))

    def again(self, *pairs: str) -> str:
        """The command that submits the same job anew, as another run."""
        return _command("hpcft", "submit", _shown(self.run.paths.config), *_sets(pairs))


def run_word(run: Run) -> str:
    """How the run is called on the command line from here: by its name where that finds it."""
    return label(run.paths.root, Path("results"))


def mends(cause: Cause, case: Case) -> tuple[Mend, ...]:
    """What mends a cause in this case, the best first."""
    make = _MENDS.get(cause) if case.to_mend else None
    return tuple(make(case)) if make is not None else ()


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _sets(pairs: tuple[str, ...]) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


def _command(*words: str) -> str:
    return shlex.join(words)


def _host_oom(case: Case) -> list[Mend]:
    found = []
    workers = int(case.number("training.dataloader_num_workers", 0))
    if workers and "DataLoader" in case.text + "shared memory" * ("shared memory" in case.text):
        found.append(
            Mend(case.again("training.dataloader_num_workers=0"), f"{workers} processes a rank read rows ahead")
        )
    ranks = int(case.number("resources.gpus_per_node", 1))
    have = case.number("resources.mem_gb", 0.0) or case.facts.asked_gb or 0.0
    peak = max((case.facts.peak_gb or 0.0) * ranks, measured_peak_gb(case.run) * ranks)
    wanted = math.ceil(max(have * 1.5, peak * 1.3))
    if not wanted:
        return found
    why = []
    if have:
        why.append(f"{have:.3g} GB a node were not enough")
    if peak:
        why.append(f"up to {peak:.3g} GB were seen in use")
    found.append(Mend(case.resume(f"resources.mem_gb={wanted}"), "; ".join(why)))
    if case.get("training.offload", "none") != "none":
        found.append(Mend(case.again("training.offload=none"), "the optimizer's states lie in the node's memory now"))
    return found


def measured_peak_gb(run: Run) -> float:
    """Most memory that a rank of a finished run beside this one needed, with the same model and variant; 0 when none
    was measured."""
    found, about = 0.0, read_record(run.paths.root).about
    finished = (f for f in run.paths.root.parent.iterdir() if f != run.paths.root and (f / "metrics.json").is_file())
    for folder in islice(finished, _LOOKED_AT):
        other = read_record(folder).about
        if any(other.get(key) != about.get(key) for key in ("model", "variant")):
            continue
        try:
            peak = Run(folder).metrics.get("train/peak_rss_gb")
            # The model's section whole is read where it counts alone: that takes a hundred times as long.
            if isinstance(peak, int | float) and peak > found:
                alike = Run(folder).config.get("model") == run.config.get("model")
                found = float(peak) if alike else found
        except (DataError, NotAllowedError):
            continue
    return found


def _gpu_oom(case: Case) -> list[Mend]:
    kind = case.get("kind", "train")
    if kind == "bench":
        sizes = [int(s) for s in case.get("bench.batch_sizes", [1])]
        less = [s for s in sizes if s < max(sizes)] or [1]
        return [Mend(case.again(f"bench.batch_sizes={less}"), f"without the batch of {max(sizes)}")]
    evaluates = kind == "evaluate" or re.search(r"evaluation_loop|validate\.py|in evaluate\b", _trace(case)) is not None
    if evaluates:
        rows = int(case.number("training.per_device_eval_batch_size", 8))
        if rows > 1:
            pair = f"training.per_device_eval_batch_size={rows // 2}"
            return [Mend(case.again(pair), f"it ran out while validating {rows} rows at once")]
        return [Mend(case.again("evaluation.max_new_tokens=32"), "it ran out while writing answers")]
    rows = int(case.number("training.per_device_train_batch_size", 4))
    steps = int(case.number("training.gradient_accumulation_steps", 4))
    found = []
    checkpointing = bool(case.get("training.gradient_checkpointing", False))
    if rows > 1:
        fewer = smaller_batch(rows, steps)
        pairs = [f"training.per_device_train_batch_size={fewer}"]
        pairs.append(f"training.gradient_accumulation_steps={rows * steps // fewer}")
        found.append(
            Mend(case.again(*pairs), f"half the rows at once or less, still {rows * steps} rows a step and rank")
        )
    if not checkpointing:
        pair = "training.gradient_checkpointing=true"
        found.append(Mend(case.again(pair), "activations are computed again instead of kept: less memory, more time"))
    if case.get("variant") == "lora":
        found.append(Mend(case.again("variant=qlora"), "the base model in 4 bits takes a quarter of the memory"))
    elif case.get("variant") == "full" and case.get("training.offload", "none") == "none":
        found.append(Mend(case.again("training.offload=optimizer"), "the optimizer's states go to the node's memory"))
    length = int(case.number("data.max_length", 128))
    if rows == 1 and length > 64:
        found.append(Mend(case.again(f"data.max_length={length // 2}"), f"rows of {length} tokens are cut at half"))
    return found[:3]


def smaller_batch(rows: int, steps: int) -> int:
    """Rows at once that are at most half as many and divide the rows of an optimizer step, so that these stay.

    >>> smaller_batch(8, 2), smaller_batch(3, 4), smaller_batch(7, 1)
    (4, 1, 1)
    """
    whole = rows * steps
    return next(n for n in range(rows // 2, 0, -1) if whole % n == 0)


def _trace(case: Case) -> str:
    """The traceback of the failure, as rank 0 recorded it."""
    if case.start.attempt is None:
        return ""
    records = read_log(case.run.paths.events(case.start.attempt)).records
    return next((str(r.get("traceback", "")) for r in reversed(records) if r.get("kind") == "failed"), "")


def _time_limit(case: Case) -> list[Mend]:
    step, total, seconds = progress(case.run)
    limit = str(case.get("resources.time", ""))
    try:
        limit_s = parse_time(limit) if limit else 0
    except ValueError:
        limit_s = 0
    if not step or not total or not seconds:
        wanted = format_time(_round_up(2 * limit_s)) if limit_s else ""
        why = f"no step was done within {limit}" if limit else "no step was done within the limit"
        return [Mend(case.resume(*([f"resources.time={wanted}"] if wanted else [])), why)]
    # Loading, validation and saving come on top.
    needed = _round_up(int((total - step) * seconds * 1.3) + 600)
    left = f"{total - step} of {total} steps are left, at {seconds:.3g} s a step"
    found = []
    if limit_s and needed > limit_s:
        found.append(Mend(case.resume(f"resources.time={format_time(needed)}"), left))
    else:
        found.append(Mend(case.resume(), f"goes on from its newest checkpoint; {left}"))
    warning = case.number("resources.signal_seconds", 120)
    if seconds * 2 > warning:
        pair = f"resources.signal_seconds={min(3600, _round_up(int(seconds * 4)))}"
        found.append(
            Mend(
                case.resume(pair), f"the warning came {warning:.0f} s before the end, and a step takes {seconds:.3g} s"
            )
        )
    return found


def progress(run: Run) -> tuple[int, int, float]:
    """Steps done, steps planned, and seconds of a step (the mean of the last twenty); 0 for what is not known."""
    status = run.status
    total = status.total_steps if status is not None else 0
    steps = list(run.events("step"))[-20:]
    times = [float(e["seconds"]) for e in steps if isinstance(e.get("seconds"), int | float)]
    done = int(steps[-1].get("step", 0)) if steps else 0
    return done, total, sum(times) / len(times) if times else 0.0


def _round_up(seconds: int, to: int = 300) -> int:
    return -(-seconds // to) * to


def _preempted(case: Case) -> list[Mend]:
    found = []
    if better := calmer_partition(case.get("resources.partition")):
        found.append(Mend(case.resume(f"resources.partition={better}"), "its jobs are not pushed out by other ones"))
    minutes = case.number("training.save_minutes", 10.0)
    if minutes > 2:
        pair = "training.save_minutes=2"
        found.append(Mend(case.again(pair), f"it saves every {minutes:g} minutes now, so little is lost at a time"))
    return found or [Mend(case.resume(), "goes on from its newest checkpoint")]


def calmer_partition(now: str | None) -> str | None:
    """A partition of this cluster that is up and whose jobs are not preempted, the default one first; None when the
    cluster has no other, or does not say.

    Args:
        now: the job's own; None for the default one.
    """
    answer = call(["scontrol", "show", "partition", "--oneliner"], timeout_s=10)
    found = []
    for name, shown in parse_partition_values(answer.out if answer.ok else "").items():
        default = shown.get("Default") == "YES"
        own = name == now or (now is None and default)
        if not own and shown.get("State") == "UP" and shown.get("PreemptMode") == "OFF":
            found.append((not default, name))
    return min(found, default=(True, None))[1]


def _no_step(case: Case) -> list[Mend]:
    limit = str(case.get("resources.time", ""))
    return [*_preempted(case)[:1], *_time_limit(case)[:1]] if limit else _preempted(case)


def _go_on(why: str) -> Callable[[Case], list[Mend]]:
    return lambda case: [Mend(case.resume(), why)]


def _disk(case: Case) -> list[Mend]:
    return [
        Mend(_command("du", "-sh", _shown(case.run.paths.root.parent)), "see what the runs take, and free some of it"),
        Mend(case.resume(), "then go on from the newest good checkpoint"),
    ]


def _offline(case: Case) -> list[Mend]:
    if "data.dataset" in case.text or "datasets" in case.text or "data set" in case.text:
        name, key = str(case.get("data.dataset", "")), "data.dataset"
    else:
        name, key = str(case.get("model.name", "")), "model.name"
    return [
        Mend(_command("hpcft", "fetch", _shown(case.run.paths.config)), f"where there is internet: {key} is {name}"),
        Mend(case.resume(), "then"),
    ]


def _import(case: Case) -> list[Mend]:
    python = _python(case.run)
    if missing := re.search(r"No module named '([\w.]+)'", case.text):
        package = missing[1].partition(".")[0]
        if package == "hpcft":
            return [Mend(_command("ls", _shown(case.run.paths.code)), "the run's own copy of hpcft is damaged")]
        if package not in _PACKAGES:
            return [Mend(case.resume(), f"after installing what {package} belongs to for {python}")]
        install = _command("uv", "pip", "install", "--python", python, _PACKAGES[package])
        return [Mend(install, f"{python} has no {package}"), Mend(case.resume(), "then")]
    if "execve" in case.text:
        return [Mend(_command("ls", "-l", python), "the interpreter that the profile names is not there on the node")]
    return [Mend(case.resume(), f"after mending the environment of {python}; does the profile load the right modules?")]


def _python(run: Run) -> str:
    """The interpreter that the batch script starts."""
    try:
        script = run.paths.script.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "python"
    found = re.search(r"^\s*(\S+) -P -m hpcft\.worker", script, re.MULTILINE)
    return found[1].strip("'\"") if found else "python"


def _config(case: Case) -> list[Mend]:
    key = re.search(r"failed(?: with exit code \d+)?: ([a-z_]+\.[a-z_]+): ", case.text)
    if key is None:
        return [Mend(case.again(), "after correcting what the message names")]
    if key[1] == "lora.target_modules" and case.get("lora.target_modules") is not None:
        names = ",".join(str(n) for n in case.get("lora.target_modules"))
        why = f"the model has no modules called {names}; without the list the group "
        return [Mend(case.again("lora.target_modules=null"), why + str(case.get("lora.target_module_group")))]
    was = case.get(key[1])
    return [Mend(case.again(f"{key[1]}=VALUE"), f"{key[1]} was {was}" if was is not None else f"set {key[1]}")]


def _data(case: Case) -> list[Mend]:
    return [Mend(case.again(), f"after correcting {case.get('data.dataset')} where the message says")]


# What adapters are commonly trained with, and whole models with less.
_USUAL_RATE = 2e-4


def _nan(case: Case) -> list[Mend]:
    rate = case.number("training.learning_rate", 2e-4)
    lower = min(rate / 10, _USUAL_RATE)
    pairs = [f"training.learning_rate={float(f'{lower:.2g}'):g}"]
    why = f"it was {rate:g}"
    if case.number("training.max_grad_norm", 1.0) == 0:
        pairs.append("training.max_grad_norm=1.0")
        why += ", and gradients are clipped"
    found = [Mend(case.again(*pairs), why)]
    if case.get("model.dtype") == "float16":
        found.insert(0, Mend(case.again("model.dtype=bfloat16"), "float16 overflows at 65504"))
    if case.number("training.warmup_steps", 10) == 0:
        found.append(Mend(case.again("training.warmup_steps=50"), "it starts at the full learning rate now"))
    return found


_MENDS: dict[Cause, Callable[[Case], list[Mend]]] = {
    Cause.HOST_OOM: _host_oom,
    Cause.GPU_OOM: _gpu_oom,
    Cause.COLLECTIVE_TIMEOUT: _go_on("goes on from its newest checkpoint"),
    Cause.KILLED: _go_on("goes on from its newest checkpoint"),
    Cause.TIME_LIMIT: _time_limit,
    Cause.PREEMPTED: _preempted,
    Cause.NO_STEP: _no_step,
    Cause.NODE_FAILURE: _go_on("goes on from its newest checkpoint, on other nodes"),
    Cause.NEVER_STARTED: _go_on("submits it again; of two jobs of a run only one runs, should the first come back"),
    Cause.PORT_IN_USE: _go_on("each job has another port"),
    Cause.DISK_FULL: _disk,
    Cause.NO_ACCESS: _go_on("after giving the job a folder that every node can write"),
    Cause.OFFLINE_DOWNLOAD: _offline,
    Cause.IMPORT_ERROR: _import,
    Cause.BAD_CONFIG: _config,
    Cause.BAD_DATA: _data,
    Cause.NAN_LOSS: _nan,
    Cause.CANCELLED: _go_on("goes on from its newest checkpoint"),
    Cause.STOPPED: _go_on("goes on from its newest checkpoint"),
    Cause.HANG: lambda case: [
        Mend(_command("hpcft", "requeue", run_word(case.run), "--now"), "starts it again from its newest checkpoint")
    ],
}
