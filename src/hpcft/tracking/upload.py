"""Bringing one run's wandb up to its record, in a process of its own: python -m hpcft.tracking.upload RUN [ended]

The record is replayed through wandb's client into the run of the same id, resumed, and only what the server lacks is
sent. Uploading the offline files by `wandb sync` was tried first and given up (wandb 0.31): a second sync, or one
after a sync that was killed, sends every line once more behind those that are there; the files of two attempts bring
the steps twice that both did; and a job that was killed has no file with its last points. The client that resumes
puts a line where the server's lines end, so that a line that is sent again after an error is still one line.

Only the machine's load stands in the offline files alone; it is taken from there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcft.errors import DataError, HpcftError, NotAllowedError, TryAgainError, UnavailableError
from hpcft.runs.files import make_private
from hpcft.runs.run import Run
from hpcft.tracking.client import (
    LOGIN,
    in_words,
    kill_service,
    model_artifact,
    quiet_settings,
    set_environment,
    use_own_step,
)
from hpcft.tracking.credentials import key_available, own_server
from hpcft.tracking.offline import OfflineRun, find_offline_runs, merge, read_offline
from hpcft.tracking.projection import Projection, fingerprint, identity, plain, project
from hpcft.tracking.synced import Synced, alone, log_bytes, read_synced, stamp, write_synced

_HTTP_TIMEOUT_S = 20
# Until the server shows what it was sent.
_SHOWN_S = 30.0
# wandb gives up after these, and what is missing is seen when the server is asked at the end.
_RETRIES = {
    "x_file_stream_retry_max": 4,
    "x_file_stream_retry_wait_min_seconds": 1.0,
    "x_file_stream_retry_wait_max_seconds": 5.0,
    "x_file_stream_timeout_seconds": 30.0,
    "x_graphql_retry_max": 4,
    "x_graphql_retry_wait_min_seconds": 1.0,
    "x_graphql_retry_wait_max_seconds": 5.0,
    "x_file_transfer_retry_max": 4,
    "x_file_transfer_retry_wait_min_seconds": 1.0,
    "x_file_transfer_retry_wait_max_seconds": 5.0,
}
# Whose errors are about the server. The numbers are HTTP's, and no port, time or part of a name.
_CLIENTS = frozenset(("wandb", "requests", "urllib3", "http", "ssl", "socket"))
_STATUS = r"(?<![\w.:/=-])(?:{})(?![\w/-])"
_DENIED = re.compile(
    _STATUS.format("401|403") + r"|\b(?:permission|unauthorized|api key|not logged in|authentication)\b", re.IGNORECASE
)
# It takes other runs: this one is malformed, was deleted there, or is too large.
_REFUSED = re.compile(_STATUS.format("400|409|413|422") + r"|^UsageError\b")


class LoginError(NotAllowedError):
    """No login, or one that the server does not take: as NotAllowedError, of all runs alike."""


@dataclass
class Sent:
    """What became of one run.

    Attributes:
        run: its name. url: of its page.
        points: of the record, as far as they can be sent now. sent: those that the server lacked.
        rescued: points that the job's own offline files lack.
        waiting: points that wait for the next checkpoint of a run that goes on.
        redone: points that the server has of steps that a later attempt did again.
        system: records of the machine's load that were sent.
        model: whether the model was sent now.
        complete: whether the run has ended and the server has all of it.
        note: what the user should know besides.
    """

    run: str
    url: str
    points: int
    sent: int = 0
    rescued: int = 0
    waiting: int = 0
    redone: int = 0
    system: int = 0
    model: bool = False
    complete: bool = False
    note: str = ""


def upload(run: Run, *, ended: bool) -> Sent:
    """Compare, send what is missing, and ask the server whether it has come.

    Args:
        run: the run.
        ended: whether no attempt can come any more.

    Raises:
        LoginError: there is no login. NotAllowedError: the run's folder cannot be written to.
        UnavailableError: the server cannot be reached.
        TryAgainError: the server does not show all yet, or another sync sends the run.
    """
    if not key_available():
        raise LoginError("no key for wandb is stored", hint="log in once with: wandb login")
    with alone(run):
        staging = run.paths.wandb / "sync"
        # Of a sync that was killed.
        shutil.rmtree(staging, ignore_errors=True)
        set_environment(make_private(staging / "wandb"), LOGIN, _HTTP_TIMEOUT_S)
        try:
            # What is written while it is read is for the next time.
            size = log_bytes(run)
            return _Upload(run, project(run, ended=ended), size).do()
        finally:
            shutil.rmtree(staging, ignore_errors=True)


class _Upload:
    def __init__(self, run: Run, projection: Projection, size: int) -> None:
        self._run = run
        self._it = projection
        self._size = size
        self._note = ""
        self._file = self._read_files()
        self._settings = dict(projection.settings)
        # A W&B agent may have put the run into another project than its job names.
        self._settings["project"] = self._file.project or self._settings["project"]
        self._settings["entity"] = self._file.entity or self._settings["entity"]

    def do(self) -> Sent:
        remote = self._ask()
        entity, project_name, run_id = self._place
        known = read_synced(self._run, own_server())
        if known is not None and (known.entity, known.project, known.run_id) != self._place:
            known = None
        missing, redone = self._missing(remote, known)
        system = self._file.system[self._system_there(remote, known) :]
        sends_model = self._sends_model(known)
        changed = remote is None or missing or system or sends_model or self._differs(remote)
        if changed:
            self._send(missing, system, sends_model)
            expected = (0 if remote is None else remote.historyLineCount) + len(missing)
            remote = self._await(expected)
            self._set_duration(remote)
        write_synced(
            self._run,
            Synced(
                server=own_server(),
                entity=entity,
                project=project_name,
                run_id=run_id,
                points=len(self._it.points),
                fingerprint=fingerprint(self._it.points),
                system=len(self._file.system),
                model=stamp(self._it),
                exit_code=self._it.exit_code,
                log_bytes=self._size,
                time=time.time(),
            ),
        )
        offline = Counter(identity(point) for point in self._file.history)
        return Sent(
            run=self._run.name,
            url=remote.url,
            points=len(self._it.points),
            sent=len(missing),
            rescued=(Counter(identity(point) for point in self._it.points) - offline).total(),
            waiting=self._it.waiting,
            redone=redone,
            system=len(system),
            model=sends_model,
            complete=self._it.exit_code is not None,
            note=self._note,
        )

    def _read_files(self) -> OfflineRun:
        """What the attempts' own files say; of the machine's load only what was not sent by the job itself."""
        run_id = self._it.settings["id"]
        fragments = []
        for path in find_offline_runs(self._run.paths.wandb).get(run_id, []):
            try:
                fragment = read_offline(path)
            except DataError as error:
                # All but the machine's load stands in the record.
                self._note = str(error)
                continue
            if not path.parent.name.startswith("offline-"):
                fragment.system = []
            fragments.append(fragment)
        return merge(fragments) if fragments else OfflineRun()

    def _ask(self) -> Any:
        """The run as the server has it; None when it has none."""
        import wandb
        from wandb.errors import CommError

        api = wandb.Api(timeout=_HTTP_TIMEOUT_S)
        self._settings["entity"] = self._settings["entity"] or api.default_entity
        self._place = (self._settings["entity"], self._settings["project"], self._settings["id"])
        try:
            return api.run("/".join(self._place))
        except (ValueError, CommError) as error:
            if "could not find" in str(error).lower():
                return None
            raise

    def _missing(self, remote: Any, known: Synced | None) -> tuple[list[dict[str, Any]], int]:
        """Points that the server lacks, and how many it has that are none of the record's."""
        points = self._it.points
        there = 0 if remote is None else int(remote.historyLineCount or 0)
        if there == 0:
            return points, 0
        if known is not None and known.points == there and known.is_prefix(self._it):
            return points[there:], 0
        rest = Counter(identity(row) for row in remote.scan_history(use_cache=False))
        missing = []
        for point in points:
            name = identity(point)
            if rest[name] > 0:
                rest[name] -= 1
            else:
                missing.append(point)
        return missing, rest.total()

    def _system_there(self, remote: Any, known: Synced | None) -> int:
        """How many records of the machine's load the server has already."""
        if remote is None or not self._file.system:
            return 0
        if known is not None:
            return known.system
        # A sync was cut off: what has come of these records are the first ones.
        rows = remote.history(stream="system", samples=100_000, pandas=False)
        begin = self._file.system[0].timestamp.ToMilliseconds() / 1000 - 0.001
        return sum(row.get("_timestamp", 0.0) >= begin for row in rows)

    def _sends_model(self, known: Synced | None) -> bool:
        if self._it.model is None or (known is not None and known.model == stamp(self._it)):
            return False
        # A job that was online to its end has sent it.
        told = list(self._run.events("tracking"))
        return not (told and told[-1].get("mode") == "online" and told[-1].get("finished"))

    def _differs(self, remote: Any) -> bool:
        """Whether configuration, final values or state are not what they should be."""
        config, summary = plain(self._it.settings["config"]), plain(self._it.summary)
        there = plain(remote.config), plain(dict(remote.summary))
        states = {None: ("running", "crashed"), 0: ("finished",)}.get(self._it.exit_code, ("failed",))
        return not (_within(config, there[0]) and _within(summary, there[1]) and remote.state in states)

    def _send(self, points: Sequence[dict[str, Any]], system: Sequence[Any], sends_model: bool) -> None:
        import wandb
        from wandb.errors import CommError

        settings = wandb.Settings(
            **quiet_settings(),
            **_RETRIES,
            # This machine's load is not the job's.
            x_disable_stats=True,
            # A run that goes on is not finished by what is sent of it.
            x_update_finish_state=self._it.exit_code is not None,
            init_timeout=60.0,
        )
        given = {**self._settings, "mode": "online", "dir": os.environ["WANDB_DIR"], "settings": settings}
        run = wandb.init(**given, resume="allow", reinit="create_new")
        use_own_step(run)
        # The client's own calls would put the time of this sync on every figure, so the record goes in below them.
        interface: Any = run._interface
        run._start_time = self._it.began
        interface.publish_run(run)
        for number, point in enumerate(points, run.starting_step):
            interface.publish_history(run, dict(point), step=number)
        for record in system:
            interface._publish(interface._make_record(stats=record))
        run.summary.update(self._it.summary)
        if sends_model and (model := self._it.model) is not None:
            artifact = run.log_artifact(model_artifact(model.folder, model.name, model.metadata))
            try:
                artifact.wait()
            except ValueError as error:
                # What wandb calls everything that keeps it from arriving.
                raise CommError(str(error)) from error
        run.finish(exit_code=self._it.exit_code or 0)

    def _await(self, expected: int) -> Any:
        """The run as the server has it, when it shows all that was sent.

        Raises:
            TryAgainError: it does not.
        """
        end, pause = time.monotonic() + _SHOWN_S, 0.2
        while True:
            remote = self._ask()
            there = 0 if remote is None else int(remote.historyLineCount or 0)
            if remote is not None and there >= expected and not self._differs(remote):
                return remote
            if time.monotonic() > end:
                what = f"{there} of {expected} points" if there < expected else "not all final values"
                raise TryAgainError(
                    f"wandb's server shows {what} of what it was sent",
                    where=self._run.name,
                    hint="what is missing is sent by the next: hpcft sync",
                )
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _set_duration(self, remote: Any) -> None:
        """wandb has counted the seconds of this sync; the run's own are shown in its tables."""
        if self._it.points:
            seconds = self._it.points[-1]["_runtime"]
            remote.summary.update({"_runtime": seconds, "_wandb": {"runtime": int(seconds)}})


def _within(values: dict[str, Any], there: dict[str, Any]) -> bool:
    return all(key in there and there[key] == value for key, value in values.items())


def explain(error: Exception) -> HpcftError:
    """What a failure means for the user: 69 and 77 are of the server and the login, which all runs share alike."""
    if isinstance(error, HpcftError):
        own = isinstance(error, NotAllowedError) and not isinstance(error, LoginError)
        return HpcftError(error.message, where=error.where, hint=error.hint) if own else error
    text = " ".join(in_words(error).split())[:300]
    if _of_server(error):
        if type(error).__name__ == "AuthenticationError" or _DENIED.search(text):
            return LoginError(f"wandb's server refuses: {text}", hint="check the login with: wandb login --verify")
        if not _REFUSED.search(text):
            hint = "nothing is lost: the same sync can be repeated"
            return UnavailableError(f"wandb's server cannot be used: {text}", hint=hint)
    return HpcftError(f"it cannot be sent: {text}")


def _of_server(error: Exception) -> bool:
    """Whether wandb's client or what lies below it says so; requests' errors are OSErrors, as a full disk is one."""
    kinds = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(kinds & _CLIENTS) or isinstance(error, ConnectionError | TimeoutError)


def main() -> int:
    """Send one run; print what became of it, or why nothing did, as one line of JSON."""
    os.umask(0o077)
    # Only what is printed at the end belongs to the reader.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    code = 0
    try:
        said = asdict(upload(Run(Path(sys.argv[1])), ended=sys.argv[2:] == ["ended"]))
    except Exception as error:
        told = explain(error)
        code = told.exit_code
        said = {"error": told.message, "where": told.where, "hint": told.hint, "code": code}
        # It may still be trying.
        kill_service()
    print(json.dumps(said), file=answer, flush=True)
    # wandb's service may hang, and holds the exit up.
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
