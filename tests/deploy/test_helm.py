"""The Helm charts, linted and rendered by Helm itself, and valid by Kubernetes' own schemas."""

import json
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from mamfed_common import __version__

helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
DEPLOY = Path(__file__).parents[2] / "deploy"
REQUIRED = {
    "mamfed-server": {"federation": {"name": "north", "host": "mamfed.example.org"}},
    "mamfed-client": {"site": {"name": "north"}, "data": {"claim": "images"}},
}
ROLES = {
    "mamfed-server": ("server/Dockerfile", "compose.yaml", "coordinator"),
    "mamfed-client": ("client/Dockerfile", "compose.site.yaml", "site"),
}
charts = pytest.mark.parametrize("name", REQUIRED)


def render(name, **values):
    """Return the manifests of a chart, each checked against Kubernetes' schema."""
    with helm.Chart.load(DEPLOY / "helm" / name) as chart:
        texts = chart.render(values={**REQUIRED[name], **values}, name="here", namespace="default")
    found = [m for text in texts.values() for m in yaml.safe_load_all(text) if m]
    for manifest in found:
        for version in ("1.25", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(json.loads(json.dumps(manifest)), version, strict=True)
    return {manifest["kind"]: manifest for manifest in found}


def pod_of(name, **values):
    return render(name, **values)["StatefulSet"]["spec"]["template"]["spec"]


@charts
def test_helm_lints_a_chart_without_a_warning(name):
    report = helm.chart.lint(DEPLOY / "helm" / name, REQUIRED[name], strict=True)
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


def test_a_mistake_in_a_manifest_would_be_noticed():
    with pytest.raises(kubernetes_validate.ValidationError):
        render("mamfed-server", service={"type": ["ClusterIP"], "annotations": {}})


@charts
def test_nothing_runs_with_privileges_or_writes_to_its_image(name):
    pod = pod_of(name)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    for container in pod["initContainers"] + pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context["privileged"]
        assert not context["allowPrivilegeEscalation"]
        assert {mount["name"] for mount in container["volumeMounts"]} >= {"home", "tmp"}


@charts
def test_a_chart_has_the_defaults_of_the_image_and_of_compose(name):
    dockerfile, compose, service = ROLES[name]
    pod = pod_of(name)
    (container,) = pod["containers"]
    found = yaml.safe_load((DEPLOY / compose).read_text())["services"][service]
    assert container["args"] == found["command"]
    memory = re.search(r":-(\d+)g", found["mem_limit"])[1]
    assert container["resources"]["limits"]["memory"] == f"{memory}Gi"
    assert container["image"] == f"{found['image']}:{__version__}"
    grace = found["stop_grace_period"]
    assert f"{pod['terminationGracePeriodSeconds']}s" == grace
    health = re.search(r"^    CMD (\[.*\])$", (DEPLOY / dockerfile).read_text(), re.M)[1]
    probe = container["startupProbe"]
    assert probe["exec"]["command"] == json.loads(health)
    assert (probe["periodSeconds"], probe["timeoutSeconds"], probe["failureThreshold"]) == (
        60, 20, 3,
    )  # fmt: skip
    assert "livenessProbe" not in container, "the program restarts what has failed by itself"


def test_a_site_has_no_door():
    found = render("mamfed-client")
    assert "Service" not in found
    assert "ports" not in json.dumps(found)
    policy = found["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert "ingress" not in policy
    data = next(v for v in pod_of("mamfed-client")["volumes"] if v["name"] == "data")
    assert data["persistentVolumeClaim"] == {"claimName": "images", "readOnly": True}


def test_a_coordinator_has_one_door():
    found = render("mamfed-server", federation={**REQUIRED["mamfed-server"]["federation"],
                                                "port": 9555})  # fmt: skip
    (rule,) = found["NetworkPolicy"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": 9555, "protocol": "TCP"}]
    (port,) = found["Service"]["spec"]["ports"]
    (container,) = found["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    assert container["ports"] == [{"name": "mamfed", "containerPort": 9555, "protocol": "TCP"}]
    assert (port["port"], port["targetPort"]) == (9555, "mamfed")


def test_the_plan_of_a_chart_is_the_example_unless_a_value_says_otherwise():
    example = (DEPLOY / "examples/plan.yaml").read_text()
    assert (DEPLOY / "helm/mamfed-server/files/plan.yaml").read_text() == example
    assert render("mamfed-server")["ConfigMap"]["data"]["plan.yaml"].strip() == example.strip()
    own = render("mamfed-server", plan="seed: 7\n")["ConfigMap"]["data"]["plan.yaml"]
    assert own == "seed: 7\n"


def test_gpus_and_commands_by_hand_are_values():
    (container,) = pod_of("mamfed-client", gpus=2, maintenance=True)["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert container["command"] == ["sleep", "infinity"]
    assert "startupProbe" not in container


@charts
def test_a_missing_value_is_named(name):
    (group, keys), *_ = REQUIRED[name].items()
    key = next(iter(keys))
    with (
        helm.Chart.load(DEPLOY / "helm" / name) as chart,
        pytest.raises(helm.errors.HelmError, match=rf"{group}\.{key}: expected"),
    ):
        chart.render(values={}, name="here")
