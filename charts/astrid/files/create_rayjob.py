"""Creates the RayJob of a night through the Kubernetes API; runs in the CronJob's pod on the standard library alone.

Usage: ``python create_rayjob.py TEMPLATE.json``, with ``NAMESPACE`` and ``RAYJOB_NAME`` in the environment. A RayJob
that exists already is success: it was made by an earlier try. ``KUBERNETES_API`` and ``SERVICE_ACCOUNT_DIR`` replace
the places where a pod finds the API server and its credentials.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

NAME_LIMIT = 47
"""KubeRay refuses longer names of a RayJob, but only after it was created."""


def create(template: Path, environ: Mapping[str, str]) -> str:
    """Create the RayJob and return a sentence for the log.

    Raises
    ------
    RuntimeError
        With what the API server said, or where it could not be reached.
    """
    namespace, name = environ["NAMESPACE"], environ["RAYJOB_NAME"]
    if len(name) > NAME_LIMIT:
        raise RuntimeError(f"the name {name} has more than {NAME_LIMIT} characters: give the Job a shorter one")
    credentials = Path(environ.get("SERVICE_ACCOUNT_DIR", "/var/run/secrets/kubernetes.io/serviceaccount"))
    server = environ.get("KUBERNETES_API", "https://kubernetes.default.svc")
    body = json.loads(template.read_text(encoding="utf-8"))
    body["metadata"] |= {"name": name, "namespace": namespace}
    request = urllib.request.Request(
        f"{server}/apis/ray.io/v1/namespaces/{namespace}/rayjobs",
        data=json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {(credentials / 'token').read_text(encoding='utf-8').strip()}",
            "Content-Type": "application/json",
        },
        method="POST",
    )
    trust = ssl.create_default_context(cafile=str(credentials / "ca.crt")) if server.startswith("https:") else None
    try:
        with urllib.request.urlopen(request, timeout=30, context=trust):
            return f"created RayJob {namespace}/{name}"
    except urllib.error.HTTPError as exc:
        with exc:
            said = exc.read().decode(errors="replace")[:2000]
        if exc.code == 409 and _reason(said) == "AlreadyExists":
            return f"RayJob {namespace}/{name} exists already"
        raise RuntimeError(f"the API server answered {exc.code}: {said}") from exc
    except OSError as exc:
        raise RuntimeError(f"the API server at {server} was not reached: {exc}") from exc


def _reason(said: str) -> object:
    """Return the reason of a Kubernetes Status, or None where the text is none."""
    try:
        status = json.loads(said)
    except ValueError:
        return None
    return status.get("reason") if isinstance(status, dict) else None


if __name__ == "__main__":
    try:
        print(create(Path(sys.argv[1]), os.environ))
    except RuntimeError as error:
        sys.exit(f"create_rayjob: {error}")
