"""The pages: what they show, in three languages, whole without a script, and behind any proxy."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import yaml
from starlette.testclient import TestClient

from hpcft.runs.events import encode
from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths
from hpcft.spec.keys import fields
from hpcft.web.app import create_app
from hpcft.web.guard import Access
from hpcft.web.languages import LANGUAGES, texts
from hpcft.web.settings import Settings

Make = Callable[..., RunPaths]
PAGES = ["/submit", "/track", "/records", "/statistics", "/pareto", "/data"]
WEB = Path(__file__).parents[2] / "src/hpcft/web"
EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'"


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def get(client: TestClient, path: str, status: int = 200, **more: Any) -> Page:
    answer = client.get(path, **more)
    assert answer.status_code == status, answer.text[:2000]
    assert answer.headers["content-type"].startswith("text/html")
    return Page(answer.text)


@pytest.fixture
def runs(made: Make) -> None:
    now = time.time()
    for i, (f1, latency) in enumerate([(0.5, 10.0), (0.7, 20.0), (0.6, 30.0)]):
        figures = {"final/validation_f1_score": f1, "inference/avg_latency_ms_per_sample": latency}
        about = {"training": {"learning_rate": 0.01 * (i + 1)}, "lora": {"r": 4 * (1 + i % 2)}}
        paths = made(f"run{i}", now - 86400 * (3 - i), figures | {"train/runtime_s": 5.0, "train/steps": 2}, **about)
        paths.predictions.write_text(
            "".join(json.dumps({"input": f"q{k}", "reference": "r", "prediction": f"a{k}"}) + "\n" for k in range(45))
        )
        events = paths.events(1)
        events.parent.mkdir(parents=True)
        steps = [{"kind": "step", "step": k, "loss": 3.0 / k, "learning_rate": 1e-4} for k in range(1, 30)]
        events.write_bytes(b"".join(encode({"seq": k, "t": now, **step}) for k, step in enumerate(steps)))
    failed = made("sweep/0001", now - 7200, variant="full")
    write_json(failed.status, {"state": "failed", "attempt": 1, "message": "no such file", "time": now - 7000})


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("path", PAGES)
def test_c28_every_page_of_an_empty_folder_in_every_language(client: TestClient, path: str, lang: str) -> None:
    page = get(client, f"{path}?lang={lang}")
    assert page.all("html") == [{"lang": lang}]
    assert texts()["records"][list(LANGUAGES).index(lang)] in page.words


def test_c28_a_language_is_the_browser_s_until_one_is_chosen(client: TestClient) -> None:
    assert get(client, "/track", headers={"accept-language": "zh-TW,zh;q=0.9"}).all("html")[0]["lang"] == "zh-TW"
    get(client, "/track?lang=zh-CN")
    assert get(client, "/track", headers={"accept-language": "zh-TW"}).all("html")[0]["lang"] == "zh-CN"


def test_every_text_stands_in_all_languages_and_is_shown_somewhere() -> None:
    source = "".join(path.read_text() for path in [*WEB.rglob("*.j2"), *WEB.rglob("*.py")])
    for key, words in texts().items():
        assert len(words) == len(LANGUAGES), key
        assert all(words), key
        # What stands in braces is filled in by the same names in each.
        assert len({frozenset(re.findall(r"{(\w+)}", text)) for text in words}) == 1, key
        assert re.search(rf'"{key}"', source) or key.isupper(), f"{key} is nowhere shown"


def test_c28_records_are_filtered_ordered_and_grouped(client: TestClient, runs: None) -> None:
    def names(query: str) -> list[str]:
        page = get(client, f"/records?{query}")
        return [a["value"] for a in page.all("input") if a.get("name") == "run"]

    assert names("") == ["sweep/0001", "run2", "run1", "run0"]
    assert names("sort=f1&desc=true&show=f1") == ["run1", "run2", "run0", "sweep/0001"]
    assert names("sort=f1&show=f1") == ["run0", "run2", "run1", "sweep/0001"]
    assert names("where=f1>0.55, lora.r>=8") == ["run1"]
    assert names("state=FAILURE") == ["sweep/0001"]
    assert names("name=run&variant=lora&since=50h") == ["run2", "run1"]
    grouped = get(client, "/records?by=lora.r&show=f1").words
    assert re.search(r"4\s*2\s*0.55 ± 0.070711", grouped), grouped
    assert "no such file" in get(client, "/records").words


def test_c28_links_of_the_table_keep_the_filter(client: TestClient, runs: None) -> None:
    page = get(client, "/records?where=f1>0.1&show=f1")
    order = [a["href"] for a in page.all("a") if "sort=f1" in a.get("href", "")]
    assert order
    again = get(client, "/records" + order[0])
    assert [a["value"] for a in again.all("input") if a.get("name") == "run"] == ["run0", "run2", "run1"]


@pytest.mark.parametrize(
    "path",
    ["/records?where=nonsense", "/records?where=luck>1", "/records?since=soon", "/records?sort=luck", "/records?page=0",
     "/records?show=" + ",".join(f"k{i}" for i in range(9)), "/pareto?measure=f1", "/pareto?measure=luck&measure=f1",
     "/statistics?state=gone", "/compare?run=nobody&x=1"],
)  # fmt: skip
def test_what_means_nothing_is_told_on_a_page(client: TestClient, runs: None, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 422)
    page = Page(answer.text)
    assert any(a.get("role") == "alert" for _, a in page.elements)
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("path", ["/runs/nobody", "/data/none/0000000000000000", "/submit?of=nobody"])
def test_what_is_not_there_is_a_page_too(client: TestClient, path: str) -> None:
    assert "找不到" in get(client, path, 404, headers={"accept-language": "zh-TW"}).words


def test_c28_a_run_s_page_has_its_curves_scores_predictions_and_files(client: TestClient, runs: None) -> None:
    page = get(client, "/runs/run1")
    for words in ("train/loss", "20.00 ms", "1 to 20 of 45", "a19", "training.learning_rate", "0.02"):
        assert words in page.words, words
    assert any(a["href"].endswith("/files/metrics.json") for a in page.all("a"))
    assert "a44" in get(client, "/runs/run1?first=41").words
    # What is over is not followed, and nothing can be done with it any more.
    assert not page.all("script")
    assert not [a for a in page.all("form") if "/actions/cancel" in a["action"]]


def test_c28_a_failed_run_says_why_and_what_mends_it(client: TestClient, runs: None) -> None:
    page = get(client, "/runs/sweep/0001")
    assert "no such file" in page.words
    steps = [a for a in page.all("li") if a.get("aria-current") == "step"]
    assert [a["class"].split()[0] for a in steps] == ["FAILURE"]
    assert [a["action"] for a in page.all("form") if "resume" in a["action"]] == ["../../actions/resume/sweep/0001"]


def test_c31_tags_and_notes_are_changed_on_the_page(client: TestClient, runs: None) -> None:
    answer = client.post("/actions/mark/run1", data={"add": "paper", "notes": "the one"})
    assert answer.status_code == 200, answer.text[:500]
    assert "the one" in Page(answer.text).words
    assert "paper" in get(client, "/records?tag=paper").words
    client.post("/actions/mark/run1", data={"remove": "paper"})
    page = get(client, "/runs/run1")
    # Taking a tag away leaves the note.
    assert "the one" in page.words
    assert "paper" not in page.words


def test_c28_compare_is_the_report(client: TestClient, runs: None) -> None:
    page = get(client, "/compare?run=run0&run=run1")
    assert "Comparison" in page.words
    assert {"run0", "run1"} <= set(re.findall(r"run\d", page.words))


def test_c28_pareto_shows_the_front_and_leads_to_the_runs(client: TestClient, runs: None) -> None:
    answer = client.get("/pareto?measure=f1&measure=latency")
    page = Page(answer.text)
    told = json.loads(re.search(r'id="data">(.*?)</script>', answer.text, re.S)[1])  # type: ignore[index]
    assert {p["name"]: p["front"] for p in told["points"]} == {"run0": True, "run1": True, "run2": False}
    assert {"./runs/run0", "./runs/run1"} <= {a.get("href") for a in page.all("a")}


# The form.


def test_c11_the_form_has_every_setting_of_a_training_job(client: TestClient) -> None:
    page = get(client, "/submit")
    names = [a["name"] for a in page.all("input", "select") if "name" in a]
    others = ("kind", "of", "runs", "results", "merge.", "quantize.", "bench.")
    assert sorted(names) == sorted(["preset", "cluster", *(key for key in fields() if not key.startswith(others))])
    assert {a["for"] for a in page.all("label")} == set(names)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"training.learning_rate": "fast"}, "training.learning_rate"),
        ({"lora.r": "0"}, "lora.r"),
        ({"name": "a b"}, "name"),
        ({"preset": "nothing"}, "preset"),
        ({"resources.time": "soon"}, "resources.time"),
    ],
)
def test_c11_what_is_wrong_is_told_at_its_field_while_it_is_typed(
    client: TestClient, given: dict[str, str], key: str
) -> None:
    assert set(client.post("/submit/check", data=given).json()["problems"]) == {key}
    answer = client.post("/submit", data=given | {"do": "submit"})
    assert answer.status_code == 422
    page = Page(answer.text)
    field = next(a for a in page.all("input", "select") if a.get("name") == key)
    assert field["aria-invalid"] == "true"
    # What was typed is not lost; an unknown choice cannot be shown.
    assert key == "preset" or field["value"] == given[key]


def test_c11_a_right_form_has_nothing_wrong(client: TestClient) -> None:
    told = client.post("/submit/check", data={"lora.r": "16", "cluster": "local"}).json()
    assert told == {"problems": {}, "defaults": {}}


def test_c11_what_a_preset_says_stands_in_the_empty_fields(client: TestClient) -> None:
    told = client.post("/submit/check", data={"preset": "quickstart"}).json()
    assert told["problems"] == {}
    assert (told["defaults"]["data.dataset"], told["defaults"]["lora.r"]) == ("quickstart", "16")
    # A wrong field keeps the form, with what its preset says.
    page = Page(client.post("/submit", data={"preset": "quickstart", "lora.lora_dropout": "2", "do": "preview"}).text)
    shown = {a["name"]: a["placeholder"] for a in page.all("input") if "placeholder" in a}
    assert (shown["data.dataset"], shown["lora.r"], shown["data.validation"]) == ("quickstart", "16", "")


@pytest.mark.parametrize("body", [b"\xff\xfe", b"a", b"name=a&name=b", b"luck=1", b"x=" + b"y" * 300_000])
def test_a_body_that_is_no_form_is_refused(client: TestClient, body: bytes) -> None:
    for path in ("/submit", "/submit/check"):
        answer = client.post(path, content=body, headers={"content-type": "application/x-www-form-urlencoded"})
        assert answer.status_code == 422, answer.text
        assert "Traceback" not in answer.text


def test_c11_c16_a_form_is_previewed_then_submitted_and_followed(
    client: TestClient, project: Path, small_quickstart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPCFT_CACHE", str(small_quickstart))
    form = {
        "preset": "quickstart",
        "name": "by_form",
        "model.name": "quickstart",
        "training.max_steps": "2",
        "evaluation.enabled": "false",
    }
    seen = client.post("/submit", data=form | {"do": "preview"})
    assert seen.status_code == 200, seen.text[:3000]
    for words in ("hpcft.worker", "What would be submitted", "Will it fit?"):
        assert words in seen.text, words
    assert not (project / "results/by_form").exists()
    answer = client.post("/submit", data=form | {"do": "submit"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "./runs/by_form")
    deadline = time.monotonic() + 240
    while client.get("/task/by_form").json()["status"] not in ("SUCCESS", "FAILURE") and time.monotonic() < deadline:
        page = get(client, "/runs/by_form")
        time.sleep(0.5)
    page = get(client, "/runs/by_form")
    assert [a["class"].split()[0] for a in page.all("li") if a.get("aria-current") == "step"] == ["SUCCESS"]
    # A changed copy begins with what this one had.
    again = get(client, "/submit?of=by_form")
    given = {a["name"]: a["value"] for a in again.all("input") if a.get("value")}
    assert given["training.max_steps"] == "2"
    assert "name" not in given


def test_a_refused_job_keeps_the_form(client: TestClient, project: Path) -> None:
    answer = client.post("/submit", data={"data.dataset": "/no/such.csv", "model.name": "quickstart", "do": "submit"})
    assert answer.status_code == 422
    page = Page(answer.text)
    assert "no such file" in page.words
    assert [a["value"] for a in page.all("input") if a.get("name") == "data.dataset"] == ["/no/such.csv"]


# Safety, and the shape of the pages.


@pytest.fixture
def evil(made: Make, project: Path) -> None:
    """A run whose every text means harm."""
    about: dict[str, Any] = {"model": {"name": EVIL}, "data": {"dataset": EVIL}, "variant": EVIL}
    about["tracking"] = {"tags": [EVIL], "notes": EVIL}
    paths = made("evil", time.time(), {EVIL: 1.0, "final/validation_f1_score": 0.5}, **about)
    paths.done.unlink()
    write_json(paths.status, {"state": "failed", "attempt": 1, "message": EVIL, "time": time.time()})
    paths.batch_log.write_text(EVIL + "\n")
    paths.predictions.write_text(json.dumps({"input": EVIL, "reference": [EVIL], "prediction": EVIL}) + "\n")
    (paths.root / (EVIL.replace("/", "") + ".png")).write_bytes(b"")
    events = paths.events(1)
    events.parent.mkdir(parents=True)
    record = {"seq": 1, "t": 1.0, "kind": "validation", "step": 1, "metrics": {EVIL: 1.0}}
    events.write_bytes(encode(record))
    report = {"dataset": EVIL, "version": "0" * 16, "total_samples": 1}
    report["recommendations"] = [{"priority": EVIL, "text": EVIL}]  # type: ignore[assignment]
    write_json(paths.data_report, [report])
    home = project / "results/data_versions/pairs"
    home.mkdir(parents=True)
    version = {"dataset": EVIL, "version": "0" * 16, "sha256": "0" * 64, "name": EVIL, "description": EVIL}
    version |= {"source": {}, "created_at": 1.0, "num_samples": 1, "report": report}
    write_json(home / ("0" * 16 + ".json"), version)


def everywhere(client: TestClient) -> list[str]:
    hostile = {"where": EVIL, "name": EVIL, "show": EVIL, "sort": EVIL, "measure": EVIL, "lang": EVIL, "of": EVIL}
    found = [client.get(path, params=query).text for path in PAGES for query in ({}, hostile)]
    found += [client.get(f"/{path}").text for path in ("runs/evil", "fragments/state/evil", "fragments/curves/evil")]
    found += [client.get("/compare?run=evil").text, client.get("/records?by=model&show=f1").text]
    found += [client.get(f"/runs/{EVIL}").text, client.get("/pareto?measure=f1&measure=" + EVIL + ":max").text]
    found += [client.post("/submit", data={"name": EVIL, "model.name": EVIL, "do": "submit"}).text]
    return found


def test_s5_no_text_of_a_run_becomes_a_part_of_a_page(client: TestClient, evil: None) -> None:
    seen = False
    for text in everywhere(client):
        page = Page(text)
        assert not any(attributes.get("src") == "x" for attributes in page.all("img"))
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
        assert "<script>alert" not in text
        seen |= "alert('x')" in page.words
    assert seen


def test_s5_pages_run_nothing_that_stands_in_them(client: TestClient, runs: None) -> None:
    for path in [*PAGES, "/runs/run1", "/runs/sweep/0001"]:
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        page = Page(answer.text)
        assert all("src" in a or a.get("type") == "application/json" for a in page.all("script"))
        assert not page.all("style")
        assert not any("style" in a for _, a in page.elements)


def addresses(page: Page) -> list[str]:
    found = [a["href"] for a in page.all("a", "link") if "href" in a] + [
        a["src"] for a in page.all("script", "img") if "src" in a
    ]
    return [address for address in found if not address.startswith("#")]


@pytest.mark.parametrize("prefix", ["", "/user/me/proxy/8000"])
def test_u9_every_link_leads_somewhere_wherever_a_proxy_puts_the_service(
    project: Path, runs: None, fake_slurm: Any, prefix: str
) -> None:
    """A proxy that takes its own part of the path away, and tells nobody."""
    client = TestClient(create_app(Settings(project / "results"), Access()), base_url="http://localhost")
    waiting, seen = [f"http://localhost{prefix}/records"], set()
    while waiting:
        address = waiting.pop()
        at = urlsplit(address)
        assert at.path.startswith(prefix + "/"), address
        if at.path in seen:
            continue
        seen.add(at.path)
        answer = client.get(at.path.removeprefix(prefix) + (f"?{at.query}" if at.query else ""), follow_redirects=False)
        assert answer.status_code in (200, 422), f"{address}: {answer.status_code}"
        if answer.headers["content-type"].startswith("text/html") and "/files/" not in at.path:
            waiting += [urljoin(address, each) for each in addresses(Page(answer.text))]
    paths = {path.removeprefix(prefix) for path in seen}
    assert {"/submit", "/track", "/pareto", "/data", "/runs/run1", "/runs/sweep/0001", "/static/style.css"} <= paths


def test_u8_every_field_has_a_label_and_every_table_its_headings(client: TestClient, runs: None) -> None:
    for path in [*PAGES, "/runs/run1", "/records?by=lora.r&show=f1"]:
        page = get(client, path)
        labelled = {a["for"] for a in page.all("label") if "for" in a}
        for attributes in page.all("input", "select", "textarea"):
            named = (
                attributes.get("id") in labelled or "aria-label" in attributes or attributes.get("type") == "checkbox"
            )
            assert named, f"{path}: {attributes}"
        assert len(page.all("h1")) == 1
        ids = [a["id"] for _, a in page.elements if "id" in a]
        assert len(ids) == len(set(ids)), f"{path}: an id stands twice"
        assert all("scope" in a for a in page.all("th"))
        assert all("alt" in a for a in page.all("img"))
        for _, a in page.elements:
            for other in (a.get("aria-describedby") or "").split():
                assert other in ids, f"{path}: {other}"


def test_g24_pages_are_light(client: TestClient, made: Make) -> None:
    for i in range(60):
        made(f"a_rather_long_name_of_a_run_{i:04}", time.time() - i, {"train/final_loss": 1.0 / (i + 1)})

    def size(address: str) -> int:
        # As it goes over the line.
        return int(client.get(address).headers["content-length"])

    for path in [*PAGES, "/runs/a_rather_long_name_of_a_run_0003"]:
        loaded = [urljoin(path, a) for a in addresses(get(client, path)) if "static/" in a]
        assert len(loaded) >= 2
        assert size(path) + sum(map(size, loaded)) <= 60_000, path


def test_read_only_pages_offer_nothing(project: Path, runs: None, fake_slurm: Any) -> None:
    client = TestClient(create_app(Settings(project / "results"), Access(read_only=True)), base_url="http://localhost")
    assert all("disabled" in a for a in get(client, "/submit").all("button"))
    assert not get(client, "/runs/sweep/0001").all("form")
    assert client.post("/actions/resume/sweep/0001").status_code == 403


def test_config_of_a_run_is_what_was_submitted(client: TestClient, runs: None) -> None:
    told = client.get("/api/v1/experiments/run1/files/config.yaml")
    assert yaml.safe_load(told.text)["training"]["learning_rate"] == 0.02
