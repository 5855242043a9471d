"""Kubernetes resources that run `octave serve`: nothing has to be built, Python's image will do.

What is installed lies on a claim; the first start installs what the lockfile in the ConfigMap says.
"""

from collections.abc import Mapping
from typing import Any

from octave.errors import OctaveError
from octave.export import portable, yaml_text
from octave.export.portable import HOME, OCTAVE, PORT, SERVE, TOKEN, USER, Portable
from octave.export.subject import Exported, Subject

_CONFIG_MAP_BYTES = 1_000_000
"""Kubernetes refuses one of more than 1 MiB."""


def resources(subject: Subject) -> Exported:
    """Return the resources that run it: nothing has to be built.

    Raises:
        OctaveError: none of the servers works in a container, or they are too many for one.
    """
    made = portable.of(subject, [f"octave:{PORT}"])
    files = {"octave.toml": made.manifest, "octave.lock": made.lockfile}
    if sum(len(text.encode()) for text in files.values()) > _CONFIG_MAP_BYTES:
        raise OctaveError(
            "octave.lock is too large for a ConfigMap, which holds 1 MiB",
            hint="octave export kubernetes NAME..., some of the servers at a time",
        )
    secret = {TOKEN: "", **{each.name: "" for each in made.variables}}
    lines = [
        *portable.about(made, "kubernetes"),
        "Fill in the Secret before `kubectl apply -f FILE`, or make it by other means:",
        f"    {TOKEN}    the token that clients send: `openssl rand -hex 32` makes one",
        *(f"    {each.name}    {each.server}: {each.what}" for each in made.variables),
        f"In the cluster it is reached at http://octave:{PORT}/mcp from its own namespace. For",
        f"another name, as octave.NAMESPACE.svc:{PORT} or an Ingress, add it to `allowed_hosts`.",
    ]
    text = "---\n".join(map(yaml_text.dump, _resources(made, secret, files)))
    return Exported(portable.comment(lines) + text, made.servers, made.notes)


def _resources(
    made: Portable, secret: Mapping[str, str], files: Mapping[str, str]
) -> list[dict[str, Any]]:
    named = {"name": "octave", "labels": {"app": "octave"}}
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": named,
            "type": "Opaque",
            "stringData": secret,
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": files},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": named,
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "5Gi"}},
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": named,
            "spec": {
                # Two runtimes would share one home.
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": {"app": "octave"}},
                "template": {"metadata": {"labels": {"app": "octave"}}, "spec": _pod(made)},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": named,
            "spec": {
                "selector": {"app": "octave"},
                "ports": [{"name": "http", "port": PORT, "targetPort": "http"}],
            },
        },
    ]


def _pod(made: Portable) -> dict[str, Any]:
    prepare = (
        "umask 077\n"
        "test -x /octave/venv/bin/octave || python -m venv /octave/venv\n"
        f"/octave/venv/bin/pip install --no-cache-dir --quiet {OCTAVE}\n"
        f"mkdir -p {HOME}\n"
        f"chmod go-rwx {HOME}\n"
        f"cp /config/octave.toml /config/octave.lock {HOME}/\n"
        "/octave/venv/bin/octave install --locked --no-start\n"
    )
    common: dict[str, Any] = {
        "image": f"python:{made.python}-slim",
        "workingDir": "/octave",
        "env": [
            {"name": "HOME", "value": "/octave"},
            {"name": "OCTAVE_HOME", "value": HOME},
            {"name": "PATH", "value": "/octave/venv/bin:/usr/local/bin:/usr/bin:/bin"},
        ],
        "volumeMounts": [
            {"name": "octave", "mountPath": "/octave"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "config", "mountPath": "/config", "readOnly": True},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "terminationGracePeriodSeconds": 90,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            # Else each start makes the home writable for the group, and Octave refuses it.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [{"name": "install", **common, "command": ["sh", "-ec", prepare]}],
        "containers": [{"name": "octave", **common, **_serving()}],
        "volumes": [
            {"name": "octave", "persistentVolumeClaim": {"claimName": "octave"}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "config", "configMap": {"name": "octave"}},
        ],
    }


def _serving() -> dict[str, Any]:
    # The kubelet asks at the pod's address, which no Host header of ours may be.
    probe = {
        "httpGet": {
            "path": "/health",
            "port": "http",
            "httpHeaders": [{"name": "Host", "value": f"localhost:{PORT}"}],
        }
    }
    return {
        "command": SERVE,
        "envFrom": [{"secretRef": {"name": "octave"}}],
        "ports": [{"name": "http", "containerPort": PORT}],
        "startupProbe": {**probe, "periodSeconds": 2, "failureThreshold": 60},
        "readinessProbe": {**probe, "periodSeconds": 10},
        "livenessProbe": {**probe, "periodSeconds": 30, "timeoutSeconds": 10},
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}},
    }
