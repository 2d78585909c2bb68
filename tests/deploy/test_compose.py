"""The compose files: what their schema does not ask."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.files import BACKUP, DEV, PROD, ROOT, Document, compose, ours, seconds, services

from picopay import worker
from picopay.cli import serve
from picopay.infra.placeholders import PLACEHOLDERS
from picopay.infra.settings import Settings

NAMES = {name.upper() for name in Settings.model_fields}
# The command line says whether there is a worker.
BY_COMMAND = {"PICOPAY_WORKER"}
# Nothing of these belongs in production; or a file, or the whole, has it in another form.
NOT_IN_PRODUCTION = {
    *(name for name in NAMES if name.startswith("FAKE_PAYMENT_")),
    *("PICOPAY_URL", "REDIS_URL", "TRANSACTION_WEBHOOK_UNSIGNED", "PICOPAY_DATA_DIR"),
    "METRICS_TOKEN",  # Prometheus asks from within; the proxy in front passes /metrics to nobody
} - {"FAKE_PAYMENT_ENABLED"}
SECRETS = {
    *("DATABASE_URL", "MIGRATION_DATABASE_URL", "REDIS_PASSWORD", "APP_API_KEY", "ADMIN_SECRET"),
    *("PAYMENT_WEBHOOK_SECRET", "TRANSACTION_WEBHOOK_SECRET"),
}
DATABASES = ("postgres", "valkey")


def set_in(service: Document) -> set[str]:
    return set(service.get("environment", {})) - {"PYTHONPATH"}


@pytest.mark.parametrize("name", ["api", "worker", "migrate"])
def test_development_has_every_setting(name: str) -> None:
    assert set_in(ours(DEV)[name]) == NAMES - BY_COMMAND


def test_production_has_every_setting_and_its_secrets_are_files() -> None:
    told = {name: set_in(service) for name, service in ours(PROD).items()}
    files = {name: {s.upper() for s in service["secrets"]} for name, service in ours(PROD).items()}
    assert {secret for secrets in files.values() for secret in secrets} == SECRETS
    for settings in told.values():
        assert settings == NAMES - BY_COMMAND - NOT_IN_PRODUCTION - SECRETS
    assert files["api"] == SECRETS - {"MIGRATION_DATABASE_URL"}
    assert files["migrate"] == {"DATABASE_URL", "MIGRATION_DATABASE_URL"}


def test_production_says_what_it_leaves_out_on_purpose() -> None:
    _, _, said = PROD.read_text().partition("# Left out on purpose:\n")
    said, _, _ = said.partition("\nname:")
    words = set(re.findall(r"[A-Z]+_[A-Z_]+", said))
    left_out = BY_COMMAND | NOT_IN_PRODUCTION
    assert words == {n for n in left_out if not n.startswith("FAKE_")} | {"FAKE_PAYMENT_"}


@pytest.mark.parametrize("path", [DEV, PROD])
def test_what_is_set_is_a_setting_that_the_product_accepts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As compose would hand it over, with nothing of the operator's own set."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in ours(path)["api"]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)))
    monkeypatch.chdir(path.parent / "deploy")  # where there is no .env
    settings = Settings()
    assert settings.production is (path == PROD)
    assert settings.redis_url == "redis://valkey:6379/0"


def test_development_uses_known_placeholders_which_production_refuses() -> None:
    environment = ours(DEV)["api"]["environment"]
    for name in ("APP_API_KEY", "ADMIN_SECRET", "PAYMENT_WEBHOOK_SECRET"):
        default = environment[name].partition(":-")[2].rstrip("}")
        assert default in PLACEHOLDERS


def test_a_variable_of_the_operators_own_sets_the_setting_of_its_name() -> None:
    for path in (DEV, PROD):
        for name, value in ours(path)["api"]["environment"].items():
            for variable in re.findall(r"\$\{(\w+)", str(value)):
                assert variable == name


def published(path: Path) -> dict[str, list[str]]:
    return {name: service.get("ports", []) for name, service in services(path).items()}


def test_production_publishes_nothing_of_the_databases_and_the_rest_on_loopback() -> None:
    ports = published(PROD)
    assert not any(ports[name] for name in (*DATABASES, "worker", "migrate"))
    assert all(port.startswith("127.0.0.1:") for each in ports.values() for port in each)
    assert ports["api"] == ["127.0.0.1:8000:8000"]


def test_development_listens_on_this_machine_alone() -> None:
    ports = [port for each in published(DEV).values() for port in each]
    assert len(ports) >= 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_databases_of_production_are_in_a_network_without_a_way_out() -> None:
    document = compose(PROD)
    internal = {n for n, it in document["networks"].items() if it and it.get("internal")}
    for name in DATABASES:
        assert set(document["services"][name]["networks"]) <= internal


@pytest.mark.parametrize("name", sorted(services(PROD)))
def test_each_container_of_production_is_confined(name: str) -> None:
    service = services(PROD)[name]
    user = service["user"].partition(":")[0]
    assert user.isdecimal()
    assert int(user) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert service["restart"] in {"unless-stopped", "on-failure:3"}
    assert not {"privileged", "cap_add", "network_mode", "pid"} & set(service)


def checked(path: Path) -> dict[str, bool]:
    """Whether a service that goes on has a check: the image's own is of the server."""
    return {
        name: "test" in service.get("healthcheck", {}) or name == "api"
        for name, service in services(path).items()
        if name != "migrate"
    }


@pytest.mark.parametrize("path", [DEV, PROD])
def test_whatever_goes_on_is_checked_for_health(path: Path) -> None:
    assert all(checked(path).values()), checked(path)
    assert ours(path)["migrate"]["healthcheck"] == {"disable": True}


@pytest.mark.parametrize("path", [DEV, PROD])
def test_api_and_worker_wait_for_the_migration_which_waits_for_the_database(path: Path) -> None:
    after: dict[str, Any] = {name: s["depends_on"] for name, s in ours(path).items()}
    for name in ("api", "worker"):
        assert after[name]["migrate"] == {"condition": "service_completed_successfully"}
    assert after["migrate"] == {"postgres": {"condition": "service_healthy"}}


@pytest.mark.parametrize("path", [DEV, PROD])
def test_who_is_told_to_stop_has_the_time_to_finish(path: Path) -> None:
    for service in ours(path).values():
        assert seconds(service["stop_grace_period"]) > serve.GRACE_SECONDS + worker.GRACE_SECONDS


@pytest.mark.parametrize("path", [DEV, PROD])
def test_background_work_has_a_service_of_its_own(path: Path) -> None:
    assert "--no-worker" in ours(path)["api"]["command"]
    assert ours(path)["worker"]["command"][0] == "worker"


def test_every_secret_that_production_mounts_is_one_that_the_script_draws(tmp_path: Path) -> None:
    mounted = {file["file"] for file in compose(PROD)["secrets"].values()}
    folder = tmp_path / "secrets"
    script = "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
    script += "import make_secrets; make_secrets.main(Path(sys.argv[2]))"
    command = [sys.executable, "-c", script, ROOT / "scripts", folder]
    assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    drawn = {path.name: path.read_text().strip() for path in folder.iterdir()}
    assert {f"deploy/secrets/{name}" for name in drawn} == mounted
    assert min(map(len, drawn.values())) >= 32
    assert drawn["postgres_app_password"] in drawn["database_url"]
    assert drawn["postgres_owner_password"] in drawn["migration_database_url"]
    assert folder.stat().st_mode & 0o777 == 0o700
    again = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert again.returncode == 1
    assert {path.name: path.read_text().strip() for path in folder.iterdir()} == drawn


def test_the_backup_archives_by_the_command_that_the_drill_restores_from() -> None:
    document = compose(BACKUP)
    postgres = document["services"]["postgres"]
    told = dict(setting.split("=", 1) for setting in postgres["command"][2::2])
    drill = (ROOT / "scripts/restore_drill.py").read_text()
    (tried,) = re.findall(r'^ARCHIVE: Final = \(((?:\n    ".*")+)\n\)', drill, re.MULTILINE)
    command = "".join(re.findall(r'"(.*)"', tried))
    assert told.pop("archive_command") == command.replace("{folder}", "/backup/wal")
    assert told == {"archive_mode": "on", "archive_timeout": "60"}
    assert [volume.rpartition(":")[2] for volume in postgres["volumes"]] == ["/backup"]
    assert set(document["services"]) <= set(services(PROD))
    assert compose(PROD)["name"] + "_postgres" in document["volumes"]["postgres"]["name"]


def test_another_volume_makes_another_container() -> None:
    """Compose compares a service's own lines, and not the names of its volumes."""
    document = compose(BACKUP)
    volume = document["volumes"]["postgres"]["name"]
    assert "${POSTGRES_VOLUME" in volume
    assert document["services"]["postgres"]["labels"] == {"picopay.volume": volume}


def test_no_secret_stands_in_the_file_of_production() -> None:
    environments = [s.get("environment", {}) for s in services(PROD).values()]
    words = re.compile(r"PASSWORD|SECRET|KEY|_URL")
    for environment in environments:
        for name, value in environment.items():
            if words.search(name) and not name.endswith("_REQUIRE_API_KEY"):
                assert str(value).startswith("/run/secrets/"), name


@pytest.mark.parametrize("path", [DEV, PROD])
def test_other_images_are_named_with_their_version(path: Path) -> None:
    for service in services(path).values():
        tag = service["image"].rpartition(":")[2]
        assert re.fullmatch(r"v?\d+(\.\d+)*", tag), service["image"]


def test_both_files_run_the_same_versions() -> None:
    assert {n: s["image"] for n, s in services(DEV).items()} == {
        n: s["image"] for n, s in services(PROD).items()
    }
