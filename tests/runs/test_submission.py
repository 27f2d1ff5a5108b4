"""Who may submit a run, and what its journal says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.errors import ConfigError, TryAgainError
from hpcft.runs.paths import RunPaths
from hpcft.runs.submission import Journal, submissions, try_lock, withdrawn


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path)


def kinds(paths: RunPaths) -> list[tuple[int, str]]:
    return [(s.number, s.kind) for s in submissions(paths)]


def submit(paths: RunPaths, *records: str) -> str:
    with Journal(paths) as journal:
        key = journal.open_submission("k3f9x2m1qa")
        for kind in records:
            facts = {"run_id": "k3f9x2m1qa", "host": "login1"} if kind == "intent" else {}
            journal.note(kind, **facts, **({"job_id": "7"} if kind == "submitted" else {}))
    return key


def test_a_second_submission_has_a_key_of_its_own(paths: RunPaths) -> None:
    assert submit(paths, "intent", "sending", "refused") == "k3f9x2m1qa"
    assert submit(paths, "intent", "sending", "submitted") == "k3f9x2m1qa-2"
    assert kinds(paths) == [(1, "refused"), (2, "submitted")]
    assert submissions(paths)[1].job_id == "7"


@pytest.mark.parametrize("records", [(), ("intent",), ("intent", "sending"), ("intent", "sending", "unsure")])
def test_what_a_killed_client_left_open_is_not_submitted_again(paths: RunPaths, records: tuple[str, ...]) -> None:
    submit(paths, *records)
    with pytest.raises(TryAgainError, match="doctor --repair"):
        submit(paths, "intent")
    assert kinds(paths) == ([(1, records[-1])] if records else [])


@pytest.mark.parametrize(
    "error", [ConfigError("a path that a script cannot carry"), RuntimeError(), KeyboardInterrupt()]
)
@pytest.mark.parametrize(("records", "kind"), [(("intent",), "refused"), (("intent", "sending"), "sending")])
def test_an_error_before_anything_was_sent_leaves_no_submission_open(
    paths: RunPaths, records: tuple[str, ...], kind: str, error: BaseException
) -> None:
    with pytest.raises(type(error)), Journal(paths) as journal:  # noqa: PT012
        journal.open_submission("k")
        for record in records:
            journal.note(record)
        raise error
    assert kinds(paths) == [(1, kind)]


def test_two_clients_at_once_never_both(paths: RunPaths) -> None:
    with Journal(paths) as first, Journal(paths) as second:
        first.open_submission("k")
        # Before the first has written its intent, and after.
        for _ in range(2):
            with pytest.raises(TryAgainError, match="another hpcft"):
                second.open_submission("k")
            first.note("intent", run_id="k")


def test_the_lock_is_held_until_the_journal_is_closed(paths: RunPaths) -> None:
    with Journal(paths) as journal:
        journal.open_submission("k")
        with paths.submission(1).open() as other:
            assert try_lock(other.fileno()) is False
    with paths.submission(1).open() as other:
        assert try_lock(other.fileno()) is True


def test_a_client_that_was_given_up_sends_nothing_and_can_take_nothing_back(paths: RunPaths) -> None:
    with Journal(paths) as slow:
        slow.open_submission("k")
        slow.note("intent", run_id="k")
        with Journal(paths) as repair:
            repair.append("withdrawn", submission=1)
        with pytest.raises(TryAgainError):
            slow.note("sending")
        slow.append("submitted", submission=1, job_id="7")
    assert kinds(paths) == [(1, "withdrawn")]


def test_a_job_of_a_withdrawn_submission_is_known_by_its_name(paths: RunPaths) -> None:
    submit(paths, "intent", "sending", "withdrawn")
    assert withdrawn(paths, "größe.k3f9x2m1qa")
    submit(paths, "intent", "sending", "submitted")
    assert withdrawn(paths, "größe.k3f9x2m1qa")
    assert not withdrawn(paths, "größe.k3f9x2m1qa-2")
    assert not withdrawn(paths, "interactive")
    assert not withdrawn(paths, "")
