"""What the processes of a service find in their environment."""

from __future__ import annotations

from pathlib import Path

from flows.service.environment import environment
from flows.service.state import Options, State

STATE, OPTIONS = State(Path("/state")), Options(port=4311)


def test_it_leads_to_this_server_whoever_typed_the_command() -> None:
    foreign = {
        "PREFECT_API_URL": "https://elsewhere.example/api",
        "PREFECT_HOME": "/elsewhere",
        "PREFECT_PROFILE": "work",
        "PREFECT_PROFILES_PATH": "/elsewhere/profiles.toml",
        "PREFECT_API_KEY": "secret",
        "HOME": "/h",
    }
    found = environment(STATE, OPTIONS, foreign)
    assert found["PREFECT_API_URL"] == "http://127.0.0.1:4311/api"
    assert found["PREFECT_HOME"] == "/state/prefect"
    assert found["RML_STATE"] == found["RML_SERVICE"] == "/state"
    assert found["HOME"] == "/h"
    assert not {"PREFECT_PROFILE", "PREFECT_PROFILES_PATH", "PREFECT_API_KEY"} & found.keys()


def test_nothing_is_told_to_the_makers_of_prefect() -> None:
    found = environment(STATE, OPTIONS, {"PREFECT_SERVER_ANALYTICS_ENABLED": "true"})
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_what_the_user_sets_outranks_our_defaults() -> None:
    assert environment(STATE, OPTIONS, {})["PREFECT_WORKER_QUERY_SECONDS"] == "1"
    assert environment(STATE, OPTIONS, {"PREFECT_WORKER_QUERY_SECONDS": "5"})["PREFECT_WORKER_QUERY_SECONDS"] == "5"


def test_a_server_behind_a_password_has_workers_that_know_it() -> None:
    assert "PREFECT_API_AUTH_STRING" not in environment(STATE, OPTIONS, {})
    found = environment(STATE, OPTIONS, {"PREFECT_SERVER_API_AUTH_STRING": "me:word"})
    assert found["PREFECT_API_AUTH_STRING"] == "me:word"
