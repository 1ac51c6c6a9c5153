"""The manifests say what they mean: valid against KubeRay's CRDs, and true to rules that the CRDs do not enforce."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT.parent / "shared" / "schemas" / "kuberay"
CRDS = {"RayCluster": "ray.io_rayclusters.yaml.gz", "RayJob": "ray.io_rayjobs.yaml.gz"}
RAY = "2.60.0"


def manifests() -> list[dict[str, Any]]:
    """Return every document under kuberay/."""
    return [d for p in sorted((ROOT / "kuberay").glob("*.yaml")) for d in yaml.safe_load_all(p.read_text())]


def pods(value: Any) -> Iterator[dict[str, Any]]:
    """Find every pod spec in a manifest."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for inner in value.values():
            yield from pods(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pods(inner)


@pytest.mark.parametrize("manifest", manifests(), ids=lambda m: m["kind"])
def test_manifests_fit_their_crd(manifest: dict[str, Any]) -> None:
    path = SCHEMAS / CRDS[manifest["kind"]]
    if not path.exists():
        pytest.skip("KubeRay's CRDs are not here (../shared/schemas/kuberay)")
    crd = yaml.safe_load(gzip.decompress(path.read_bytes()))
    version = next(v for v in crd["spec"]["versions"] if f"ray.io/{v['name']}" == manifest["apiVersion"])
    schema = _closed(version["schema"]["openAPIV3Schema"])
    jsonschema.Draft202012Validator(schema).validate(manifest)


def test_ray_has_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert f"ray[default]=={RAY}" in project["project"]["dependencies"]
    cluster = next(m for m in manifests() if m["kind"] == "RayCluster")
    assert cluster["spec"]["rayVersion"] == RAY


def test_the_cluster_keeps_the_rules_that_no_schema_checks() -> None:
    cluster = next(m for m in manifests() if m["kind"] == "RayCluster")
    spec = cluster["spec"]
    assert len(cluster["metadata"]["name"]) <= 53
    assert spec["authOptions"]["mode"] == "token"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["maxReplicas"] <= 10
        assert "restartPolicy" not in group["template"]["spec"]  # autoscaler v2
        assert "labels" not in group["rayStartParams"]


def test_the_job_keeps_the_rules_that_no_schema_checks() -> None:
    job = next(m for m in manifests() if m["kind"] == "RayJob")
    spec = job["spec"]
    assert spec["submissionMode"] in {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"}
    assert ("rayClusterSpec" in spec) != ("clusterSelector" in spec)
    assert spec["clusterSelector"] == {"ray.io/cluster": "astrid"}
    assert spec["backoffLimit"] == 0
    assert {r["policy"] for r in spec["deletionStrategy"]["deletionRules"]} == {"DeleteSelf"}
    assert "shutdownAfterJobFinishes" not in spec
    script = spec["entrypoint"].split()[1]
    assert (ROOT / script).is_file()


@pytest.mark.parametrize("pod", [p for m in manifests() for p in pods(m)])
def test_pods_are_restricted_and_bounded(pod: dict[str, Any]) -> None:
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in pod["containers"]:
        assert container["resources"]["limits"]["memory"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        plain = [e["name"] for e in container.get("env", ()) if "value" in e and e["name"].startswith("ASTRID_")]
        assert plain == [], "settings come from the Secret alone"


def test_chart_values_fit_their_schema() -> None:
    values = yaml.safe_load((ROOT / "charts" / "astrid" / "values.yaml").read_text())
    schema = json.loads((ROOT / "charts" / "astrid" / "values.schema.json").read_text())
    jsonschema.validate(values, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values | {"replica": 2}, schema)


def test_chart_commands_exist() -> None:
    commands = set(re.findall(r"args: \[astrid, (\w+)", "".join(p.read_text() for p in _templates())))
    assert commands == {"serve", "migrate"}
    cli = (ROOT / "astrid" / "cli.py").read_text()
    assert all(f"def {command}(" in cli for command in commands)


def test_chart_renders() -> None:
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("helm is not installed")
    command = [helm, "template", "astrid", str(ROOT / "charts" / "astrid")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rendered = [d for d in yaml.safe_load_all(done.stdout) if d]
    assert {d["kind"] for d in rendered} == {"Deployment", "Service", "Job"}
    for pod in (p for d in rendered for p in pods(d)):
        assert pod["enableServiceLinks"] is False


def _templates() -> list[Path]:
    return sorted((ROOT / "charts" / "astrid" / "templates").glob("*.yaml"))


def _closed(schema: Any) -> Any:
    """Refuse properties that the CRD does not know, as the API server's strict validation does."""
    if isinstance(schema, dict):
        closed = {k: _closed(v) for k, v in schema.items()}
        preserves = schema.get("x-kubernetes-preserve-unknown-fields")
        if "properties" in schema and "additionalProperties" not in schema and not preserves:
            closed["additionalProperties"] = False
            # metadata is an ObjectMeta that CRDs do not spell out.
            if "metadata" in closed["properties"] and not closed["properties"]["metadata"].get("properties"):
                closed["properties"]["metadata"] = {"type": "object"}
        return closed
    return [_closed(v) for v in schema] if isinstance(schema, list) else schema
