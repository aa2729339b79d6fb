"""The user's Prefect profiles: ours comes and goes, and nothing else in the file changes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from flows.service import profile
from flows.service.state import Options, State
from rml_core.config.problem import RunFailed

OPTIONS = Options(port=4311)
OURS = {"PREFECT_API_URL": "http://127.0.0.1:4311/api", "PREFECT_PLUGINS_ENABLED": "true"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "profiles.toml"


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


def put_by_user(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_a_file_there_is_one_until_the_service_goes(path: Path, state: State) -> None:
    assert profile.put(path, state, OPTIONS)
    assert tomllib.loads(path.read_text()) == {"active": "rml", "profiles": {"rml": OURS}}
    assert path.stat().st_mode & 0o777 == 0o600
    profile.take_back(state, OPTIONS)
    assert not path.exists()
    assert not state.profile.exists()


def test_a_profile_without_a_server_is_active_again_afterwards(path: Path, state: State) -> None:
    put_by_user(path, 'active = "local"\n\n[profiles.local]\nPREFECT_LOGGING_LEVEL = "DEBUG"\n')
    before = tomllib.loads(path.read_text())
    assert profile.put(path, state, OPTIONS)
    found = tomllib.loads(path.read_text())
    assert found == {"active": "rml", "profiles": {**before["profiles"], "rml": OURS}}
    profile.take_back(state, OPTIONS)
    assert tomllib.loads(path.read_text()) == before


def test_a_profile_with_a_server_of_its_own_stays_active(path: Path, state: State) -> None:
    put_by_user(path, 'active = "work"\n[profiles.work]\nPREFECT_API_URL = "https://prefect.example/api"\n')
    before = tomllib.loads(path.read_text())
    assert not profile.put(path, state, OPTIONS)
    assert tomllib.loads(path.read_text()) == {"active": "work", "profiles": {**before["profiles"], "rml": OURS}}
    profile.take_back(state, OPTIONS)
    assert tomllib.loads(path.read_text()) == before


def test_a_second_up_remembers_what_was_before_the_first(path: Path, state: State) -> None:
    put_by_user(path, 'active = "local"\n[profiles.local]\n')
    before = tomllib.loads(path.read_text())
    for _ in range(2):
        assert profile.put(path, state, OPTIONS)
    profile.take_back(state, OPTIONS)
    assert tomllib.loads(path.read_text()) == before


def test_what_another_service_has_written_since_stays(path: Path, state: State, tmp_path: Path) -> None:
    profile.put(path, state, OPTIONS)
    second = State(tmp_path / "second")
    # The active profile names a server: the first one's.
    assert profile.put(path, second, Options(port=4312))
    profile.take_back(state, OPTIONS)
    found = tomllib.loads(path.read_text())
    assert found["profiles"]["rml"]["PREFECT_API_URL"] == "http://127.0.0.1:4312/api"
    profile.take_back(second, Options(port=4312))
    assert tomllib.loads(path.read_text())["profiles"]["rml"] == OURS


def test_what_the_user_has_made_active_since_stays(path: Path, state: State) -> None:
    profile.put(path, state, OPTIONS)
    put_by_user(path, path.read_text().replace('active = "rml"', 'active = "mine"') + "\n[profiles.mine]\n")
    profile.take_back(state, OPTIONS)
    assert tomllib.loads(path.read_text()) == {"active": "mine", "profiles": {"mine": {}}}


def test_a_file_that_cannot_be_read_is_left_alone(path: Path, state: State) -> None:
    put_by_user(path, "active = [")
    with pytest.raises(RunFailed) as failed:
        profile.put(path, state, OPTIONS)
    assert str(failed.value).startswith(f"{path}, where Prefect keeps its profiles, cannot be read: ")
    assert path.read_text() == "active = ["


def test_a_link_stays_a_link(path: Path, state: State, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "profiles.toml"
    put_by_user(real, '[profiles.local]\nPREFECT_LOGGING_LEVEL = "DEBUG"\n')
    path.parent.mkdir()
    path.symlink_to(real)
    profile.put(path, state, OPTIONS)
    assert path.is_symlink()
    assert "rml" in tomllib.loads(real.read_text())["profiles"]


def test_the_file_is_where_prefect_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert profile.profiles_path({}) == tmp_path / ".prefect" / "profiles.toml"
    assert profile.profiles_path({"PREFECT_HOME": "/p"}) == Path("/p/profiles.toml")
    assert profile.profiles_path({"PREFECT_HOME": "/p", "PREFECT_PROFILES_PATH": "/q"}) == Path("/q")


def test_a_profile_of_our_name_is_the_users_again(path: Path, state: State) -> None:
    text = 'active = "work"\n\n[profiles.work]\nPREFECT_LOGGING_LEVEL = "INFO"\n\n[profiles.rml]\nPREFECT_API_URL = "http://own"\n'
    put_by_user(path, text)
    before = tomllib.loads(path.read_text())
    assert profile.put(path, state, OPTIONS)
    profile.take_back(state, OPTIONS)
    assert tomllib.loads(path.read_text()) == before


@pytest.mark.parametrize("content", ["{}", "[]", '"text"'])
def test_what_is_remembered_and_makes_no_sense_is_forgotten(content: str, path: Path, state: State) -> None:
    state.profile.parent.mkdir(parents=True, exist_ok=True)
    state.profile.write_text(content)
    profile.take_back(state, OPTIONS)
    assert not path.exists()
