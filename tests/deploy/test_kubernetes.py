"""The manifests: what their schema does not ask, and where they and the product must agree."""

import re
from typing import Any

import pytest
from tests.deploy.files import (
    BASE,
    OVERLAY,
    PROD,
    ROOT,
    Document,
    documents,
    named,
    ours,
    pods,
    resources,
)
from typer.testing import CliRunner

from picopay import worker
from picopay.app import create_app
from picopay.cli import serve
from picopay.cli.main import app
from picopay.infra.settings import Settings

PODS = dict(pods())
DEPLOYMENTS = ("api", "worker")
NAMES = {name.upper() for name in Settings.model_fields}


def container(component: str) -> Document:
    (found,) = PODS[component]["containers"]
    return dict(found)


def test_the_image_serves_works_and_migrates() -> None:
    assert {component: container(component)["args"][0] for component in PODS} == {
        "api": "serve",
        "worker": "worker",
        "migrate": "migrate",
    }


@pytest.mark.parametrize("component", sorted(PODS))
def test_its_arguments_are_ones_that_the_command_has(component: str) -> None:
    command, *arguments = container(component)["args"]
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    options = [argument for argument in arguments if argument.startswith("--")]
    assert all(option in shown for option in options)


@pytest.mark.parametrize("component", sorted(PODS))
def test_each_container_is_confined(component: str) -> None:
    pod, security = PODS[component], container(component)["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("component", sorted(PODS))
def test_each_container_asks_for_what_it_needs_and_is_limited(component: str) -> None:
    for kind in ("requests", "limits"):
        assert {"cpu", "memory"} <= set(container(component)["resources"][kind])


@pytest.mark.parametrize("component", sorted(PODS))
def test_what_is_mounted_is_declared_and_only_tmp_is_writable(component: str) -> None:
    volumes = {volume["name"]: volume for volume in PODS[component]["volumes"]}
    mounts = container(component)["volumeMounts"]
    assert {mount["name"] for mount in mounts} == set(volumes)
    assert {m["mountPath"] for m in mounts if not m.get("readOnly")} == {"/tmp"}  # noqa: S108
    assert "emptyDir" in volumes["tmp"]
    assert "secret" in volumes["secrets"]


def test_the_probes_ask_what_the_server_answers() -> None:
    api = container("api")
    paths = {probe: api[f"{probe}Probe"]["httpGet"]["path"] for probe in ("liveness", "readiness")}
    assert paths == {"liveness": "/livez", "readiness": "/readyz"}
    assert api["startupProbe"]["httpGet"]["path"] == "/livez"
    answered = create_app(Settings(database_url="postgresql://a@b/c")).openapi()["paths"]
    assert set(paths.values()) <= set(answered)
    # A database that does not answer is told of after two seconds, which is no silence.
    assert api["readinessProbe"]["timeoutSeconds"] > 2


@pytest.mark.parametrize("component", DEPLOYMENTS)
def test_probes_and_services_name_ports_that_the_command_opens(component: str) -> None:
    (port,) = container(component)["ports"]
    for probe in ("startupProbe", "livenessProbe"):
        assert container(component)[probe]["httpGet"]["port"] == port["name"]
    arguments = container(component)["args"]
    told = arguments[arguments.index("--metrics-port") + 1] if component == "worker" else "8000"
    assert str(port["containerPort"]) == told
    host = "--metrics-host" if component == "worker" else "--host"
    assert arguments[arguments.index(host) + 1] == "0.0.0.0"  # noqa: S104


def test_the_service_leads_to_the_server() -> None:
    service, deployment = named("Service", "picopay-api"), named("Deployment", "picopay-api")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["ports"][0]["targetPort"] == container("api")["ports"][0]["name"]


def test_who_is_told_to_stop_has_the_time_to_finish() -> None:
    pause = container("api")["lifecycle"]["preStop"]["sleep"]["seconds"]
    finish = serve.GRACE_SECONDS + worker.GRACE_SECONDS
    assert PODS["api"]["terminationGracePeriodSeconds"] > pause + finish
    assert PODS["worker"]["terminationGracePeriodSeconds"] > worker.GRACE_SECONDS


@pytest.mark.parametrize("component", DEPLOYMENTS)
def test_an_update_or_a_drained_node_takes_none_away_before_its_successor(component: str) -> None:
    deployment = named("Deployment", f"picopay-{component}")["spec"]
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    budget = named("PodDisruptionBudget", f"picopay-{component}")["spec"]
    assert budget["minAvailable"] == 1
    assert budget["selector"] == deployment["selector"]


def test_the_autoscaler_scales_the_server_and_nobody_else_says_how_many() -> None:
    autoscaler = named("HorizontalPodAutoscaler", "picopay-api")["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == "picopay-api"
    assert 2 <= autoscaler["minReplicas"] < autoscaler["maxReplicas"]
    assert "replicas" not in named("Deployment", "picopay-api")["spec"]
    assert named("Deployment", "picopay-worker")["spec"]["replicas"] >= 2


def test_secrets_are_referred_to_and_never_contained() -> None:
    everything = [*resources(BASE), *resources(OVERLAY)]
    assert not [r for r in everything if r["kind"] == "Secret"]
    told = {name for r in everything if r["kind"] == "ConfigMap" for name in r["data"]}
    assert not [n for n in told if re.search(r"PASSWORD|SECRET|API_KEY|_URL", n)]


def test_the_owner_of_the_schema_is_known_to_the_migration_alone() -> None:
    secret_of = {
        component: volume["secret"]["secretName"]
        for component, pod in PODS.items()
        for volume in pod["volumes"]
        if "secret" in volume
    }
    assert secret_of == {"api": "picopay", "worker": "picopay", "migrate": "picopay-migration"}


def test_the_worker_is_given_the_secrets_that_it_has_in_compose_but_for_redis() -> None:
    (secrets,) = [v["secret"] for v in PODS["worker"]["volumes"] if "secret" in v]
    files = {item["path"] for item in secrets["items"]}
    assert files == set(ours(PROD)["worker"]["secrets"]) - {"redis_password"}


def test_what_the_config_map_sets_are_settings_that_the_product_accepts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = named("ConfigMap", "picopay")["data"]
    assert set(data) <= NAMES
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    assert Settings(database_url="postgresql://a@b/c").production


def policies() -> dict[str, dict[str, Any]]:
    return {
        r["metadata"]["name"]: r["spec"] for r in resources(BASE) if r["kind"] == "NetworkPolicy"
    }


def ports(rules: list[Document]) -> set[tuple[str, int]]:
    """A rule without ports would open all of them."""
    assert all(rule["ports"] for rule in rules)
    return {(port["protocol"], port["port"]) for rule in rules for port in rule["ports"]}


def test_the_network_is_closed_but_for_what_is_needed() -> None:
    found = policies()
    assert found.pop("picopay-nothing") == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    ingress = {name: spec.get("ingress", []) for name, spec in found.items()}
    egress = {name: spec.get("egress", []) for name, spec in found.items()}
    assert ports(ingress.pop("picopay-api")) == {("TCP", 8000)}
    assert ports(ingress.pop("picopay-worker")) == {("TCP", 9100)}
    stores = egress.pop("picopay-stores")
    assert ports(stores) == {
        *(("TCP", 5432), ("TCP", 6432), ("TCP", 6379)),
        *(("UDP", 53), ("TCP", 53)),
    }
    names = [rule for rule in stores if ("UDP", 53) in ports([rule])]
    assert [list(peer) for rule in names for peer in rule["to"]] == [
        ["namespaceSelector", "podSelector"]
    ]
    traces = egress.pop("picopay-traces")
    assert ports(traces) == {("TCP", 4318)}
    assert [sorted(peer) for rule in traces for peer in rule["to"]] == [["namespaceSelector"]]
    assert not any([*ingress.values(), *egress.values()])


def test_the_ingress_forwards_what_callers_use_and_nothing_of_the_operators() -> None:
    (ingress,) = [r["spec"] for r in resources(OVERLAY) if r["kind"] == "Ingress"]
    (rule,) = ingress["rules"]
    kinds = {path["path"]: path["pathType"] for path in rule["http"]["paths"]}
    assert {path for path, kind in kinds.items() if kind == "Exact"} == {"/"}

    def forwarded(path: str) -> bool:
        """A prefix is one of whole segments."""
        below = (p for p, kind in kinds.items() if kind == "Prefix")
        return path in kinds or any(path.startswith(f"{prefix}/") for prefix in below)

    answered = create_app(Settings(database_url="postgresql://a@b/c")).openapi()["paths"]
    closed = {path for path in answered if not forwarded(path)}
    assert {path.split("/{")[0] for path in closed} == {
        *("/metrics", "/_fake_payments", "/admin/products", "/admin/refunds"),
        *("/v1/admin/dead-letters", "/v1/admin/dead-letters/replay"),
        "/v1/admin/dead-letters/discard",
    }


@pytest.mark.parametrize("component", DEPLOYMENTS)
def test_what_comes_in_comes_from_named_places(component: str) -> None:
    policy = policies()[f"picopay-{component}"]
    assert policy["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": component}
    peers = [peer for rule in policy["ingress"] for peer in rule["from"]]
    assert peers
    assert all(peer["namespaceSelector"]["matchLabels"] for peer in peers)


def test_prometheus_finds_the_pods_by_what_their_annotations_say() -> None:
    (configuration,) = documents(ROOT / "deploy/prometheus/prometheus.kubernetes.yml")
    (job,) = configuration["scrape_configs"]
    (discovery,) = job["kubernetes_sd_configs"]
    (kustomization,) = documents(OVERLAY / "kustomization.yaml")
    assert discovery == {"role": "pod", "namespaces": {"names": [kustomization["namespace"]]}}
    for component in DEPLOYMENTS:
        template = named("Deployment", f"picopay-{component}")["spec"]["template"]["metadata"]
        port = str(container(component)["ports"][0]["containerPort"])
        assert template["annotations"] == {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": port,
        }
    rules = {rule.get("target_label", rule.get("action")): rule for rule in job["relabel_configs"]}
    label = "__meta_kubernetes_pod_label_app_kubernetes_io_component"
    assert rules["job"]["source_labels"] == [label]
    assert rules["job"]["replacement"] == "picopay-$1"
    assert "prometheus_io_scrape" in rules["keep"]["source_labels"][0]
    assert "prometheus_io_port" in rules["__address__"]["source_labels"][1]
    (compose_file,) = documents(ROOT / "deploy/prometheus/prometheus.yml")
    told = {each["job_name"] for each in compose_file["scrape_configs"]}
    assert told == {f"picopay-{component}" for component in DEPLOYMENTS}


def test_the_kustomizations_list_every_file_and_patch_what_exists() -> None:
    for folder in (BASE, OVERLAY):
        (kustomization,) = documents(folder / "kustomization.yaml")
        listed = {name for name in kustomization["resources"] if name.endswith(".yaml")}
        assert listed == {f.name for f in folder.glob("*.yaml")} - {"kustomization.yaml"}
        patches = {patch["path"] for patch in kustomization.get("patches", [])}
        assert patches == {f"patches/{f.name}" for f in folder.glob("patches/*.yaml")}
        for patch in patches:
            (patched,) = documents(folder / patch)
            assert named(patched["kind"], patched["metadata"]["name"])["apiVersion"]


def test_the_namespace_enforces_what_the_pods_promise() -> None:
    (namespace,) = [r for r in resources(OVERLAY) if r["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    (kustomization,) = documents(OVERLAY / "kustomization.yaml")
    assert kustomization["namespace"] == namespace["metadata"]["name"]
