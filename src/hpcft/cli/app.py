"""The `hpcft` command for typer. A verb's module is imported only when that verb is called, so help stays instant."""

from __future__ import annotations

import os
from typing import Any

import typer
from typer.core import CompletionItem, TyperGroup

from hpcft import __version__
from hpcft.cli.main import VERBS, verb_module
from hpcft.cli.texts import EXIT_CODES, ending


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
