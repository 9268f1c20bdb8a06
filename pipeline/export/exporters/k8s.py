"""Target `k8s`: a Kubernetes manifest around a server's export, which lies on a volume.

Node labels are those of NVIDIA's GPU feature discovery, which writes the GPU's name with hyphens for spaces.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import NonNegativeInt, PositiveInt, StringConstraints

from pipeline.backend.deployment import Deployment
from pipeline.errors import ExportRefused
from pipeline.export.export_settings import ServedPath, Settings, parse_settings
from pipeline.export.exporters import exporter

Label = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
LabelValue = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=63)
]
Image = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$", max_length=500)]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti)$")]

PORTS = {"triton": {"http": 8000, "grpc": 8001, "metrics": 8002}, "trtllm-serve": {"http": 8000}}

TAKEN = ("port", "http_port", "grpc_port", "metrics_port")
"""Settings of the servers that the manifest has to agree with."""

PROBES = {"triton": ("/v2/health/live", "/v2/health/ready"), "trtllm-serve": ("/health", "/health")}
"""Paths that tell whether the server lives and whether it takes requests."""


class K8sSettings(Settings):
    """What the cluster needs to know."""

    root: ServedPath = "/deployment"
    """Where the volume with the export is mounted in the container."""
    server: Literal["triton", "trtllm-serve"] = "triton"
    """Server that runs in the pod."""
    image: Image
    """Container image with the TensorRT-LLM version that built the engine; for Triton, NVIDIA's."""
    claim: Label
    """PersistentVolumeClaim whose volume holds the export."""
    name: Label | None = None
    """Name of the Deployment and of the Service; default: from the version's name."""
    namespace: Label | None = None
    replicas: NonNegativeInt = 1
    gpu_product: LabelValue | None = None
    """Value of the node label nvidia.com/gpu.product; default: the GPU that the engine was built on."""
    shared_memory: Quantity = "2Gi"
    """Size of /dev/shm, which the ranks and Triton's Python models talk through."""
    memory: Quantity | None = None
    """Host memory that the pod asks for and may use."""
    startup_minutes: PositiveInt = 30
    """How long loading may take before Kubernetes starts the pod again."""
    server_options: str = ""
    """Settings of the server, e.g. `kv_cache_fraction=0.8,decoupled=true`."""


class _Plain(yaml.SafeDumper):
    """Writes equal values out, where YAML would refer to the first."""

    def ignore_aliases(self, data: Any) -> bool:
        """Every value is written out."""
        return True


class K8s:
    """manifest.yaml, and the server's own files, which belong on the volume."""

    settings = K8sSettings

    def reasons(self, deployment: Deployment, settings: K8sSettings) -> list[str]:
        """Every reason why a pod cannot serve it."""
        problems = exporter(settings.server).reasons(deployment, server_settings(settings))
        if deployment.world_size > deployment.gpus_per_node:
            problems = [
                f"a pod has the GPUs of one host; {deployment.world_size} ranks need several",
                *problems,
            ]
        if settings.files == "reference":
            problems.append("a pod does not see the store: --reference is not for k8s; use --copy or --link")
        if settings.gpu_product is None and gpu_product(deployment) is None:
            problems.append(
                "the version does not name its GPU; name it: --set gpu_product=NVIDIA-H100-80GB-HBM3"
            )
        return problems

    def files(self, deployment: Deployment, settings: K8sSettings) -> dict[str, str]:
        """The server's files and the manifest."""
        own = exporter(settings.server).files(deployment, server_settings(settings))
        documents = [_build_deployment(deployment, settings), _build_service(deployment, settings)]
        steps = "".join(
            f"{number}. {step}\n" for number, step in enumerate(self.next_steps(deployment, settings), 1)
        )
        return {
            **own,
            "README.md": f"{own['README.md']}\n## In a cluster\n\n{steps}",
            "manifest.yaml": yaml.dump_all(documents, Dumper=_Plain, sort_keys=False),
        }

    def trees(self, deployment: Deployment, settings: K8sSettings) -> Mapping[str, Path]:
        """What the server needs on the volume."""
        return exporter(settings.server).trees(deployment, server_settings(settings))

    def next_steps(self, deployment: Deployment, settings: K8sSettings) -> list[str]:
        """From the directory to a running pod."""
        name, http = _choose_name(deployment, settings), PORTS[settings.server]["http"]
        return [
            f"copy the directory to the root of the volume of claim {settings.claim}",
            "kubectl apply -f manifest.yaml",
            f"kubectl rollout status deployment/{name}",
            f"kubectl port-forward service/{name} {http}:{http}",
        ]


def server_settings(settings: K8sSettings) -> Any:
    """The server's own settings: it listens on every address, on the ports of the manifest."""
    # split at commas: a value that holds one (lookahead, draft_choices) cannot be given here
    pairs = [pair.strip() for pair in settings.server_options.split(",") if pair.strip()]
    reserved = [pair for pair in pairs if pair.partition("=")[0] in ("root", "files", "host", *TAKEN)]
    if reserved:
        raise ExportRefused(f"server_options: {', '.join(reserved)}: the manifest decides that; leave it out")
    # trtllm-serve listens on localhost by default, where no probe reaches it
    fixed = {"root": settings.root, **({"host": "0.0.0.0"} if settings.server == "trtllm-serve" else {})}
    return parse_settings(exporter(settings.server).settings, pairs, **fixed)


def gpu_product(deployment: Deployment) -> str | None:
    """The label that GPU feature discovery gives to nodes with the engine's GPU."""
    return (
        # at most 63 characters, as for every label value (`LabelValue`)
        re.sub(r"[^A-Za-z0-9._-]+", "-", deployment.gpu).strip("-._")[:63] or None if deployment.gpu else None
    )


def _choose_name(deployment: Deployment, settings: K8sSettings) -> str:
    if settings.name is not None:
        return settings.name
    return deployment.slug if deployment.slug[0].isalpha() else f"engine-{deployment.slug}"


def _build_metadata(deployment: Deployment, settings: K8sSettings) -> dict[str, Any]:
    return {
        "name": _choose_name(deployment, settings),
        **({"namespace": settings.namespace} if settings.namespace else {}),
        "labels": {
            **_build_selector(deployment, settings),
            "app.kubernetes.io/version": str(deployment.number),
        },
        "annotations": {"enginery/version": deployment.label, "enginery/engine": deployment.engine_key},
    }


def _build_selector(deployment: Deployment, settings: K8sSettings) -> dict[str, str]:
    # no version in it: a Deployment's selector cannot be changed by an update
    return {"app.kubernetes.io/name": _choose_name(deployment, settings)}


def _build_deployment(deployment: Deployment, settings: K8sSettings) -> dict[str, Any]:
    """One pod per replica; an update ends the old pod first, because its GPUs are needed."""
    metadata = _build_metadata(deployment, settings)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": settings.replicas,
            "selector": {"matchLabels": _build_selector(deployment, settings)},
            # maxSurge 0: a second pod would wait for the GPUs that the first one holds.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": metadata["labels"], "annotations": metadata["annotations"]},
                "spec": _build_pod(deployment, settings),
            },
        },
    }


def _build_pod(deployment: Deployment, settings: K8sSettings) -> dict[str, Any]:
    return {
        "nodeSelector": {"nvidia.com/gpu.product": settings.gpu_product or gpu_product(deployment)},
        # GPU nodes may be tainted with it, to keep other pods away
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "terminationGracePeriodSeconds": 60,
        "containers": [_build_container(deployment, settings)],
        "volumes": [
            {
                "name": "deployment",
                "persistentVolumeClaim": {"claimName": settings.claim, "readOnly": True},
            },
            # ranks need more than a container's own default
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
        ],
    }


def _build_container(deployment: Deployment, settings: K8sSettings) -> dict[str, Any]:
    live, ready = PROBES[settings.server]
    amounts = {
        "nvidia.com/gpu": deployment.world_size,
        **({"memory": settings.memory} if settings.memory else {}),
    }
    return {
        "name": settings.server,
        "image": settings.image,
        # through bash: a volume may be mounted without the right to execute
        "command": ["/bin/bash", f"{settings.root}/serve.sh"],
        "ports": [{"name": name, "containerPort": port} for name, port in PORTS[settings.server].items()],
        # equal: GPUs cannot be overcommitted
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        # failures times period: 6 * 10 s are the minute that startup_minutes counts
        "startupProbe": _build_probe(ready, period_s=10, failures=6 * settings.startup_minutes),
        # readiness only takes the pod out of the Service; liveness starts it again, so it waits longer
        "readinessProbe": _build_probe(ready, period_s=5, failures=3),
        "livenessProbe": _build_probe(live, period_s=10, failures=6),
        "volumeMounts": [
            {"name": "deployment", "mountPath": settings.root, "readOnly": True},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }


def _build_probe(path: str, *, period_s: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _build_service(deployment: Deployment, settings: K8sSettings) -> dict[str, Any]:
    ports = PORTS[settings.server].items()
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _build_metadata(deployment, settings),
        "spec": {
            "selector": _build_selector(deployment, settings),
            "ports": [{"name": name, "port": port, "targetPort": name} for name, port in ports],
        },
    }


EXPORTER = K8s()
