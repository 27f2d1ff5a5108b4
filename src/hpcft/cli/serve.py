"""`hpcft serve`: the pages and the REST service, for their user alone."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from contextlib import suppress
from pathlib import Path

import typer

from hpcft.cli.complete import clusters
from hpcft.cli.output import say
from hpcft.cli.texts import ending
from hpcft.errors import NotAllowedError, UsageError

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        ["hpcft serve --help", "hpcft serve --port 0 --read-only --help"],
        {
            0: "ended by Ctrl-C or a signal",
            2: "another service listens there",
            77: "the folder is open to others, or root",
        },
    )
)
def serve(
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    cluster: str | None = typer.Option(
        None, "--cluster", metavar="NAME", help="Profile of what is submitted.", autocompletion=clusters
    ),
    socket: Path | None = typer.Option(
        None, "--socket", metavar="FILE", help="Unix socket to listen on; else one in your runtime folder."
    ),
    port: int | None = typer.Option(
        None,
        "--port",
        min=0,
        max=65535,
        help="Listen on a port of this machine instead, 0 for a free one; with a token.",
    ),
    host_name: list[str] = typer.Option(
        [], "--host-name", metavar="NAME", help="A name that a proxy asks by, beside localhost; may be repeated."
    ),
    prefix: str = typer.Option("", "--prefix", metavar="/PATH", help="Where a proxy puts the service."),
    read_only: bool = typer.Option(False, "--read-only", help="Nothing is submitted or changed."),
    force: bool = typer.Option(False, "--force", help="Serve as root all the same."),
) -> None:
    """Serve pages and a REST API about jobs and experiments, for you alone: on a socket that only you can open, or on a
    port of this machine with a token. From elsewhere: ssh -L 8000:SOCKET HOST, then http://localhost:8000/."""
    import uvicorn

    from hpcft.web.app import create_app
    from hpcft.web.door import OwnUserProtocol, default_socket, open_port, open_socket
    from hpcft.web.guard import Access
    from hpcft.web.settings import Settings

    if os.geteuid() == 0 and not force:
        raise NotAllowedError(
            "everything that is asked would be done as root",
            where="hpcft serve",
            hint="use your own account, or --force",
        )
    if port is not None and socket is not None:
        raise UsageError("--socket and --port exclude each other", where="--port")
    if prefix and (not prefix.startswith("/") or prefix.endswith("/") or not prefix.isprintable()):
        raise UsageError("begins with a slash and does not end with one", where="--prefix")
    access = Access(hosts=host_name, token=None if port is None else secrets.token_urlsafe(24), read_only=read_only)
    path = socket or default_socket()
    listener = open_socket(path.absolute()) if port is None else open_port(port)
    config = uvicorn.Config(
        create_app(Settings(results.absolute(), cluster), access),
        http=OwnUserProtocol,
        ws="none",
        lifespan="off",
        root_path=prefix,
        log_level="warning",
        # The token is in the first address.
        access_log=False,
        server_header=False,
        # Nobody's word about who calls is taken.
        proxy_headers=False,
        timeout_keep_alive=30,
        # A stream of a run that goes on would hold up the end for as long.
        timeout_graceful_shutdown=3,
    )
    if port is None:
        say(f"serving {results} on {path.absolute()}; ssh -L 8000:{path.absolute()} leads there")
    else:
        say(f"serving {results} on http://127.0.0.1:{listener.getsockname()[1]}{prefix}/records?token={access.token}")
        say("the token opens it once, for one browser")
    # The server hands signals on when it has ended; they are then no reason to leave the socket behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        if port is None:
            path.absolute().unlink(missing_ok=True)
