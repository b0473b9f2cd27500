"""docs/kuberay.yaml is a RayJob as KubeRay defines one, and what it runs is a command of this program.

The fields, their types and which are required are those of KubeRay's API (ray-operator/apis/ray/v1/rayjob_types.go and
raycluster_types.go, Apache-2.0), and of Kubernetes' pod template those that may stand in such a file; the text is our own.
"""

from __future__ import annotations

import shlex
from pathlib import Path, PurePosixPath
from typing import Literal

import pytest
import typer
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from distillscope import cli
from distillscope.config.load import load_preset
from distillscope.processes.engine import Engine

MANIFEST = Path(__file__).parents[1] / "docs" / "kuberay.yaml"


class Known(BaseModel):
    """No other fields, and no number where a text is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Meta(Known):
    name: str
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Variable(Known):
    name: str
    value: str


class Resources(Known):
    requests: dict[str, str]
    limits: dict[str, str]


class Mount(Known):
    name: str
    mountPath: str
    readOnly: bool | None = None
    subPath: str | None = None


class Container(Known):
    name: str
    image: str
    imagePullPolicy: str | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    env: list[Variable] | None = None
    resources: Resources
    volumeMounts: list[Mount]


class Claim(Known):
    claimName: str
    readOnly: bool | None = None


class Volume(Known):
    name: str
    persistentVolumeClaim: Claim


class Pod(Known):
    containers: list[Container]
    volumes: list[Volume]
    nodeSelector: dict[str, str] | None = None
    tolerations: list[dict[str, str]] | None = None
    serviceAccountName: str | None = None


class Template(Known):
    metadata: Meta | None = None
    spec: Pod


class Head(Known):
    serviceType: str | None = None
    enableIngress: bool | None = None
    rayStartParams: dict[str, str]
    template: Template


class Workers(Known):
    groupName: str
    replicas: int | None = None
    minReplicas: int
    maxReplicas: int
    numOfHosts: int | None = None
    rayStartParams: dict[str, str]
    template: Template


class Autoscaler(Known):
    idleTimeoutSeconds: int | None = None
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] | None = None


class Cluster(Known):
    rayVersion: str | None = None
    enableInTreeAutoscaling: bool | None = None
    autoscalerOptions: Autoscaler | None = None
    headServiceAnnotations: dict[str, str] | None = None
    suspend: bool | None = None
    headGroupSpec: Head
    workerGroupSpecs: list[Workers]


class Spec(Known):
    activeDeadlineSeconds: int | None = None
    backoffLimit: int | None = None
    clusterSelector: dict[str, str] | None = None
    entrypoint: str
    entrypointNumCpus: float | None = None
    entrypointNumGpus: float | None = None
    entrypointResources: str | None = None
    jobId: str | None = None
    managedBy: str | None = None
    metadata: dict[str, str] | None = None
    rayClusterSpec: Cluster
    runtimeEnvYAML: str | None = None
    shutdownAfterJobFinishes: bool | None = None
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode"] | None = None
    suspend: bool | None = None
    ttlSecondsAfterFinished: int | None = None


class RayJob(Known):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Meta
    spec: Spec


def test_the_manifest_is_a_ray_job_and_its_command_one_of_ours():
    values = yaml.safe_load(MANIFEST.read_text())
    job = RayJob.model_validate(values).spec
    program, command, *words = shlex.split(job.entrypoint)
    given = typer.main.get_command(cli.app).commands[command].make_context(command, words).params
    assert program == "distillscope" and given["resume"] and given["address"] == "auto"
    assert len(load_preset(given["preset"]).students)
    engine = Engine(given["engine"], given["address"], given["task_cpus"], given["task_gpus"])
    cluster = job.rayClusterSpec
    assert engine.on_cluster and job.backoffLimit and cluster.headGroupSpec.rayStartParams["num-cpus"] == "0"
    group, = cluster.workerGroupSpecs
    limits = group.template.spec.containers[0].resources.limits
    assert int(limits["cpu"]) >= engine.cores() and float(limits["nvidia.com/gpu"]) >= engine.gpus_on("cpu")
    for pod in (cluster.headGroupSpec.template.spec, group.template.spec):  # each sees what is written, under one name
        (container,), (volume,) = pod.containers, pod.volumes
        mount, = container.volumeMounts
        assert mount.name == volume.name and volume.persistentVolumeClaim.claimName == "distillscope-shared"
        for folder in (given["out"], {v.name: v.value for v in container.env}["DISTILLSCOPE_CACHE"]):
            assert PurePosixPath(folder).is_relative_to(mount.mountPath)
    values["spec"]["backofLimit"] = values["spec"].pop("backoffLimit")
    with pytest.raises(ValidationError, match="backofLimit"):
        RayJob.model_validate(values)
