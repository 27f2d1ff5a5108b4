"""The check that every training job makes of its data while its model is loaded, and the versions that it records."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

from hpcft.data.care.check import check
from hpcft.data.care.versions import record, version_of
from hpcft.data.sources import MADE, is_hub
from hpcft.errors import DataError, HpcftError
from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths
from hpcft.spec.identifiers import user_path
from hpcft.spec.job import DataSection, Job

log = logging.getLogger(__name__)

# A job waits for its check: near-duplicates take the most time, and of a stream nobody knows the end.
_NEAR_ROWS, _STREAMED_ROWS = 2_000, 100_000


def check_before_training(job: Job, paths: RunPaths) -> list[dict[str, Any]]:
    """Check a job's data, write `data_report.json` into its run directory, record the version of each set.

    Returns:
        A report for each set, with its `version`; none where the data cannot be read, which the job says itself.
    """
    # A set that this package makes says one thing in two or three ways, and has nothing to find.
    most = 0 if job.data.dataset in MADE and not job.data.mix else min(_NEAR_ROWS, job.checks.near_rows)
    rules = job.checks.model_copy(update={"near_rows": most})
    try:
        limit = _STREAMED_ROWS if job.data.streaming else None
        reports = check(job.data, rules, lang=job.lang, limit=limit)
    except HpcftError as error:
        log.warning("the data could not be checked: %s", error)
        return []
    for report in reports:
        source = source_of(report["dataset"], job.data)
        if report["partial"] and "path" in source:
            # Of a file that is read while training, all bytes tell its version.
            report["sha256"] = _of_bytes(Path(source["path"]))
        report["version"] = version_of(report["sha256"])
        try:
            record(_results(job, paths), report, source)
        except HpcftError as error:
            log.warning("the version of the data is not recorded beside the runs: %s", error)
    write_json(paths.data_report, reports)
    return reports


def tell(reports: list[dict[str, Any]], *, strict: bool) -> None:
    """Say in the log what was found.

    Raises:
        DataError: something of high priority was, and the job is strict.
    """
    for report in reports:
        told = [r for r in report["recommendations"] if r["priority"] != "low"]
        log.info("data %s: %d rows, version %s", report["dataset"], report["total_samples"], report["version"])
        for each in told:
            log.warning("data %s: %s", report["dataset"], each["text"])
    bad = [r for r in reports if not r["is_clean"]]
    if strict and bad:
        first = next(r["text"] for r in bad[0]["recommendations"] if r["priority"] == "high")
        raise DataError(
            f"is not fit to train on: {first}",
            where=str(bad[0]["dataset"]),
            hint="see hpcft data validate; checks.strict=false trains all the same",
        )


def source_of(dataset: str, data: DataSection) -> dict[str, Any]:
    """Where a set's rows are read: its name, and the file's whole path or the hub set's subset and revision."""
    if dataset in MADE:
        return {"dataset": dataset}
    if is_hub(dataset):
        return {"dataset": dataset, "subset": data.subset, "revision": data.revision}
    return {"dataset": dataset, "path": os.path.realpath(user_path(dataset))}


def _results(job: Job, paths: RunPaths) -> Path:
    """The results folder that a run directory is in, directly or in a pipeline's or sweep's folder."""
    name = Path(job.results).name
    return next((parent for parent in list(paths.root.parents)[:2] if parent.name == name), paths.root.parent)


def _of_bytes(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
