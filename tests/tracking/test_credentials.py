"""Where a key is looked for, and which mode follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.tracking.credentials import adopted_run_id, key_available, resolve_mode


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any login."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    return tmp_path


def login(path: Path, host: str) -> None:
    """What `wandb login` leaves."""
    path.write_text(f"machine {host}\n  login user\n  password {'k' * 40}\n")
    path.chmod(0o600)


def test_no_login_no_key(home: Path) -> None:
    assert not key_available()


@pytest.mark.parametrize("host", ["api.wandb.ai", "api.forge.coreweave.com"])
def test_e2_the_key_is_found_in_the_users_login(home: Path, host: str) -> None:
    login(home / ".netrc", host)
    assert key_available()


def test_e3_the_key_is_found_in_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert key_available()


def test_a_private_file_may_take_the_logins_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login(home / "wandb-key", "api.wandb.ai")
    monkeypatch.setenv("NETRC", str(home / "wandb-key"))
    assert key_available()


def test_a_key_for_another_server_is_no_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login(home / ".netrc", "api.wandb.ai")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8443")
    assert not key_available()
    login(home / ".netrc", "wandb.example.org:8443")
    assert key_available()


def test_the_server_of_wandbs_settings_file_counts(home: Path) -> None:
    folder = home / ".config" / "wandb"
    folder.mkdir(parents=True)
    (folder / "settings").write_text("[default]\nbase_url = https://wandb.example.org\n")
    login(home / ".netrc", "api.wandb.ai")
    assert not key_available()
    login(home / ".netrc", "wandb.example.org")
    assert key_available()


def test_damaged_files_are_as_good_as_none(home: Path) -> None:
    folder = home / ".config" / "wandb"
    folder.mkdir(parents=True)
    (folder / "settings").write_bytes(b"\xff no section")
    (home / ".netrc").write_text("machine")
    assert not key_available()


@pytest.mark.parametrize(
    ("requested", "internet", "key", "mode"),
    [
        ("auto", True, True, "online"),
        ("auto", False, True, "offline"),
        ("auto", True, False, "offline"),
        ("online", False, False, "online"),
        ("offline", True, True, "offline"),
        ("disabled", True, True, "disabled"),
    ],
)
def test_auto_is_online_where_there_are_internet_and_a_key(
    home: Path, monkeypatch: pytest.MonkeyPatch, requested: str, internet: bool, key: bool, mode: str
) -> None:
    if key:
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert resolve_mode(requested, internet) == mode


def test_wandb_mode_decides_for_auto_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert resolve_mode("auto", True) == "disabled"
    assert resolve_mode("offline", True) == "offline"


def test_an_agents_run_id_is_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert adopted_run_id() is None
    monkeypatch.setenv("WANDB_RUN_ID", "trial-1")
    assert adopted_run_id() == "trial-1"
