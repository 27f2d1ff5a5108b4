"""What a wandb server keeps, and its answers to the GraphQL that the real clients send.

The clients are wandb 0.31 (runs, files, artifacts, sweeps, `wandb sync`, `wandb.Api`) and wandb-workspaces 0.4 (views).
Runs are known by their id alone, so a test that needs two entities or projects gives their runs different ids.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from fakes.wandb_sweeps import SweepAnswers

ENTITY = "lab"


@dataclass
class RemoteRun:
    """One run, as the server knows it.

    Attributes:
        fields: what the client sent with the run: `displayName`, `jobType`, `project`, `tags`, `notes`, ...
        config: key → `{"value": …}`, as the client sends it.
        history, events: points by line number; events are those of the machine.
        files: names of files that were announced.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def state(self) -> str:
        """`running`, `finished` or `failed`."""
        if self.exit_code is None:
            return "running"
        return "finished" if self.exit_code == 0 else "failed"

    @property
    def last_step(self) -> int:
        """The highest of wandb's own steps; -1 before the first point."""
        return max((row["_step"] for row in self.history.values()), default=-1)

    def points(self) -> list[dict[str, Any]]:
        """The history without wandb's own keys, in order."""
        rows = (self.history[n] for n in sorted(self.history))
        return [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]


@dataclass
class RemoteArtifact:
    """One version of an artifact: name, type, metadata, checksum and the bytes of its files by path."""

    name: str
    type: str
    metadata: dict[str, Any]
    digest: str
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


@dataclass
class RemoteView:
    """A saved view of a project's workspace (type `project-view`) or a report (type `runs`).

    Attributes:
        saved: how often it was written.
    """

    id: str
    project: str
    type: str
    name: str
    display_name: str
    description: str
    spec: dict[str, Any]
    saved: int = 1


class Answers(SweepAnswers):
    """The server's data and a method for each GraphQL operation that it knows.

    Attributes:
        unknown: operations that were asked for and are not played here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, RemoteRun] = {}
        self.artifacts: list[RemoteArtifact] = []
        self.views: dict[str, RemoteView] = {}
        self.projects: list[str] = []
        self.unknown: list[str] = []
        self._uploads: dict[str, tuple[RemoteArtifact, str]] = {}

    @property
    def url(self) -> str:
        """Where the server listens."""
        raise NotImplementedError

    def graphql(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """The `data` that an operation is answered with."""
        play = getattr(self, f"_on_{operation}", None)
        if play is None:
            self.unknown.append(operation)
            return {}
        answer: dict[str, Any] = play(given)
        return answer

    def _on_ServerFeaturesQuery(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _on_Viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        viewer = {"id": "u1", "entity": ENTITY, "username": "tester", "email": "", "flags": "{}"}
        return {"viewer": viewer | {"teams": {"edges": []}}}

    def _on_GetDefaultEntity(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "u1", "entity": ENTITY}}

    # Runs

    def _on_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        bucket = None
        if run is not None:
            last = [json.dumps(run.history[max(run.history)])] if run.history else []
            bucket = {
                "id": given["name"],
                "name": given["name"],
                "summaryMetrics": json.dumps(run.summary),
                "displayName": run.fields.get("displayName"),
                "logLineCount": 0,
                "historyLineCount": len(run.history),
                "eventsLineCount": len(run.events),
                "historyTail": json.dumps(last),
                "eventsTail": "[]",
                "config": json.dumps(run.config),
                "tags": run.fields.get("tags") or [],
                "notes": run.fields.get("notes"),
                "wandbConfig": json.dumps({"t": 1}),
            }
        return {"model": _project(given.get("project")) | {"bucket": bucket}}

    def _on_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given.get("name") or given["id"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, RemoteRun())
        run.fields |= {k: v for k, v in given.items() if v is not None}
        run.config |= json.loads(given.get("config") or "{}")
        if given.get("summaryMetrics"):
            run.summary = json.loads(given["summaryMetrics"])
        project = run.fields.get("project")
        if project and project not in self.projects:
            self.projects.append(project)
        bucket = {
            "id": name,
            "name": name,
            "displayName": run.fields.get("displayName", name),
            "description": None,
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": _project(project),
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _on_Run(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        if given["project"] not in self.projects:
            return {"project": None}
        if run is None or run.fields.get("project") != given["project"]:
            return {"project": {"run": None}}
        found = {
            "projectId": "1",
            "id": given["name"],
            "name": given["name"],
            "displayName": run.fields.get("displayName"),
            "tags": run.fields.get("tags") or [],
            "sweepName": None,
            "state": run.state,
            "config": json.dumps(run.config),
            "group": run.fields.get("groupName"),
            "jobType": run.fields.get("jobType"),
            "commit": None,
            "readOnly": False,
            "createdAt": "2026-01-01T00:00:00",
            "heartbeatAt": "2026-01-01T00:00:00",
            "description": "",
            "notes": run.fields.get("notes"),
            "systemMetrics": "{}",
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.history),
            "user": {"name": "tester", "username": "tester"},
            "historyKeys": {"lastStep": run.last_step, "sets": [], "keys": {}},
        }
        return {"project": {"run": found}}

    def _on_RunHistoryKeys(self, given: dict[str, Any]) -> dict[str, Any]:
        keys = {"lastStep": self.runs[given["name"]].last_step, "sets": [], "keys": {}}
        return {"project": {"run": {"historyKeys": keys}}}

    def _on_RunParquetHistory(self, given: dict[str, Any]) -> dict[str, Any]:
        # A server keeps rows as they came for a while before it packs them; here it never does.
        rows = list(self.runs[given["runName"]].history.values())
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": rows}}}}

    def _on_HistoryPage(self, given: dict[str, Any]) -> dict[str, Any]:
        rows = self.runs[given["run"]].history.values()
        page = [json.dumps(row) for row in rows if given["minStep"] <= row["_step"] < given["maxStep"]]
        return {"project": {"run": {"history": page}}}

    def _on_RunFullHistory(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[given["name"]]
        return {
            "project": {
                "run": {
                    "history": [json.dumps(row) for row in run.history.values()],
                    "events": [json.dumps(row) for row in run.events.values()],
                }
            }
        }

    def _on_RunStoppedStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"run": {"stopped": False}}}

    def _on_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["run"] in self.runs:
            self.runs[given["run"]].files += given["files"]
        files = [{"name": name, "uploadUrl": f"{self.url}/ignored"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    # Projects, views and reports

    def _on_GetProjects(self, given: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            {
                "__typename": "Project",
                "id": f"p{number}",
                "name": name,
                "entityName": given["entity"],
                "createdAt": "2026-01-01T00:00:00",
                "isBenchmark": False,
                "user": None,
            }
            for number, name in enumerate(self.projects)
        ]
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"pageInfo": page, "edges": [{"node": node} for node in nodes]}}

    def _on_ProjectInternalId(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"id": "p1", "internalId": "1"}}

    def _on_ProjectViews(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["project"] not in self.projects:
            return {"project": None}
        begin = int(given.get("reportCursor") or 0)
        end = begin + given["reportLimit"]
        views = self._views(given["project"], given.get("viewType", "runs"), given.get("viewName"))
        edges = [
            {"node": _node(view), "cursor": str(number)} for number, view in enumerate(views[begin:end], begin + 1)
        ]
        page = {"endCursor": str(end), "hasNextPage": end < len(views)}
        return {"project": {"allViews": {"edges": edges, "pageInfo": page}}}

    def _views(self, project: str, kind: str, name: str | None) -> list[RemoteView]:
        return [
            view
            for view in self.views.values()
            if (view.project, view.type) == (project, kind) and name in (None, view.name)
        ]

    def _on_upsertView(self, given: dict[str, Any]) -> dict[str, Any]:
        number = given.get("id") or f"view{len(self.views) + 1}"
        old = self.views.get(number)
        self.views[number] = view = RemoteView(
            id=number,
            project=given["projectName"],
            type=given["type"],
            name=given["name"],
            display_name=given["displayName"],
            description=given["description"],
            spec=json.loads(given["spec"]),
            saved=old.saved + 1 if old else 1,
        )
        return {"upsertView": {"view": _node(view), "inserted": old is None}}

    _on_UpsertView2 = _on_upsertView

    # Artifacts

    def _on_ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _on_CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        wanted = given["input"]
        artifact = RemoteArtifact(
            wanted["artifactCollectionName"],
            wanted["artifactTypeName"],
            json.loads(wanted.get("metadata") or "{}"),
            wanted["digest"],
        )
        sequence: dict[str, Any] = {"id": "c1", "name": artifact.name, "latestArtifact": None}
        for number, old in enumerate(self.artifacts):
            if (old.name, old.digest, old.committed) == (artifact.name, artifact.digest, True):
                # The same content makes no new version.
                sequence["latestArtifact"] = {"id": str(number)}
                made = {"id": str(number), "state": "COMMITTED", "artifactSequence": sequence}
                return {"createArtifact": {"artifact": made}}
        self.artifacts.append(artifact)
        made = {"id": str(len(self.artifacts) - 1), "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": made}}

    def _on_ArtifactByID(self, given: dict[str, Any]) -> dict[str, Any]:
        artifact = self.artifacts[int(given["id"])]
        project = {"id": "p1", "internalId": "1", "name": "project", "entity": {"name": ENTITY}}
        node = {
            "__typename": "Artifact",
            "id": given["id"],
            "artifactSequence": {"__typename": "ArtifactSequence", "name": artifact.name, "project": project},
            "versionIndex": 0,
            "artifactType": {"name": artifact.type},
            "description": None,
            "metadata": json.dumps(artifact.metadata),
            "ttlDurationSeconds": -1,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": "COMMITTED" if artifact.committed else "PENDING",
            "size": sum(map(len, artifact.files.values())),
            "digest": artifact.digest,
            "digestAlgorithm": None,
            "commitHash": None,
            "fileCount": len(artifact.files),
            "createdAt": "2026-01-01T00:00:00",
            "updatedAt": None,
            "aliases": [],
        }
        return {"artifact": node}

    def _on_CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"createArtifactManifest": {"artifactManifest": self._manifest(given["artifactID"])}}

    def _on_UpdateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"updateArtifactManifest": {"artifactManifest": self._manifest(given["artifactManifestID"])}}

    def _manifest(self, number: str) -> dict[str, Any]:
        url = self._upload(self.artifacts[int(number)], "manifest")
        return {"id": number, "file": {"id": f"f{number}", "uploadUrl": url, "uploadHeaders": []}}

    def _on_CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        edges = []
        for spec in given["input"]["artifactFiles"]:
            artifact = self.artifacts[int(spec["artifactID"])]
            node = {
                "storagePath": f"wandb_artifacts/{spec['name']}",
                "uploadUrl": self._upload(artifact, spec["name"]),
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": spec["artifactID"]},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _upload(self, artifact: RemoteArtifact, name: str) -> str:
        number = str(len(self._uploads))
        self._uploads[number] = (artifact, name)
        return f"{self.url}/storage/{number}"

    def _on_CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self.artifacts[int(given["artifactID"])].committed = True
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}


def _project(name: Any) -> dict[str, Any]:
    return {"id": "p1", "name": name, "entity": {"id": "e1", "name": ENTITY}}


def _node(view: RemoteView) -> dict[str, Any]:
    return {
        "id": view.id,
        "type": view.type,
        "name": view.name,
        "displayName": view.display_name,
        "description": view.description,
        "user": {"username": "tester", "photoUrl": None, "email": ""},
        "project": {"id": "p1", "name": view.project, "entityName": ENTITY},
        "spec": json.dumps(view.spec),
        "createdAt": "2026-01-01T00:00:00",
        "updatedAt": "2026-01-01T00:00:00",
    }
