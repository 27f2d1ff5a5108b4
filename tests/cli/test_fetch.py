"""`hpcft fetch` with the real client and a hub on this machine: what jobs need is in the cache, and they ask nobody."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import urlopen

import pytest
from fakes.fake_hub import FakeHub

from hpcft.data import fetch as data_fetch

HPCFT = str(Path(sys.executable).with_name("hpcft"))
NOBODY = "http://127.0.0.1:9"
TOKEN = "hf_" + "aTokenThatNobodyHas" * 2
OFFLINE = "scheduler: local\ninternet: false\n"


class Site:
    """A login node: a home, a cache in it, and a hub that it may ask."""

    def __init__(self, root: Path, quickstart: Path) -> None:
        self.root, self.home = root, root / "home"
        self.cache = self.home / "hf"
        (self.home / "nltk/corpora/wordnet").mkdir(parents=True)
        (root / "offline.yaml").write_text(OFFLINE)
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("HF_", "HPCFT_"))}
        # No request leaves this machine.
        closed = {"http_proxy": NOBODY, "https_proxy": NOBODY, "no_proxy": "127.0.0.1", "HF_ENDPOINT": NOBODY}
        places = {"HOME": str(self.home), "HF_HOME": str(self.cache), "NLTK_DATA": str(self.home / "nltk")}
        own = {"HPCFT_CACHE": str(quickstart), "HPCFT_CLUSTER": "offline.yaml", "OMP_NUM_THREADS": "1"}
        self.environment = kept | closed | places | own

    def call(self, verb: str, *words: str, hub: FakeHub | None = None, **environment: str) -> Any:
        told = {"HF_ENDPOINT": hub.endpoint} if hub is not None else {}
        done = subprocess.run(
            [HPCFT, verb, *words], cwd=self.root, env=self.environment | told | environment, capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def fetch(self, *words: str, hub: FakeHub | None = None, **environment: str) -> dict[str, Any]:
        """Fetch, and give what was told of each thing, by its name."""
        done = self.call("fetch", "--variant", "lora", "--json", *words, hub=hub, **environment)
        assert done.returncode == 0, done.stderr
        return {row["name"]: row for row in json.loads(done.stdout)}

    def snapshot(self) -> Path:
        (folder,) = (self.cache / "hub/models--guild--tiny/snapshots").iterdir()
        return folder


def gets(hub: FakeHub) -> list[str]:
    """Files that were downloaded since the last question."""
    found = [path.rpartition("/")[2] for method, path, _ in hub.asked if method == "GET" and "/resolve/" in path]
    hub.asked.clear()
    return found


@pytest.fixture(scope="module")
def models(tiny_model: Path) -> Iterator[FakeHub]:
    with FakeHub("guild/tiny", tiny_model).running() as hub:
        yield hub


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    folder = tmp_path_factory.mktemp("pairs")
    rows = [{"source": f"question {i}", "target": f"answer {i}"} for i in range(20)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with FakeHub("guild/pairs", folder, kind="datasets").running() as hub:
        yield hub


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, small_quickstart: Path, models: FakeHub, sets: FakeHub) -> Site:
    """Where model and data were fetched."""
    made = Site(tmp_path_factory.mktemp("site"), small_quickstart)
    # Set, as on a node; a fetch is meant to ask all the same.
    first = made.fetch("--model", "guild/tiny", "--dataset", "quickstart", hub=models, HF_HUB_OFFLINE="1")
    assert {name: row["state"] for name, row in first.items()} == {"guild/tiny": "fetched", "WordNet": "there"}
    second = made.fetch("--model", "guild/tiny", "--dataset", "guild/pairs", hub=sets)
    assert second["guild/pairs"]["state"] == "fetched"
    assert second["guild/tiny"]["state"] == "there"
    return made


def test_model_tokenizer_and_data_are_in_the_cache_and_nothing_else_is(site: Site, models: FakeHub) -> None:
    names = {path.name for path in site.snapshot().iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert sorted(gets(models)) == sorted(names)
    assert list((site.cache / "datasets").glob("guild___pairs/*/*/*/dataset_info.json"))


def test_a_job_then_runs_with_the_hub_switched_off(site: Site, models: FakeHub, sets: FakeHub) -> None:
    models.asked.clear()
    sets.asked.clear()
    words = ["--model", "guild/tiny", "--dataset", "guild/pairs", "--variant", "lora", "--max-steps", "1", "--no-eval"]
    done = site.call("submit", *words, "--wait", "--name", "offline", hub=models)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site.root / "results/offline/done.json").is_file()
    assert models.asked == sets.asked == []


def test_what_is_there_is_looked_at_and_not_asked_for_again(site: Site) -> None:
    # No hub at all.
    found = site.fetch("--model", "guild/tiny", "--dataset", "guild/pairs")
    assert [row["state"] for row in found.values()] == ["there", "there", "there"]
    assert found["guild/tiny"]["place"] == str(site.snapshot())
    assert found["guild/tiny"]["gb"] > 0


@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_of_a_cache_that_is_there_in_part_the_rest_is_fetched(site: Site, models: FakeHub, damage: str) -> None:
    weights = site.snapshot() / "model.safetensors"
    whole, blob = weights.read_bytes(), weights.resolve()
    if damage == "missing":
        weights.unlink()
        blob.unlink()
    else:
        blob.write_bytes(whole[:1000])
    words = ["--model", "guild/tiny", "--dataset", "guild/pairs", "--variant", "lora", "--max-steps", "1"]
    refused = site.call("submit", *words, "--dry-run")
    assert refused.returncode == 0 or "hpcft fetch --model guild/tiny" in refused.stderr
    models.asked.clear()
    assert (
        site.fetch("--model", "guild/tiny", "--dataset", "quickstart", hub=models)["guild/tiny"]["state"] == "fetched"
    )
    assert weights.read_bytes() == whole
    if damage == "missing":
        assert gets(models) == ["model.safetensors"]


def test_a_download_that_breaks_off_goes_on_where_it_was(
    tmp_path: Path, small_quickstart: Path, tiny_model: Path
) -> None:
    site, large = Site(tmp_path, small_quickstart), tmp_path / "large"
    shutil.copytree(tiny_model, large)
    # The client writes pieces of 10 MB.
    (large / "vocab.txt").write_bytes(bytes(25_000_000))
    with FakeHub("guild/tiny", large).running() as hub:
        hub.cut["vocab.txt"] = 15_000_000
        site.fetch("--model", "guild/tiny", "--dataset", "quickstart", hub=hub)
        (span,) = [span for path, span in hub.ranges if path.endswith("vocab.txt")]
    assert span.startswith("bytes=1")
    assert (site.snapshot() / "vocab.txt").stat().st_size == 25_000_000


def test_what_is_shared_the_group_can_read_and_pass_to_and_nobody_can_write(site: Site) -> None:
    site.fetch("--model", "guild/tiny", "--dataset", "guild/pairs", "--shared")
    found = [*(site.cache / "hub/models--guild--tiny").rglob("*"), *(site.cache / "datasets/guild___pairs").rglob("*")]
    assert found
    for path in [path for path in found if not path.is_symlink()]:
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = stat.S_IRGRP | (stat.S_IXGRP | stat.S_ISGID if path.is_dir() else 0)
        assert mode & wanted == wanted, path
        assert not mode & (stat.S_IWGRP | stat.S_IWOTH), path
    # On the way there one may pass, and read nothing.
    assert stat.S_IMODE((site.cache / "hub").stat().st_mode) & 0o070 == stat.S_IXGRP
    assert not list(site.cache.glob("token*"))


def test_a_home_that_the_group_cannot_enter_is_named(site: Site) -> None:
    site.home.chmod(0o700)
    done = site.call("fetch", "--variant", "lora", "--model", "guild/tiny", "--dataset", "quickstart", "--shared")
    assert done.returncode == 0
    assert "your group cannot pass" in done.stderr
    assert "chmod g+x" in done.stderr


def test_what_cannot_be_had_says_why(
    tmp_path: Path, small_quickstart: Path, tiny_model: Path, models: FakeHub, sets: FakeHub
) -> None:
    site = Site(tmp_path, small_quickstart)
    with FakeHub("guild/gated", tiny_model, TOKEN).running() as gated:
        for words, hub, says in (
            (["--model", "guild/nosuch", "--dataset", "quickstart"], models, "the hub has no model 'guild/nosuch'"),
            (["--model", "guild/gated", "--dataset", "quickstart"], gated, "asks for a licence to be accepted"),
            (["--model", "guild/tiny", "--dataset", "quickstart"], None, "the hub does not answer"),
            (["--model", "quickstart", "--dataset", "guild/nosuch"], sets, "'guild/nosuch' cannot be had from the hub"),
        ):
            done = site.call("fetch", "--variant", "lora", *words, hub=hub)
            assert done.returncode == 69, done.stderr
            assert says in done.stderr
            assert done.stdout == ""


def test_without_wordnet_the_rest_is_fetched_and_its_lack_is_told(site: Site) -> None:
    done = site.call(
        "fetch", "--variant", "lora", "--model", "guild/tiny", "--dataset", "quickstart", NLTK_DATA=str(site.home)
    )
    assert done.returncode == 0
    assert "WordNet cannot be had from here: METEOR matches exact words and stems" in done.stderr
    assert "missing" in done.stdout


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server with a folder's files."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_wordnet_comes_from_nltks_own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk
    from nltk import downloader

    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "cache")])
    assert data_fetch.wordnet_folder() is None
    with zipfile.ZipFile(tmp_path / "wordnet.zip", "w") as file:
        file.writestr("wordnet/index.noun", "word")
    content = (tmp_path / "wordnet.zip").read_bytes()
    with served(tmp_path) as address:
        (tmp_path / "index.xml").write_text(
            f'<nltk_data><packages><package id="wordnet" name="WordNet" subdir="corpora" url="{address}/wordnet.zip" '
            f'size="{len(content)}" unzipped_size="4" '
            f'sha256_checksum="{hashlib.sha256(content).hexdigest()}" '
            'unzip="1"/></packages><collections/></nltk_data>'
        )
        # nltk asks no address of this machine.
        monkeypatch.setattr(downloader, "urlopen", urlopen)
        monkeypatch.setattr(downloader, "_downloader", downloader.Downloader(f"{address}/index.xml"))
        monkeypatch.setattr(nltk, "download", downloader._downloader.download)
        folder = data_fetch.fetch_wordnet()
    assert folder is not None
    assert folder.is_relative_to(tmp_path / "cache/corpora")
