"""The `hpcft` command. A verb's module is imported only when that verb is called, so help stays instant."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import Any

import typer
from typer.core import CompletionItem, TyperGroup

from hpcft import __version__
from hpcft.cli.texts import EXIT_CODES, ending
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


class _Verbs(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        return typer.main.get_command(verb_module(cmd_name).app)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """The verbs from their table, without loading one of them, and the options."""
        verbs = [CompletionItem(verb, help=text) for verb, text in VERBS.items() if verb.startswith(incomplete)]
        return verbs + super(TyperGroup, self).shell_complete(ctx, incomplete)

    def invoke(self, ctx: Any) -> Any:
        """Name our option where another tool's spelling of it was typed and no option is near."""
        try:
            return super().invoke(ctx)
        except typer.exceptions.TyperException as error:
            if getattr(error, "possibilities", ...) in (None, []):
                from hpcft.cli.job_options import flag_of
                from hpcft.spec.keys import nearest

                typed = getattr(error, "option_name", "")
                if key := nearest(typed.lstrip("-").replace("-", "_")):
                    # An option of other verbs: here its key has none.
                    flag = flag_of(key)
                    error.possibilities = [f"--set {key}=VALUE" if flag == typed else flag]  # type: ignore[attr-defined]
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, n=1)
            guess = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{args[0][:60]}'.{guess}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Verbs,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    help="Fine-tune language models on a Slurm cluster and know which way is worth its cost.",
    epilog=ending(
        [
            "hpcft submit --variant qlora --preset quickstart --cluster local --wait",
            "hpcft help submit",
        ],
        EXIT_CODES,
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"hpcft {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks of errors."),
) -> None:
    if debug:
        os.environ["HPCFT_DEBUG"] = "1"


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


def main() -> None:
    """Entry point: every error that a user can mend is text and an exit code, never a traceback."""
    os.umask(0o077)
    if COMPLETE in os.environ:
        from typer.completion import completion_init

        completion_init()
    try:
        app(args=_understood(sys.argv[1:]), prog_name="hpcft")
    except HpcftError as error:
        if os.environ.get("HPCFT_DEBUG"):
            traceback.print_exc()
        print(f"hpcft: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        # A disk that is full, a file that may not be read: where no verb has said it in words of its own.
        if os.environ.get("HPCFT_DEBUG"):
            traceback.print_exc()
        print(f"hpcft: {error}", file=sys.stderr)
        sys.exit(NotAllowedError.exit_code)
    except UnicodeEncodeError as error:
        print(f"hpcft: this terminal cannot show {error.object[error.start]!a}; set LC_ALL=C.UTF-8", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
