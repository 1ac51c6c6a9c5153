"""The manifests of kuberay/, the chart and the Dockerfile: against schemas, against KubeRay's unwritten rules, and
against each other."""

from __future__ import annotations

import copy
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from astrid import __version__
from astrid.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT.parent / "shared" / "schemas" / "kuberay"
CHART = ROOT / "charts" / "astrid"
CRON_MINUTES = 29923591
"""A scheduled minute as Kubernetes appends it to a CronJob's name."""

Object = dict[str, Any]


def load(path: Path) -> Object:
    document: Object = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


@lru_cache(maxsize=4)
def crd_schema(plural: str) -> Object:
    """Return the v1 schema of a KubeRay kind, with unknown fields refused as the API server warns of them."""
    path = CRDS / f"ray.io_{plural}.yaml.gz"
    if not path.is_file():
        pytest.skip("KubeRay's resource definitions are not beside this checkout (../shared/schemas/kuberay)")
    # The fast loader where PyYAML has it: these are megabytes.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load(gzip.decompress(path.read_bytes()), Loader=loader)
    schema: Object = next(v for v in definition["spec"]["versions"] if v["name"] == "v1")["schema"]["openAPIV3Schema"]
    _close(schema)
    # The API server checks metadata itself; the definition only says that it is an object.
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def _close(node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _close(item)
    elif isinstance(node, dict):
        if node.get("x-kubernetes-int-or-string"):
            node.pop("type", None)
        if (
            node.get("type") == "object"
            and isinstance(node.get("properties"), dict)
            and not node.get("x-kubernetes-preserve-unknown-fields")
        ):
            node.setdefault("additionalProperties", False)
        for item in node.values():
            _close(item)


def breaches(manifest: Object, crd: str) -> list[str]:
    return [e.message for e in jsonschema.Draft202012Validator(crd_schema(crd)).iter_errors(manifest)]


CLUSTER = load(ROOT / "kuberay" / "raycluster.yaml")
NIGHTLY = load(ROOT / "kuberay" / "nightly-rayjob.yaml")


def ray_pin() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pin,) = [d for d in project["dependencies"] if d.startswith("ray[")]
    return str(pin.partition("==")[2])


def rayjob_faults(job: Object) -> list[str]:
    """Return what KubeRay 1.7 refuses in a RayJob although its schema allows it."""
    spec, faults = job["spec"], []
    meta = job["metadata"]
    # The API server appends five characters to generateName.
    name = meta.get("name") or meta["generateName"] + "x" * 5
    if len(name) > 47 or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        faults.append("name")
    mode = spec.get("submissionMode", "K8sJobMode")
    if mode not in {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"}:
        faults.append("submissionMode")
    rules = spec.get("deletionStrategy", {}).get("deletionRules")
    if rules and (spec.get("shutdownAfterJobFinishes") or "ttlSecondsAfterFinished" in spec):
        faults.append("two ways of deletion")
    if spec.get("ttlSecondsAfterFinished", 0) > 0 and not spec.get("shutdownAfterJobFinishes"):
        faults.append("ttl without shutdown")
    if set(spec.get("deletionStrategy", {})) & {"onSuccess", "onFailure"}:
        faults.append("deprecated deletion")
    for rule in rules or []:
        if len({"jobStatus", "jobDeploymentStatus"} & set(rule["condition"])) != 1:
            faults.append("condition")
    if ("clusterSelector" in spec) == ("rayClusterSpec" in spec):
        faults.append("one of clusterSelector and rayClusterSpec")
    if "clusterSelector" in spec:
        if not spec["clusterSelector"].get("ray.io/cluster"):
            faults.append("selector key")
        if spec.get("backoffLimit", 0) > 0:
            faults.append("backoffLimit with selector")
        if spec.get("suspend"):
            faults.append("suspend with selector")
        if mode == "SidecarMode":
            faults.append("SidecarMode with selector")
        if any(r["policy"] in {"DeleteCluster", "DeleteWorkers"} for r in rules or []):
            faults.append("selector deletes the cluster")
    if mode == "SidecarMode" and ("submitterPodTemplate" in spec or "submitterConfig" in spec):
        faults.append("SidecarMode with submitter")
    if not isinstance(yaml.safe_load(spec.get("runtimeEnvYAML", "{}")), dict):
        faults.append("runtimeEnvYAML")
    return faults


def raycluster_faults(cluster: Object) -> list[str]:
    """Return what KubeRay 1.7 with its default gates refuses in a RayCluster although its schema allows it."""
    spec, faults = cluster["spec"], []
    name = cluster["metadata"]["name"]
    if len(name) > 53 or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        faults.append("name")
    version = tuple(int(part) for part in spec["rayVersion"].split("."))
    if spec.get("authOptions", {}).get("mode") == "token" and version < (2, 52, 0):
        faults.append("token needs 2.52")
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in spec["workerGroupSpecs"]:
        if not group["minReplicas"] <= group.get("replicas", group["minReplicas"]) <= group["maxReplicas"]:
            faults.append("min <= replicas <= max")
    for group in groups:
        if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            faults.append("restartPolicy with autoscaler v2")
        started = group.get("rayStartParams", {})
        if not all(isinstance(v, str) for v in started.values()):
            faults.append("rayStartParams are strings")
        if "labels" in started or (
            set(started) & {"num-cpus", "num-gpus", "memory", "resources"} and "resources" in group
        ):
            faults.append("resources twice")
    if set(spec) & {"networkPolicy", "tlsOptions"}:
        faults.append("behind a gate")
    return faults


def pod_specs(node: Any) -> Iterator[Object]:
    """Yield every pod spec at any depth."""
    if isinstance(node, dict):
        if isinstance(node.get("containers"), list):
            yield node
        for value in node.values():
            yield from pod_specs(value)
    elif isinstance(node, list):
        for value in node:
            yield from pod_specs(value)


def pod_faults(pod: Object) -> list[str]:
    """Return where a pod falls short of the restricted standard, or of the house's own rules."""
    faults = []
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or context.get("runAsUser", 0) == 0:
        faults.append("root")
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        faults.append("seccomp")
    if pod.get("enableServiceLinks") is not False:
        faults.append("enableServiceLinks")
    if set(pod) & {"hostNetwork", "hostPID", "hostIPC"} or any("hostPath" in v for v in pod.get("volumes", [])):
        faults.append("host")
    for container in pod["containers"] + pod.get("initContainers", []):
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities") != {"drop": ["ALL"]}:
            faults.append(f"{container['name']}: privileges")
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= set(resources.get("requests", {})) or "memory" not in resources.get("limits", {}):
            faults.append(f"{container['name']}: resources")
        if not re.search(r"(@sha256:[0-9a-f]{64}|:(?!latest$)[\w.-]+)$", container["image"]):
            faults.append(f"{container['name']}: image without tag")
        for variable in container.get("env", []):
            if "value" in variable:
                faults.append(f"{container['name']}: {variable['name']} is plain")
            ours = variable["name"].startswith("ASTRID_")
            if ours and variable["name"].removeprefix("ASTRID_").lower() not in Settings.model_fields:
                faults.append(f"{container['name']}: {variable['name']} is no setting")
        mounted = {m["name"] for m in container.get("volumeMounts", [])}
        if not mounted <= {v["name"] for v in pod.get("volumes", [])}:
            faults.append(f"{container['name']}: volume")
    return faults


# --- kuberay/ ---


@pytest.mark.parametrize(
    ("manifest", "crd"), [(CLUSTER, "rayclusters"), (NIGHTLY, "rayjobs")], ids=["cluster", "night"]
)
def test_manifest_meets_the_crd(manifest: Object, crd: str) -> None:
    assert breaches(manifest, crd) == []


def test_the_crd_check_sees_a_slip() -> None:
    slip = copy.deepcopy(CLUSTER)
    slip["spec"]["workerGroupSpecs"][0]["maxReplica"] = 2
    slip["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] = 5
    assert len(breaches(slip, "rayclusters")) == 2


def test_manifests_keep_the_rules_that_no_schema_holds() -> None:
    assert raycluster_faults(CLUSTER) == []
    assert rayjob_faults(NIGHTLY) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"submissionMode": "Nope"}, "submissionMode"),
        ({"shutdownAfterJobFinishes": True}, "two ways of deletion"),
        ({"ttlSecondsAfterFinished": 5}, "ttl without shutdown"),
        ({"backoffLimit": 1}, "backoffLimit with selector"),
        ({"suspend": True}, "suspend with selector"),
        ({"submissionMode": "SidecarMode"}, "SidecarMode with selector"),
        ({"rayClusterSpec": {}}, "one of clusterSelector and rayClusterSpec"),
        ({"clusterSelector": {"cluster": "astrid"}}, "selector key"),
        ({"runtimeEnvYAML": "just words"}, "runtimeEnvYAML"),
        (
            {
                "deletionStrategy": {
                    "deletionRules": [{"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED"}}]
                }
            },
            "selector deletes the cluster",
        ),
        ({"deletionStrategy": {"deletionRules": [{"policy": "DeleteSelf", "condition": {}}]}}, "condition"),
    ],
)
def test_the_rayjob_rules_see_a_breach(change: Object, fault: str) -> None:
    assert fault in rayjob_faults({**NIGHTLY, "spec": NIGHTLY["spec"] | change})


def test_the_raycluster_rules_see_a_breach() -> None:
    bad = copy.deepcopy(CLUSTER)
    bad["metadata"]["name"] = "a" * 54
    bad["spec"] |= {"rayVersion": "2.51.0", "networkPolicy": {}}
    bad["spec"]["workerGroupSpecs"][0]["minReplicas"] = 9
    bad["spec"]["workerGroupSpecs"][1] |= {"rayStartParams": {"num-cpus": "1"}, "resources": {"CPU": "1"}}
    bad["spec"]["headGroupSpec"]["template"]["spec"]["restartPolicy"] = "Always"
    assert raycluster_faults(bad) == [
        "name",
        "token needs 2.52",
        "min <= replicas <= max",
        "restartPolicy with autoscaler v2",
        "resources twice",
        "behind a gate",
    ]


def test_cluster_is_closed_and_its_head_works_for_nobody() -> None:
    spec = CLUSTER["spec"]
    assert spec["authOptions"]["mode"] == "token"
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert [g["groupName"] for g in spec["workerGroupSpecs"]] == ["crawl", "score"]
    assert spec["autoscalerOptions"]["securityContext"]["runAsNonRoot"] is True
    # The driver reads the settings, so it must land where they are.
    assert NIGHTLY["spec"]["entrypointNumCpus"] > 0
    for group in spec["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert {e["name"] for e in pod["containers"][0]["env"]} >= {"ASTRID_DATABASE_URL", "ASTRID_BROKER_URL"}


def test_ray_version_is_the_pinned_one() -> None:
    locked = re.search(r"^ray==([\d.]+)", (ROOT / "constraints-core.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert locked is not None
    assert CLUSTER["spec"]["rayVersion"] == ray_pin() == locked[1]


def test_every_manifest_uses_one_image_of_this_version() -> None:
    images = {c["image"] for m in (CLUSTER, NIGHTLY) for pod in pod_specs(m) for c in pod["containers"]}
    assert images == {f"astrid:{__version__}"}


def test_night_selects_the_cluster_and_names_a_file() -> None:
    assert NIGHTLY["spec"]["clusterSelector"] == {"ray.io/cluster": CLUSTER["metadata"]["name"]}
    assert NIGHTLY["spec"]["activeDeadlineSeconds"] <= 7 * 3600  # snapshots after 12:00 UTC belong to the next day
    command, script = NIGHTLY["spec"]["entrypoint"].split()
    assert command == "python"
    assert (ROOT / script).is_file()


def test_pods_of_the_manifests_are_restricted() -> None:
    pods = [pod for m in (CLUSTER, NIGHTLY) for pod in pod_specs(m)]
    assert len(pods) == 4
    assert [pod_faults(pod) for pod in pods] == [[]] * 4


def test_the_pod_rules_see_a_breach() -> None:
    container = {"name": "c", "image": "astrid:latest", "env": [{"name": "ASTRID_DATABSE_URL", "value": "x"}]}
    assert pod_faults({"containers": [container], "hostNetwork": True}) == [
        "root",
        "seccomp",
        "enableServiceLinks",
        "host",
        "c: privileges",
        "c: resources",
        "c: image without tag",
        "c: ASTRID_DATABSE_URL is plain",
        "c: ASTRID_DATABSE_URL is no setting",
    ]


def test_no_file_holds_a_secret() -> None:
    for folder in ("kuberay", "charts", "deploy"):
        for path in (p for p in (ROOT / folder).rglob("*") if p.is_file()):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(?:postgres(?:ql)?|amqps?)://[^\s<]*:[^\s<]*@|gh[pousr]_\w{20}|github_pat_", text), (
                path
            )
            assert not re.search(r"^kind: Secret\b", text, re.MULTILINE), path


# --- charts/astrid ---


def chart_values() -> Object:
    return load(CHART / "values.yaml")


def values_schema() -> Object:
    schema: Object = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return schema


def test_values_meet_their_schema() -> None:
    jsonschema.Draft7Validator.check_schema(values_schema())
    jsonschema.validate(chart_values(), values_schema(), jsonschema.Draft7Validator)


BAD_VALUES: list[tuple[str, Any]] = [
    ("existingSecret", ""),
    ("databaseUrl", "postgresql://x"),
    ("nameOverride", "a" * 29),
    ("api.replicas", 0),
    ("api.replica", 2),
    ("api.resources.requests", {}),
    ("image.tag", "latest"),
    ("image.digest", "sha256:12"),
    ("nightly.rayCluster", "a" * 54),
    ("nightly.schedule", "TZ=Europe/Paris 0 5 * * *"),
    ("nightly.schedule", "0 5 * *"),
    ("nightly.entrypointNumCpus", 0),
]


@pytest.mark.parametrize(("path", "value"), BAD_VALUES, ids=[f"{p}={str(v)[:12]}" for p, v in BAD_VALUES])
def test_bad_value_is_refused(path: str, value: Any) -> None:
    values = chart_values()
    *above, last = path.split(".")
    place = values
    for key in above:
        place = place[key]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, values_schema(), jsonschema.Draft7Validator)


def test_every_object_of_the_schema_is_closed() -> None:
    # Annotations are the user's own names; `global` is Helm's.
    free = {"podAnnotations", "global"}

    def walk(node: Object, name: str) -> Iterator[str]:
        if node.get("type") == "object" and name not in free and node.get("additionalProperties") is not False:
            yield name
        for key, child in (node.get("properties", {}) | node.get("$defs", {})).items():
            yield from walk(child, key)

    assert list(walk(values_schema(), "values")) == []


def test_chart_is_of_this_version_and_depends_on_none() -> None:
    chart = load(CHART / "Chart.yaml")
    assert chart["appVersion"] == __version__
    assert "dependencies" not in chart


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("helm")
    if program is None:
        pytest.skip("there is no helm on the PATH")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def render(*arguments: str, release: str = "astrid") -> list[Object]:
    done = helm("template", release, str(CHART), "--namespace", "astrid", *arguments)
    assert done.returncode == 0, done.stderr
    return [d for d in yaml.safe_load_all(done.stdout) if d]


def one(documents: list[Object], kind: str) -> Object:
    (found,) = [d for d in documents if d["kind"] == kind]
    return found


def rendered_rayjob(documents: list[Object]) -> Object:
    job: Object = json.loads(one(documents, "ConfigMap")["data"]["rayjob.json"])
    job["metadata"]["name"] = f"{one(documents, 'CronJob')['metadata']['name']}-{CRON_MINUTES}"
    return job


def test_helm_lints() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_helm_refuses_bad_values_and_names() -> None:
    assert "existingSecret" in helm("template", "astrid", str(CHART), "--set", "existingSecret=").stderr
    assert "must begin with a letter" in helm("template", "1st", str(CHART)).stderr


def test_chart_renders_restricted_pods() -> None:
    documents = render()
    assert sorted(d["kind"] for d in documents) == [
        *("ConfigMap", "CronJob", "Deployment", "Job", "Role", "RoleBinding", "Service", "ServiceAccount")
    ]
    pods = [pod for d in documents for pod in pod_specs(d)]
    assert len(pods) == 3
    assert [pod_faults(pod) for pod in pods] == [[]] * 3
    for pod in pods:
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            keys = {e["valueFrom"]["secretKeyRef"]["key"] for e in container["env"] if "secretKeyRef" in e["valueFrom"]}
            assert keys <= {"ASTRID_DATABASE_URL"}


def test_chart_starts_the_commands_that_exist() -> None:
    documents = render()
    (api,) = one(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert api["command"] == ["astrid", "serve", "--host", "0.0.0.0", "--port", "8000"]
    assert api["livenessProbe"]["httpGet"]["path"] == api["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert api["readinessProbe"]["httpGet"]["path"] == "/readyz"
    migration = one(documents, "Job")
    assert migration["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert migration["spec"]["template"]["spec"]["containers"][0]["command"] == ["astrid", "migrate"]
    service, labels = one(documents, "Service"), one(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize("release", ["astrid", "a-release-with-a-name-of-fifty-three-characters-xxxxx"])
def test_charts_night_is_the_plain_one(release: str) -> None:
    documents = render(release=release)
    job = rendered_rayjob(documents)
    assert breaches(job, "rayjobs") == []
    assert rayjob_faults(job) == []
    assert [fault for pod in pod_specs(job) for fault in pod_faults(pod)] == []
    mine, plain = copy.deepcopy(job["spec"]), copy.deepcopy(NIGHTLY["spec"])
    for spec in (mine, plain):
        spec["submitterPodTemplate"].pop("metadata")
        spec["submitterPodTemplate"]["spec"]["securityContext"].pop("fsGroup", None)
        spec["submitterPodTemplate"]["spec"]["containers"][0].pop("imagePullPolicy", None)
    assert mine == plain


def test_chart_may_only_create_rayjobs() -> None:
    documents = render()
    assert one(documents, "Role")["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}]
    cron = one(documents, "CronJob")["spec"]
    assert (cron["concurrencyPolicy"], cron["timeZone"], cron["schedule"]) == ("Forbid", "Etc/UTC", "0 5 * * *")
    pod = cron["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == one(documents, "ServiceAccount")["metadata"]["name"]
    assert one(documents, "ConfigMap")["data"]["create_rayjob.py"].strip() == SCRIPT.read_text(encoding="utf-8").strip()


def test_parts_can_be_left_out() -> None:
    kinds = {d["kind"] for d in render("--set", "nightly.enabled=false", "--set", "migrations.enabled=false")}
    assert kinds == {"Deployment", "Service"}


# --- what the CronJob's pod runs ---

SCRIPT = CHART / "files" / "create_rayjob.py"


@contextmanager
def api_server(status: int, answer: bytes) -> Iterator[tuple[str, list[tuple[str, str | None, Object]]]]:
    """Serve one fixed answer and keep what was asked: (path, Authorization, body)."""
    asked: list[tuple[str, str | None, Object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers["Authorization"], body))
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def create_rayjob(folder: Path, server: str, name: str = f"astrid-nightly-{CRON_MINUTES}") -> tuple[int, str]:
    (folder / "token").write_text("a-token\n", encoding="utf-8")
    (folder / "rayjob.json").write_text(json.dumps(NIGHTLY | {"metadata": {"labels": {"a": "b"}}}), encoding="utf-8")
    places = {"KUBERNETES_API": server, "SERVICE_ACCOUNT_DIR": str(folder), "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), str(folder / "rayjob.json")],
        env=os.environ | places | {"NAMESPACE": "astrid", "RAYJOB_NAME": name},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_rayjob_is_created_under_the_jobs_name(tmp_path: Path) -> None:
    with api_server(201, b"{}") as (url, asked):
        code, said = create_rayjob(tmp_path, url)
    assert (code, said) == (0, f"created RayJob astrid/astrid-nightly-{CRON_MINUTES}\n")
    ((path, authorization, body),) = asked
    assert path == "/apis/ray.io/v1/namespaces/astrid/rayjobs"
    assert authorization == "Bearer a-token"
    metadata = {"labels": {"a": "b"}, "name": f"astrid-nightly-{CRON_MINUTES}", "namespace": "astrid"}
    assert body == NIGHTLY | {"metadata": metadata}


@pytest.mark.parametrize(
    ("status", "answer", "code"),
    [
        (409, b'{"kind": "Status", "reason": "AlreadyExists"}', 0),
        (409, b'{"kind": "Status", "reason": "Conflict"}', 1),
        (403, b'{"kind": "Status", "reason": "Forbidden"}', 1),
        (502, b"<html>", 1),
    ],
)
def test_only_a_rayjob_that_exists_is_no_failure(tmp_path: Path, status: int, answer: bytes, code: int) -> None:
    with api_server(status, answer) as (url, _):
        got, said = create_rayjob(tmp_path, url)
    assert got == code
    assert "a-token" not in said
    assert "Traceback" not in said
    assert ("exists already" in said) if code == 0 else (f"answered {status}" in said)


def test_a_server_that_is_away_and_a_long_name_are_said(tmp_path: Path) -> None:
    code, said = create_rayjob(tmp_path, "http://127.0.0.1:1")
    assert code == 1
    assert "was not reached" in said
    code, said = create_rayjob(tmp_path, "http://127.0.0.1:1", "a" * 48)
    assert code == 1
    assert "more than 47 characters" in said


# --- deploy/Dockerfile ---


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def test_image_is_built_from_hashes_and_runs_as_nobody_special() -> None:
    steps = instructions()
    bases = [rest.split()[0] for name, rest in steps if name == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.11[\w.]*-slim[\w-]*", bases[0])
    first_line_of_last_stage = max(i for i, (name, _) in enumerate(steps) if name == "FROM")
    installs = [rest for name, rest in steps if name == "RUN" and "pip install" in rest]
    assert "--require-hashes --no-deps" in installs[0]
    assert installs[0].endswith("-r constraints-core.txt")
    assert "--no-deps --no-build-isolation ." in installs[1]
    assert not any("pip install" in rest for _, rest in steps[first_line_of_last_stage:])
    (user,) = [rest for name, rest in steps if name == "USER"]
    ids = {pod["securityContext"]["runAsUser"] for m in (CLUSTER, NIGHTLY) for pod in pod_specs(m)}
    assert user == "1000:1000"
    assert ids == {1000}
    assert ("WORKDIR", CLUSTER["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["workingDir"]) in steps


def test_what_the_image_copies_exists_and_is_let_through() -> None:
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = [rest.split()[:-1] for name, rest in instructions() if name == "COPY" and not rest.startswith("--from")]
    sources = {source for sources in copied for source in sources}
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint")
    if program is None:
        pytest.skip("there is no hadolint on the PATH")
    done = subprocess.run([program, str(ROOT / "deploy" / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
