"""The entry of `hpcft`: a plain list of runs at once, everything else by typer, which takes longer to load."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from hpcft.errors import HpcftError, NotAllowedError

# verb → the line that `hpcft --help` shows. The module is `hpcft.cli.<verb>`, a hyphen being an underscore there.
VERBS = {
    "submit": "Render a job's batch script, submit it, and follow it with --wait.",
    "run": "Run the same job here and now; inside salloc, on the whole allocation.",
    "render": "Write a job's batch script without submitting it.",
    "doctor": "Will a job start here? Slurm, limits, space, caches, clocks, in red and green.",
    "fetch": "Bring a job's model, tokenizer, data and metrics into the cache, for nodes without internet.",
    "data": "Know the data: check it, clean it, analyze it, keep versions of it, compare two.",
    "fit": "Will it fit? Memory of each GPU and node, and the change that makes it fit.",
    "evaluate": "Score a model: a run's, an adapter, a folder, a hub id.",
    "merge": "Add an adapter's weights to its base model's.",
    "quantize": "Store a model in 8 or 4 bits, checked by its perplexity.",
    "pipeline": "Run jobs that work on each other's results.",
    "lab": "A PEFT method from set-up to deployment: train, score, measure, merge, with pictures.",
    "sweep": "Try a grid, random values or a search: many trials, few arrays of Slurm.",
    "bench": "Measure a model's latency, memory and FLOPs.",
    "sensitivity": "Measure gradient norms of attention, MLP and each layer; compare such runs.",
    "gradients-3d": "Draw a run's gradient norms over layers and steps in three dimensions.",
    "ls": "List runs, by state, any setting or metric, group, tag or age.",
    "stats": "How many runs there are, and what they came to.",
    "query": "Ask for any settings and metrics of runs; by group, their mean and spread.",
    "export": "Everything that is known of runs as a table: CSV, JSON, Parquet.",
    "tag": "Give runs tags and a note.",
    "efficiency": "What runs asked for and used, and what to ask for next time.",
    "show": "Show one run: state, attempts, scores, costs, files.",
    "status": "How runs are, a line each, with an exit code for scripts.",
    "watch": "A live table of runs: state, queue, step, loss, rate, time left.",
    "logs": "What a run has printed last, or -n 0 all of it; one rank, a past attempt; -f follows.",
    "cancel": "End the jobs of runs, or of a whole pipeline or sweep.",
    "requeue": "Put a running or ended job back into the queue.",
    "resume": "Go on with a run that has stopped, failed or was cancelled.",
    "explain": "Why a run failed, the line that says so, and the command that mends it.",
    "compare": "Runs side by side on the same inputs: are their differences sure?",
    "pareto": "Compare runs by several measures: which of them no other one beats.",
    "report": "One HTML file about runs: comparison, front, curves, costs, differences.",
    "sync": "Bring wandb up to what runs without network have recorded, once or while they go on.",
    "dashboard": "Put curves, comparison and Pareto front into wandb: a workspace view and a report.",
    "drill": "Disturb a small job as preemption and the time limit do, and say whether jobs survive here.",
    "serve": "Serve jobs and experiments over HTTP, on a socket that only you can open.",
    "config": "Show a job's configuration and where each value comes from.",
    "cluster": "List and show cluster profiles, or make one by asking Slurm.",
    "init": "Make a project of your own: a configuration, a profile, presets to edit.",
    "tools": "Install what needs an environment of its own, such as GPTQ.",
    "shell": "An interactive shell on a node, with a job's resources and environment.",
    "completion": "Completion of verbs, options, values and runs for bash, zsh and fish.",
    "reference": "Print the reference of all verbs, keys and variables, as a page or a man page.",
}


# Set by the shell's completion script.
COMPLETE = "_HPCFT_COMPLETE"


def verb_module(verb: str) -> Any:
    """The module of a verb."""
    return import_module(f"hpcft.cli.{verb.replace('-', '_')}")


def _understood(arguments: list[str]) -> list[str]:
    """`help VERB` is `VERB --help`; options with underscores, as other tools spell them, are the ones with hyphens."""
    if arguments[:1] == ["help"]:
        return [*arguments[1:], "--help"]
    result = list(arguments)
    for i, argument in enumerate(arguments):
        if argument == "--":
            break
        name, mark, value = argument.partition("=")
        if name.startswith("--") and "." not in name:
            result[i] = name.replace("_", "-") + mark + value
    return result


def _plain_list(arguments: list[str]) -> str | None:
    """The results folder of an `hpcft ls` without any other option."""
    if arguments[:1] != ["ls"] or len(arguments) not in (1, 3):
        return None
    if len(arguments) == 1:
        return "results"
    return arguments[2] if arguments[1] == "--results" and not arguments[2].startswith("-") else None


def _call(arguments: list[str]) -> None:
    if (results := _plain_list(arguments)) is not None:
        from pathlib import Path

        from hpcft.cli.listing import Filters, listing

        listing(Filters(Path(results), (), ()))
        return
    from hpcft.cli.app import app

    app(args=arguments, prog_name="hpcft")


def _trace() -> None:
    if os.environ.get("HPCFT_DEBUG"):
        import traceback

        traceback.print_exc()


def main() -> None:
    """Entry point: every error that a user can mend is text and an exit code, never a traceback."""
    os.umask(0o077)
    if COMPLETE in os.environ:
        from typer.completion import completion_init

        completion_init()
    try:
        _call(_understood(sys.argv[1:]))
    except HpcftError as error:
        _trace()
        print(f"hpcft: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        # A disk that is full, a file that may not be read: where no verb has said it in words of its own.
        _trace()
        print(f"hpcft: {error}", file=sys.stderr)
        sys.exit(NotAllowedError.exit_code)
    except UnicodeEncodeError as error:
        print(f"hpcft: this terminal cannot show {error.object[error.start]!a}; set LC_ALL=C.UTF-8", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
