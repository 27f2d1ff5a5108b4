"""A wandb server for tests: as much of its GraphQL, file stream and storage as the real client needs.

It listens on 127.0.0.1 alone, keeps what arrives, and can be told to be in trouble. It checks no key.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

Trouble = Literal["hang", "500", "429", "slow"]
KEY = "k" * 40
ENTITY = "lab"


@dataclass
class RemoteRun:
    """One run, as the server knows it.

    Attributes:
        fields: what the client sent with the run: `displayName`, `jobType`, `project`, `tags`, `notes`, ...
        history: points by line number.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    def points(self) -> list[dict[str, Any]]:
        """The history without wandb's own keys, in order."""
        rows = (self.history[n] for n in sorted(self.history))
        return [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]


@dataclass
class RemoteArtifact:
    """One version of an artifact: name, type, metadata and the bytes of its files by path."""

    name: str
    type: str
    metadata: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


class FakeWandb:
    """The server and what it has been sent.

    Attributes:
        trouble: what is wrong with it; None: nothing. May be changed at any time.
        trouble_from: `start`: with every request; `stream`: only once a run has begun to send points.
        unknown: GraphQL operations that were asked for and are not played here.
        requests: (method, path or GraphQL operation) of every request, in order.
    """

    def __init__(self) -> None:
        self.runs: dict[str, RemoteRun] = {}
        self.artifacts: list[RemoteArtifact] = []
        self.requests: list[tuple[str, str]] = []
        self.unknown: list[str] = []
        self.bodies = bytearray()
        self.trouble: Trouble | None = None
        self.trouble_from: Literal["start", "stream"] = "start"
        self._streaming = False
        self._uploads: dict[str, tuple[RemoteArtifact, str]] = {}
        self._closing = threading.Event()
        self._lock = threading.Lock()
        owner = self

        class Handler(_Handler):
            fake = owner

        self._server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Let go of requests that hang, and stop listening."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON (or None: drop the connection) for one request."""
        call = json.loads(body) if body and path == "/graphql" else {}
        found = re.search(r"(?:query|mutation)\s+(\w+)", call.get("query", ""))
        operation = found.group(1) if found else path
        with self._lock:
            self.requests.append((method, operation))
            self.bodies += body
            self._streaming = self._streaming or path.endswith("/file_stream")
            in_trouble = self.trouble if self.trouble_from == "start" or self._streaming else None
        if in_trouble == "hang":
            self._closing.wait()
            return 503, None
        if in_trouble in ("500", "429"):
            return int(in_trouble), {"error": "the test wants it so"}
        if in_trouble == "slow":
            time.sleep(0.2)
        with self._lock:
            if path == "/graphql":
                return 200, {"data": self._graphql(operation, call.get("variables") or {})}
            if path.endswith("/file_stream"):
                return 200, self._stream(path.split("/")[-2], json.loads(body))
            if path.startswith("/storage/"):
                artifact, name = self._uploads[path.rpartition("/")[2]]
                artifact.files[name] = body
            return 200, {}

    def _stream(self, run_id: str, message: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[run_id]
        for name, chunk in (message.get("files") or {}).items():
            rows = [json.loads(line) for line in chunk["content"]] if name.startswith("wandb-") else []
            if name == "wandb-history.jsonl":
                run.history.update(enumerate(rows, chunk.get("offset", 0)))
            elif name == "wandb-summary.json":
                run.summary.update(rows[-1])
        if message.get("complete"):
            run.exit_code = message.get("exitcode")
        return {}

    def _graphql(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
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

    def _on_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        project = given.get("project")
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
                "eventsLineCount": 0,
                "historyTail": json.dumps(last),
                "eventsTail": "[]",
                "config": json.dumps(run.config),
                "tags": run.fields.get("tags") or [],
                "notes": run.fields.get("notes"),
                "wandbConfig": json.dumps({"t": 1}),
            }
        model = {"id": "p1", "name": project, "entity": {"id": "e1", "name": ENTITY}, "bucket": bucket}
        return {"model": model}

    def _on_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given.get("name") or given["id"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, RemoteRun())
        run.fields |= {k: v for k, v in given.items() if v is not None}
        run.config |= json.loads(given.get("config") or "{}")
        if given.get("summaryMetrics"):
            run.summary |= json.loads(given["summaryMetrics"])
        bucket = {
            "id": name,
            "name": name,
            "displayName": run.fields.get("displayName", name),
            "description": None,
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": {"id": "p1", "name": given.get("project"), "entity": {"id": "e1", "name": ENTITY}},
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _on_RunStoppedStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"run": {"stopped": False}}}

    def _on_ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _on_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/ignored"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _on_CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        wanted = given["input"]
        artifact = RemoteArtifact(
            wanted["artifactCollectionName"],
            wanted["artifactTypeName"],
            json.loads(wanted.get("metadata") or "{}"),
        )
        self.artifacts.append(artifact)
        sequence = {"id": "c1", "name": artifact.name, "latestArtifact": None}
        made = {"id": str(len(self.artifacts) - 1), "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": made}}

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


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed resets its connections; other errors are told as usual."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    fake: FakeWandb
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        status, answer = self.fake.answer(self.command, urlsplit(self.path).path, body)
        if answer is None:
            self.close_connection = True
            return
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _serve

    def log_message(self, format: str, *arguments: Any) -> None:
        """Be silent: `requests` has it all."""
