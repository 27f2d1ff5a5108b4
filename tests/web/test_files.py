"""The files of runs over HTTP: what is shown, how, and that nothing beside them is."""

from __future__ import annotations

import os
import random
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.steering import Call
from web.asgi import ask

from hpcft.web.app import create_app
from hpcft.web.beneath import opened
from hpcft.web.errors import Missing
from hpcft.web.guard import Access
from hpcft.web.settings import Settings

FILES = "/api/v1/experiments/{}/files"
SECRET = "TOPSECRET"


@pytest.fixture
def root(make_run: Call, project: Path) -> Path:
    """A run with files, and with everything that leads out of it; outside lie secrets."""
    root: Path = make_run("group/mine", run_id="k3f9x2m1qa", job_id="1", done=True).root
    outside = project / "outside"
    (outside / "deep").mkdir(parents=True)
    for name in ("secret.txt", "deep/secret.txt", "config.yaml", "mine.png"):
        (outside / name).write_text(SECRET)
    (project / "results" / "secret.txt").write_text(SECRET)
    (project / "results" / "group" / "secret.txt").write_text(SECRET)
    (root / "plots").mkdir()
    (root / "plots" / "loss.png").write_bytes(b"\x89PNG")
    (root / "a b%.csv").write_text("x,y\n1,2\n")
    (root / "link.txt").symlink_to(outside / "secret.txt")
    (root / "chain.txt").symlink_to("link.txt")
    (root / "inner.txt").symlink_to("config.yaml")
    (root / "relative.png").symlink_to("../../../outside/mine.png")
    (root / "folder").symlink_to(outside)
    (root / "up").symlink_to("..")
    (root / "slash").symlink_to("/")
    (root / "plots" / "here").symlink_to(".")
    (project / "results" / "linked").symlink_to(outside)
    (project / "results" / "links").mkdir()
    (project / "results" / "links" / "run").symlink_to(outside)
    os.mkfifo(root / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listener, suppress(OSError):
        listener.bind(str(root / "sock.txt"))
    return root


def test_the_files_of_a_run_are_listed_without_links_pipes_and_sockets(client: TestClient, root: Path) -> None:
    (root / "final_model").mkdir()
    (root / "final_model" / "adapter.safetensors").write_bytes(b"1234")
    os.close(os.open(os.fsencode(root) + b"/\xff.txt", os.O_CREAT))
    found = client.get(FILES.format("group/mine")).json()
    assert [(file["name"], file["type"]) for file in found] == [
        ("a b%.csv", "text/csv; charset=utf-8"),
        ("client.jsonl", "text/plain; charset=utf-8"),
        ("config.yaml", "text/plain; charset=utf-8"),
        ("done.json", "application/json"),
        ("final_model/adapter.safetensors", "application/octet-stream"),
        ("plots/loss.png", "image/png"),
    ]
    model = found[4]
    assert model["size"] == 4
    assert abs(model["modified"] - (root / "final_model" / "adapter.safetensors").stat().st_mtime) < 1e-3
    assert client.get(FILES.format("k3f9x2m1qa")).json() == found


@pytest.mark.parametrize(
    ("name", "kind", "is_kept"),
    [
        ("plots/loss.png", "image/png", False),
        ("a b%25.csv", "text/csv; charset=utf-8", False),
        ("config.yaml", "text/plain; charset=utf-8", False),
        ("done.json", "application/json", False),
        ("picture.svg", "application/octet-stream", True),
        ("page.HTML", "application/octet-stream", True),
        ("noend", "application/octet-stream", True),
        ("x.html.bin", "application/octet-stream", True),
    ],
)
def test_a_file_is_shown_by_a_short_list_of_kinds_and_else_for_keeping(
    client: TestClient, root: Path, name: str, kind: str, is_kept: bool
) -> None:
    path = root / name.replace("%25", "%")
    if not path.exists():
        path.write_text("<script>alert(1)</script>")
    answer = client.get(f"{FILES.format('group/mine')}/{name}")
    assert answer.status_code == 200
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"] == kind
    assert answer.headers["content-length"] == str(path.stat().st_size)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers.get("content-disposition", "").startswith("attachment") == is_kept
    assert "default-src 'none'; frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_s5_a_report_is_a_page_with_no_origin_and_no_network(client: TestClient, root: Path) -> None:
    (root / "report.html").write_text("<script>fetch('/api/v1/experiments')</script>")
    answer = client.get(f"{FILES.format('group/mine')}/report.html")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    [policy] = answer.headers.get_list("content-security-policy")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    # Without allow-same-origin its scripts are nobody's, and default-src forbids them to ask anything.
    assert rules["sandbox"] == "allow-scripts"
    assert rules["default-src"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert "connect-src" not in rules


def test_s5_a_name_does_not_break_out_of_its_header(client: TestClient, root: Path) -> None:
    (root / 'a"; x-evil=1;<b>é.bin').write_text("x")
    answer = client.get(f"{FILES.format('group/mine')}/a%22;%20x-evil=1;%3Cb%3E%C3%A9.bin")
    assert answer.content == b"x"
    assert (
        answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a%22%3B%20x-evil%3D1%3B%3Cb%3E%C3%A9.bin"
    )


def test_a_log_that_grows_is_sent_as_long_as_it_was(root: Path, project: Path) -> None:
    from hpcft.web.api.files import _blocks

    (root / "grows.txt").write_text("1234")
    file = opened(project / "results", "group/mine", "grows.txt")
    blocks = _blocks(file)
    with (root / "grows.txt").open("a") as more:
        assert next(blocks) == b"1234"
        more.write("5678")
        more.flush()
        assert list(blocks) == []
    assert file.closed


PARTS = [
    *("..", ".", "", "...", "..;", "..%2f", "%2e%2e", "%2e.", ".%2e", "%252e%252e", "%252e%252e%252f", "..%5c", "..\\"),
    *("%c0%ae%c0%ae", "%c0%2e", "%00", "%00..", "..%00", "%0a", "%20", "~", "~root", "$HOME", "file:", "%uff0e%uff0e"),
    *("%ef%bc%8e%ef%bc%8e", "link.txt", "chain.txt", "folder", "up", "slash", "plots", "here", "plots/here"),
    *("folder/deep", "pipe.txt", "sock.txt", "inner.txt", "attempts", "%2f", "//", "%2F%2F", "group", "mine", "linked"),
]  # fmt: skip
TARGETS = [
    *("secret.txt", "etc/passwd", "/etc/passwd", "%2fetc%2fpasswd", "proc/self/environ", "//proc/self/environ"),
    *("outside/secret.txt", "results/secret.txt", "deep/secret.txt", "config.yaml", "secret.txt%00.png", "secret.txt/"),
    *("secret.txt?x=.png", "etc/shadow", "root/.ssh/id_rsa", "secret.txt%2f", "%73ecret.txt", "secret.txt%23.png"),
]  # fmt: skip
RUNS = ["group/mine", "group%2fmine", "k3f9x2m1qa", "linked", "links/run", "group/..", "..", "../outside",
        "%2e%2e/outside", "group/mine/..", "outside", ".", "", "%00", "/", "group"]  # fmt: skip


def cases(project: Path, number: int) -> list[str]:
    draw = random.Random(2)
    whole = [*TARGETS, str(project / "outside" / "secret.txt"), str(project / "results" / "secret.txt")]
    # These two lead to the run's own.
    found = dict.fromkeys(
        f"{FILES.format(run)}/{name}" for run, name in (("group/mine", "config.yaml"), ("k3f9x2m1qa", "plots/loss.png"))
    )
    while len(found) < number:
        run = RUNS[0] if draw.random() < 0.6 else draw.choice(RUNS)
        lead = "/".join(draw.choices(PARTS, k=draw.randrange(0, 7)))
        found[f"{FILES.format(run)}/{lead}{draw.choice(['/', '', '%2f'])}{draw.choice(whole)}"] = None
    return list(found)


@pytest.mark.parametrize("number", [500, pytest.param(5000, marks=pytest.mark.slow)])
def test_s2_of_5000_paths_none_gives_a_byte_from_outside(
    project: Path, root: Path, fake_slurm: Any, number: int
) -> None:
    app = create_app(Settings(project / "results"), Access())
    # The run's own files may be had by strange ways too, such as a slash that is written as %2f.
    own = {path.read_bytes() for path in (root / "config.yaml", root / "plots" / "loss.png")}
    asked = cases(project, number)
    answers = ask(app, asked)
    assert len(answers) == number
    served = 0
    for target, (status, body) in zip(asked, answers, strict=True):
        assert SECRET.encode() not in body, target
        assert b"root:" not in body, target
        assert status in (200, 404), (target, status, body)
        if status == 200:
            served += 1
            assert body in own or body.startswith(b"["), target
    # Some were answered, so the others were refused for what they are.
    assert 2 <= served < number / 10


@pytest.mark.parametrize(
    "name",
    ["link.txt", "chain.txt", "inner.txt", "relative.png", "folder/secret.txt", "up/mine/config.yaml",
     "slash/etc/passwd", "plots/here/loss.png", "pipe.txt", "sock.txt", "plots", "..", "", "config.yaml/",
     "/etc/passwd", "a\0b", "\ud800", "x" * 5000],
)  # fmt: skip
def test_s2_a_link_and_what_is_no_file_is_not_there(project: Path, root: Path, name: str) -> None:
    with pytest.raises(Missing):
        opened(project / "results", "group/mine", name)


@pytest.mark.parametrize("run", ["linked", "links/run"])
def test_s2_a_run_that_is_a_link_has_no_files(client: TestClient, root: Path, run: str) -> None:
    for path in (FILES.format(run), f"{FILES.format(run)}/secret.txt"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["error"]) == (404, "NOT_FOUND")


def test_s2_a_link_that_comes_and_goes_is_never_followed(project: Path, root: Path) -> None:
    (root / "turns").mkdir()
    (root / "turns" / "secret.txt").write_text("own")
    (root / "folder2").symlink_to(project / "outside")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            (root / "turns").rename(root / "aside")
            (root / "folder2").rename(root / "turns")
            (root / "turns").rename(root / "folder2")
            (root / "aside").rename(root / "turns")

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen = set()
    try:
        for _ in range(3000):
            with suppress(Missing), opened(project / "results", "group/mine", "turns/secret.txt") as file:
                seen.add(file.read())
    finally:
        over.set()
        swapping.join()
    assert seen == {b"own"}
