"""The manifests of the service, and the commands around them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
STAND_IN = Path(__file__).with_name("kubectl")
HPCFT = str(Path(sys.executable).with_name("hpcft"))
FILES = sorted(FOLDER.glob("*.yaml"))


def documents() -> dict[str, dict[str, Any]]:
    """Kind → manifest; there is one of each."""
    found = [document for file in FILES for document in yaml.safe_load_all(file.read_text())]
    assert len({d["kind"] for d in found}) == len(found)
    return {document["kind"]: document for document in found}


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = documents()["Deployment"]["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (found,) = pod()["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
def test_c8_the_manifests_are_what_kubernetes_takes(version: str) -> None:
    for document in documents().values():
        kubernetes_validate.validate(document, version, strict=True)


def test_a_key_that_kubernetes_does_not_know_would_be_seen() -> None:
    wrong = documents()["Deployment"]
    wrong["spec"]["template"]["spec"]["containers"][0]["readOnly"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_c8_what_belongs_together_finds_each_other() -> None:
    found = documents()
    deployment = found["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert pod()["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"]
    claims = [v["persistentVolumeClaim"] for v in pod()["volumes"] if "persistentVolumeClaim" in v]
    assert [claim["claimName"] for claim in claims] == [found["PersistentVolumeClaim"]["metadata"]["name"]]
    assert {m["name"] for m in container()["volumeMounts"]} == {v["name"] for v in pod()["volumes"]}
    assert {d["metadata"].get("namespace") for d in found.values()} == {None, found["Namespace"]["metadata"]["name"]}


def test_c8_s4_the_pod_has_no_rights_and_nobody_calls_it_over_the_network() -> None:
    found, mine = documents(), container()
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["securityContext"]["runAsUser"] > 0
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert mine["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["automountServiceAccountToken"] is False
    assert found["ServiceAccount"]["automountServiceAccountToken"] is False
    # A policy that names both ways and allows none; and a Service would lead nowhere.
    assert found["NetworkPolicy"]["spec"].keys() == {"podSelector", "policyTypes"}
    assert found["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "Service" not in found
    assert all(v["readOnly"] for v in pod()["volumes"][0].values() if isinstance(v, dict))
    assert found["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_tc6_no_pod_is_held_to_one_cpu_and_one_gib() -> None:
    resources = container()["resources"]
    assert "cpu" not in resources["limits"]
    assert resources["limits"]["memory"] == "2Gi"
    assert resources["requests"].keys() == {"cpu", "memory"}


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def test_c8_the_pod_s_command_serves_and_its_probes_tell(project: Path) -> None:
    port = free_port()
    (project / "results").mkdir()
    own = {"8000": port, "/results": str(project / "results")}
    words = [own.get(word, word) for word in container()["args"]]
    env = os.environ | {v["name"]: v["value"] for v in container()["env"]} | {"HOME": str(project)}
    probes = [container()[name] for name in ("readinessProbe", "livenessProbe")]
    commands = [[word.replace("8000", port) for word in probe["exec"]["command"]] for probe in probes]
    assert commands[0] == commands[1]
    commands[0][0] = sys.executable
    root = ["--force"] if os.geteuid() == 0 else []
    with subprocess.Popen([HPCFT, *words, *root], env=env, stderr=subprocess.PIPE, text=True) as service:
        try:
            assert service.stderr is not None
            assert f"http://127.0.0.1:{port}/" in service.stderr.readline()
            deadline = time.monotonic() + 60
            while subprocess.run(commands[0], capture_output=True).returncode:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        finally:
            service.terminate()
    assert subprocess.run(commands[0], capture_output=True).returncode != 0


# The commands


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., tuple[int, list[list[str]], str]]]:
    """Call `make`; gives its exit code, what kubectl was asked, and what it printed."""
    calls = tmp_path / "calls"

    def call(*words: str) -> tuple[int, list[list[str]], str]:
        calls.write_text("")
        env = os.environ | {"KUBECTL_CALLS": str(calls)}
        command = ["make", "-C", str(FOLDER), f"KUBECTL={STAND_IN}", *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        asked = [line.rstrip("\t").split("\t") for line in calls.read_text().splitlines()]
        return done.returncode, asked, done.stdout + done.stderr

    return call


Make = Callable[..., tuple[int, list[list[str]], str]]
ASK = ["--namespace", "hpcft"]


def test_c40_deploying_applies_every_manifest_and_waits_until_it_answers(make: Make) -> None:
    code, asked, _ = make("deploy")
    assert code == 0
    files = [word for call in asked if call[0] == "apply" for word in call if word.endswith(".yaml")]
    assert sorted(Path(file).name for file in files) == [file.name for file in FILES]
    # What the others are in comes first.
    assert files[0].endswith("namespace.yaml")
    assert asked[-1] == [*ASK, "rollout", "status", "deployment/hpcft", "--timeout", "5m"]


def test_c40_deploying_another_image_starts_no_pod_of_the_usual_one(make: Make) -> None:
    code, asked, _ = make("deploy", "image=site/hpcft:7")
    assert code == 0
    changed = ["set", "image", "--local", "--filename", "./service.yaml", "hpcft=site/hpcft:7", "--output", "yaml"]
    assert changed in asked
    assert ["apply", "--filename", "-"] in asked
    assert not any(call[0] == "apply" and "./service.yaml" in call for call in asked)


def test_c40_tc6_every_command_is_there_and_asks_kubectl(make: Make) -> None:
    help_code, asked, told = make("help")
    assert (help_code, asked) == (0, [])
    for target in ("deploy", "status", "logs", "port-forward", "dashboard", "restart", "scale", "delete"):
        assert re.search(rf"^{target} +\S", told, re.MULTILINE), told
    assert make("status")[1] == [
        [*ASK, "get", "deployments,pods,persistentvolumeclaims,networkpolicies", "--output", "wide"]
    ]
    assert make("logs", "service=hpcft")[1] == [[*ASK, "logs", "deployment/hpcft", "--tail", "200"]]
    assert make("port-forward")[1] == [[*ASK, "port-forward", "deployment/hpcft", "8000:8000"]]
    assert make("port-forward", "port=9000")[1] == [[*ASK, "port-forward", "deployment/hpcft", "9000:8000"]]
    deleted = [word for call in make("delete")[1] for word in call]
    assert "delete" in deleted
    # The record stays.
    assert not any("storage" in word or "namespace.yaml" in word for word in deleted)


def test_c40_tc6_the_dashboard_s_address_has_the_newest_token_and_leads_there(make: Make) -> None:
    _, asked, told = make("dashboard", "port=9000")
    assert "http://127.0.0.1:9000/api/v1/experiments?token=newest" in told.splitlines()
    assert "token=first" not in told
    assert asked[-1] == [*ASK, "port-forward", "deployment/hpcft", "9000:8000"]


@pytest.mark.parametrize("replicas", ["0", "1"])
def test_c40_tc6_scaling_does_what_it_is_told(make: Make, replicas: str) -> None:
    code, asked, _ = make("scale", "service=hpcft", f"replicas={replicas}")
    assert (code, asked) == (0, [[*ASK, "scale", "deployment/hpcft", "--replicas", replicas]])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["scale", "service=hpcft", "replicas=3"], "replicas=3: the service is one"),
        (["scale"], "0 or 1"),
        (["scale", "service=worker", "replicas=3"], "service=worker: there is only service=hpcft"),
        (["logs", "service=worker"], "hpcft logs RUN"),
    ],
)
def test_tc6_what_cannot_be_done_is_told_and_nothing_is_done(make: Make, words: list[str], told: str) -> None:
    code, asked, said = make(*words)
    assert code != 0
    assert told in said
    assert asked == []
