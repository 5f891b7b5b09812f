"""The manifests for KubeRay have the fields of their kinds, and what its operator asks for beyond them.

The fields are those of KubeRay's API reference (ray.io/v1, KubeRay 1.7), written down here as far as the
manifests use them: an unknown or misspelt one is refused. The same for the pods in them.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rmsai_ray.compute import ENCODERS_ONLY

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = sorted((ROOT / "cluster/kuberay").glob("*.yaml"))
Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
YES_NO: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
ANY: Schema = {}


def fields(*required: str, **properties: Schema) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


def listed(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


METADATA = fields(name=TEXT, labels=TEXTS, annotations=TEXTS)
SELECTOR = fields(
    matchLabels=TEXTS,
    matchExpressions=listed(fields("key", "operator", key=TEXT, operator=TEXT, values=listed(TEXT))),
)
PORT = fields(port=COUNT, protocol={"enum": ["TCP", "UDP"]})
PEER = fields(podSelector=SELECTOR, namespaceSelector=SELECTOR)
RESOURCES = fields("requests", "limits", requests=TEXTS, limits=TEXTS)
SECURITY = fields(
    "allowPrivilegeEscalation",
    "capabilities",
    allowPrivilegeEscalation={"const": False},
    capabilities=fields("drop", drop={"const": ["ALL"]}),
)
CONTAINER = fields(
    *("name", "image", "resources", "securityContext"),
    name=TEXT,
    image={"type": "string", "pattern": r"^rmsai-ray:\d+\.\d+\.\d+-(cpu|gpu)$"},
    command=listed(TEXT),
    args=listed(TEXT),
    env=listed(fields("name", name=TEXT, value=TEXT, valueFrom=fields("secretKeyRef", secretKeyRef=TEXTS))),
    envFrom=listed(fields("secretRef", secretRef=fields("name", name=TEXT, optional=YES_NO))),
    ports=listed(fields("containerPort", containerPort=COUNT, name=TEXT)),
    resources=RESOURCES,
    securityContext=SECURITY,
)
POD = fields(
    "spec",
    metadata=METADATA,
    spec=fields(
        *("containers", "securityContext"),
        serviceAccountName=TEXT,
        automountServiceAccountToken=YES_NO,
        restartPolicy={"const": "Never"},  # or unset: autoscaler v2 takes no other
        terminationGracePeriodSeconds=COUNT,
        nodeSelector=TEXTS,
        tolerations=listed(
            fields("key", "operator", "effect", key=TEXT, operator=TEXT, value=TEXT, effect=TEXT)
        ),
        securityContext=fields(
            *("runAsNonRoot", "seccompProfile"),
            runAsNonRoot={"const": True},
            runAsUser={"type": "integer", "minimum": 1},
            fsGroup=COUNT,
            seccompProfile={"const": {"type": "RuntimeDefault"}},
        ),
        containers=listed(CONTAINER),
    ),
)
RAY_CLUSTER = fields(
    *("headGroupSpec", "rayVersion", "authOptions"),
    rayVersion=TEXT,
    authOptions=fields("mode", mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    enableInTreeAutoscaling=YES_NO,
    autoscalerOptions=fields(
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds=COUNT,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        securityContext=SECURITY,
        resources=RESOURCES,
    ),
    headGroupSpec=fields("rayStartParams", "template", rayStartParams=TEXTS, labels=TEXTS, template=POD),
    workerGroupSpecs=listed(
        fields(
            *("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            idleTimeoutSeconds=COUNT,
            labels=TEXTS,
            rayStartParams=TEXTS,
            template=POD,
        )
    ),
)
RAY_JOB = fields(
    "entrypoint",
    entrypoint=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    shutdownAfterJobFinishes=YES_NO,
    ttlSecondsAfterFinished=COUNT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    backoffLimit=COUNT,
    runtimeEnvYAML=TEXT,
    rayClusterSpec=RAY_CLUSTER,
)
CRON_JOB = fields(
    *("schedule", "jobTemplate"),
    schedule=TEXT,
    timeZone=TEXT,
    concurrencyPolicy={"enum": ["Allow", "Forbid", "Replace"]},
    startingDeadlineSeconds=COUNT,
    successfulJobsHistoryLimit=COUNT,
    failedJobsHistoryLimit=COUNT,
    jobTemplate=fields("spec", spec=fields(backoffLimit=COUNT, activeDeadlineSeconds=COUNT, template=POD)),
)
SPECS: dict[tuple[str, str], Schema] = {
    ("ray.io/v1", "RayCluster"): RAY_CLUSTER,
    ("ray.io/v1", "RayJob"): RAY_JOB,
    ("ray.io/v1", "RayCronJob"): fields(
        *("schedule", "jobTemplate"), schedule=TEXT, timeZone=TEXT, suspend=YES_NO, jobTemplate=RAY_JOB
    ),
    ("batch/v1", "CronJob"): CRON_JOB,
    ("networking.k8s.io/v1", "NetworkPolicy"): fields(
        *("podSelector", "policyTypes", "ingress", "egress"),
        podSelector=SELECTOR,
        policyTypes={"const": ["Ingress", "Egress"]},
        ingress=listed(fields("from", **{"from": listed(PEER)}, ports=listed(PORT))),
        egress=listed(fields(to=listed(PEER), ports=listed(PORT))),
    ),
}
LONGEST_NAME = 47
"""Of a RayJob: KubeRay appends to it for the names of pods and services."""


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def clusters() -> dict[str, dict[str, Any]]:
    """The spec of every Ray cluster in the manifests, by file."""
    specs = {path.name: documents(path)[-1]["spec"] for path in MANIFESTS}
    nightly = specs["nightly.yaml"]["jobTemplate"]
    return {
        "raycluster.yaml": specs["raycluster.yaml"],
        "rayjob.yaml": specs["rayjob.yaml"]["rayClusterSpec"],
        "nightly.yaml": nightly["rayClusterSpec"],
    }


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_have_the_fields_of_their_kind_and_no_others(path: Path) -> None:
    for found in documents(path):
        jsonschema.validate(found["metadata"], METADATA)
        assert len(found["metadata"]["name"]) <= LONGEST_NAME
        if found["kind"] == "ServiceAccount":
            assert set(found) == {"apiVersion", "kind", "metadata"}
            continue
        assert set(found) == {"apiVersion", "kind", "metadata", "spec"}
        jsonschema.validate(found["spec"], SPECS[found["apiVersion"], found["kind"]])


def test_a_misspelt_field_is_refused() -> None:
    spec = clusters()["raycluster.yaml"]
    spec["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(spec, RAY_CLUSTER)


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml", "nightly.yaml"])
def test_the_operator_would_take_the_cluster(name: str) -> None:
    """What KubeRay's own validation asks for beyond the types of the fields."""
    spec = clusters()[name]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"ray[data,default,train]=={spec['rayVersion']}" in project["dependencies"]
    assert spec["authOptions"] == {"mode": "token"}
    head = spec["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0", "work on the head"
    readers, encoders = spec["workerGroupSpecs"]
    for group in (head, readers, encoders):
        assert "labels" not in group["rayStartParams"], "the operator refuses labels there"
        [container] = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"], "Ray counts the limits"
        assert f"rmsai-ray:{project['version']}-" in container["image"]
    for group in (readers, encoders):
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        keys = {toleration["key"] for toleration in group["template"]["spec"]["tolerations"]}
        assert set(group["template"]["spec"]["nodeSelector"]) <= keys
    assert readers["minReplicas"] >= 1, "a run that finds no core is refused"
    assert encoders["labels"] == {"pool": ENCODERS_ONLY}
    assert encoders["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_all_manifests_mean_the_same_cluster() -> None:
    first, *others = clusters().values()
    assert all(other == first for other in others)


def test_secrets_are_references() -> None:
    for path in MANIFESTS:
        text = path.read_text()
        assert "kind: Secret" not in text
        for found in documents(path):
            for name, value in environment_of(found):
                assert "secret" not in name.lower(), path
                assert name != "RAY_AUTH_TOKEN" or value is None, path


def environment_of(node: Any) -> list[tuple[str, str | None]]:
    """(name, literal value) of every variable of every container."""
    if isinstance(node, list):
        return [pair for each in node for pair in environment_of(each)]
    if not isinstance(node, dict):
        return []
    own = [(each["name"], each.get("value")) for each in node.get("env", [])]
    return own + [pair for each in node.values() for pair in environment_of(each)]
