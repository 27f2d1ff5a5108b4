"""The pages in a real browser, over the real service, with jobs on a real Slurm.

Slow: `make test-all`, which installs the browser. HPCFT_TEST_PICTURES names a folder for what was seen.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HPCFT = str(Path(sys.executable).with_name("hpcft"))
PROFILE = """\
scheduler: slurm
resources: {accelerator: cpu, time: "00:15:00", cpus_per_task: 1, mem_gb: 4, account: acme}
env: {OMP_NUM_THREADS: "1"}
"""
MANY = 10_000
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="needs chromium and chromium-driver"),
]


@pytest.fixture(scope="module")
def site(slurm_cluster: Any, small_quickstart: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with a profile, and results with ten thousand earlier runs."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "hpc").mkdir()
    (folder / "hpc/lab.yaml").write_text(PROFILE)
    root = Path(__file__).parents[2]
    command = "import sys; sys.path.insert(0, sys.argv[1]); import index; from pathlib import Path; "
    command += f"index.make(Path(sys.argv[2]), {MANY})"
    subprocess.run([sys.executable, "-c", command, str(root / "benchmarks"), str(folder / "results")], check=True)
    return folder


@pytest.fixture(scope="module")
def address(site: Path, small_quickstart: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service, as a user starts it; its one-time address."""
    home = tmp_path_factory.mktemp("home")
    environment = os.environ | {"HOME": str(home), "HPCFT_INDEX": str(home / "index"), "OMP_NUM_THREADS": "1"}
    environment |= {"HPCFT_CACHE": str(small_quickstart), "WANDB_MODE": "offline"}
    command = [HPCFT, "serve", "--port", "0", "--force", "--cluster", "lab"]
    with subprocess.Popen(command, cwd=site, env=environment, stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        line = service.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+\S*\?token=\S+", line)
        assert found, line
        yield found[0]
        service.terminate()
        service.wait(20)


class Reader:
    """Somebody at a browser."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        self.base, _, _ = address.partition("/records")
        self.driver.get(address)

    def go(self, path: str) -> None:
        self.driver.get(self.base + path)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def words(self) -> str:
        return str(self.one("main").text)

    def wait(self, done: Any, seconds: float = 30) -> None:
        from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        look = WebDriverWait(self.driver, seconds, 0.2, [NoSuchElementException, StaleElementReferenceException])
        look.until(lambda _: done())

    def type(self, key: str, text: str) -> None:
        field = self.driver.find_element("name", key)
        if field.tag_name == "select":
            from selenium.webdriver.support.ui import Select

            Select(field).select_by_visible_text(text)
        else:
            field.clear()
            field.send_keys(text)

    def picture(self, name: str) -> None:
        if folder := os.environ.get("HPCFT_TEST_PICTURES"):
            whole = {"format": "png", "captureBeyondViewport": True}
            taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", whole)["data"]
            Path(folder, f"{name}_{self.width}.png").write_bytes(base64.b64decode(taken))

    def size(self, width: int, height: int = 900) -> None:
        # A window cannot be as narrow as a phone.
        self.width = width
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )


@pytest.fixture(scope="module")
def reader(address: str) -> Iterator[Reader]:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(120)
    # The rules look at each of a hundred and forty fields.
    driver.set_script_timeout(240)
    try:
        yield Reader(driver, address)
    finally:
        driver.quit()


FORM = {
    "preset": "quickstart",
    "variant": "qlora",
    "name": "from_the_page",
    "model.name": "quickstart",
    "training.max_steps": "12",
    "tracking.mode": "offline",
}


def test_c5_c28_u8_a_qlora_job_from_the_form_is_followed_and_found_among_many(reader: Reader, site: Path) -> None:
    reader.size(1200)
    reader.go("/submit")
    for key, text in FORM.items():
        reader.type(key, text)
    reader.wait(lambda: reader.one("#data\\.dataset").get_attribute("placeholder") == "quickstart")
    # While it is typed, what is wrong is told beside its field.
    reader.type("lora.r", "0")
    reader.wait(lambda: reader.one("#lora\\.r").get_attribute("aria-invalid") == "true")
    reader.picture("submit_wrong")
    reader.type("lora.r", "4")
    reader.wait(lambda: not reader.one("#lora\\.r").get_attribute("aria-invalid"))
    reader.one("button[value=preview]").click()
    reader.wait(lambda: reader.all("#preview"), 120)
    preview = reader.one("#preview").text
    for words in ("#SBATCH", "hpcft.worker", "CPU-hours"):
        assert words in preview, preview
    assert reader.one("#lora\\.r").get_attribute("value") == "4"
    reader.picture("submit_preview")
    reader.one("button[value=submit]").click()
    reader.wait(lambda: reader.driver.current_url.endswith("/runs/from_the_page"), 120)
    seen: list[str] = []

    def ended() -> bool:
        now = reader.one("ol.stepper [aria-current=step]").get_attribute("class").split()[0]
        if now not in seen:
            seen.append(now)
        return now in ("SUCCESS", "FAILURE")

    # Nobody loads the page again: the stream of the run brings what is new.
    reader.wait(ended, 300)
    assert seen[-1] == "SUCCESS", reader.words()
    assert set(seen) <= {"PENDING", "STARTED", "SUCCESS"}
    assert len(seen) > 1
    reader.wait(lambda: "Scores and costs" in reader.words(), 60)
    assert "train/loss" in reader.words()
    reader.picture("run_finished")
    assert (site / "results/from_the_page/done.json").is_file()
    # Found again.
    reader.go("/records")
    assert f"{MANY + 1:,} runs" in reader.words()
    reader.picture("records")
    reader.one("#filter summary").click()
    reader.type("name", "from_the")
    reader.type("show", "train/final_loss, lora.r")
    reader.one("#filter button").click()
    reader.wait(lambda: len(reader.all("tbody tr")) == 1)
    assert reader.one("tbody th a").text == "from_the_page"
    reader.picture("records_found")


def test_u8_a_job_is_submitted_and_cancelled_by_the_keyboard_alone(reader: Reader, site: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    reader.go("/submit")
    keys = reader.driver.switch_to

    def press(*pressed: str) -> None:
        keys.active_element.send_keys(*pressed)

    def tab_to(name: str, value: str = "") -> None:
        for _ in range(400):
            press(Keys.TAB)
            element = keys.active_element
            if element.get_attribute("name") == name and (not value or element.get_attribute("value") == value):
                return
        raise AssertionError(f"the tab key does not lead to {name}")

    tab_to("preset")
    press("quickstart")
    tab_to("name")
    press("by_keyboard")
    tab_to("model.name")
    press("quickstart")
    tab_to("training.max_steps")
    press("5000")
    tab_to("do", "submit")
    press(Keys.ENTER)
    reader.wait(lambda: reader.driver.current_url.endswith("/runs/by_keyboard"), 120)
    reader.wait(lambda: reader.one("ol.stepper [aria-current=step]").get_attribute("class").startswith("STARTED"), 120)
    # It trains, and the page shows it without being loaded again.
    reader.wait(lambda: re.search(r"\b[1-9]\d*/5000", reader.words()), 180)
    reader.wait(lambda: "train/loss" in reader.words(), 60)
    reader.picture("run_live")
    reader.go("/track")
    assert "by_keyboard" in reader.words()
    reader.picture("track")
    reader.go("/runs/by_keyboard")
    for _ in range(100):
        press(Keys.TAB)
        if keys.active_element.tag_name == "summary" and keys.active_element.text == "Cancel":
            break
    press(Keys.ENTER)
    press(Keys.TAB)
    press(Keys.ENTER)
    reader.wait(
        lambda: reader.one("ol.stepper [aria-current=step]").get_attribute("class").startswith("CANCELLED"), 120
    )
    reader.picture("run_cancelled")


def test_c28_pareto_in_the_browser_a_point_leads_to_its_run(reader: Reader) -> None:
    reader.size(1200)
    # They were scored on other data sets, which is refused unless it is meant.
    reader.go("/pareto?measure=f1&other=train/runtime_s:min&mix=true")
    reader.wait(lambda: reader.all("#picture polygon"), 120)
    reader.picture("pareto")
    point = reader.one("#picture polygon")
    reader.driver.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", point)
    link = reader.one("#figures a")
    name = link.text
    link.click()
    reader.wait(lambda: reader.one("h1").text == name)


PAGES = ("/submit", "/track", "/records", "/statistics?name=run_0000", "/pareto", "/data", "/runs/from_the_page")


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("path", PAGES)
def test_u8_no_page_has_a_serious_fault_of_accessibility_or_scrolls_sideways(
    reader: Reader, path: str, width: int
) -> None:
    from axe_core_python.selenium import Axe

    reader.size(width, 740)
    reader.go(path + ("&" if "?" in path else "?") + "lang=zh-TW")
    for details in reader.all("details"):
        reader.driver.execute_script("arguments[0].open = true", details)
    reader.picture(path.strip("/").partition("?")[0].replace("/", "_") + "_zh")
    assert reader.driver.execute_script("return document.documentElement.scrollWidth") <= width
    found = Axe().run(reader.driver)["violations"]
    bad = [(each["id"], each["nodes"][0]["html"][:200]) for each in found if each["impact"] in ("serious", "critical")]
    assert not bad
    # Nothing that the policy forbids, no script that fails.
    said = [entry["message"] for entry in reader.driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert not said
    reader.go("/track?lang=en")
