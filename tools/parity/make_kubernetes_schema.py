"""Writes packages/cli/fixtures/kubernetes.schema.json: what deploy/kubernetes/*.yaml use of the published schemas of Kubernetes.

    pip install kubernetes-validate==1.37.0 pyyaml
    python tools/parity/make_kubernetes_schema.py

The package holds the JSON Schemas of Kubernetes' OpenAPI. Of each object only the fields that the manifests use are kept, and the
required ones; other fields are refused, so a manifest with a new field needs this script again, which fails if the schema lacks it.
An MPIJob (kubeflow.org/v2beta1) has Kubernetes' templates of pods; its own fields are written below from its API reference.
"""

import json
from importlib.resources import files
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SCHEMAS = files("kubernetes_validate") / "kubernetes-json-schema" / "v1.37.0-local-strict"
DEFINITIONS = json.loads((SCHEMAS / "_definitions.json").read_text())["$defs"]
KINDS = {
    "Job": "io.k8s.api.batch.v1.Job",
    "PersistentVolumeClaim": "io.k8s.api.core.v1.PersistentVolumeClaim",
    "ConfigMap": "io.k8s.api.core.v1.ConfigMap",
}
POD_TEMPLATE = "io.k8s.api.core.v1.PodTemplateSpec"


def closed(properties, required=()):
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


def const(value):
    return {"const": value}


REPLICAS = closed(
    {
        "replicas": {"type": "integer", "minimum": 1},
        "restartPolicy": {"enum": ["Always", "OnFailure", "Never", "ExitCode"]},
        "template": {"$ref": "#/definitions/PodTemplateSpec"},
    },
    ["template"],
)
MPI_JOB = closed(
    {
        "apiVersion": const("kubeflow.org/v2beta1"),
        "kind": const("MPIJob"),
        "metadata": {"$ref": "#/definitions/ObjectMeta"},
        "spec": closed(
            {
                "slotsPerWorker": {"type": "integer", "minimum": 1},
                "launcherCreationPolicy": {"enum": ["AtStartup", "WaitForWorkersReady"]},
                "mpiImplementation": {"enum": ["OpenMPI", "Intel", "MPICH"]},
                "sshAuthMountPath": {"type": "string"},
                "runPolicy": closed(
                    {
                        "cleanPodPolicy": {"enum": ["None", "Running", "All"]},
                        "backoffLimit": {"type": "integer"},
                        "activeDeadlineSeconds": {"type": "integer"},
                        "ttlSecondsAfterFinished": {"type": "integer"},
                        "suspend": {"type": "boolean"},
                    }
                ),
                "mpiReplicaSpecs": closed({"Launcher": REPLICAS, "Worker": REPLICAS}, ["Launcher", "Worker"]),
            },
            ["mpiReplicaSpecs"],
        ),
    },
    ["apiVersion", "kind", "metadata", "spec"],
)


def resolved(schema):
    while "$ref" in schema:
        schema = DEFINITIONS[schema["$ref"].rsplit("/", 1)[1]]
    return schema


def trimmed(schema, values, where):
    """`schema` without what none of the values uses."""
    schema = resolved(schema)
    kept = {key: schema[key] for key in ("type", "enum", "const") if key in schema}
    if isinstance(kept.get("type"), list):  # the published schemas allow null everywhere
        kept["type"] = kept["type"][0]
    if "oneOf" in schema:
        kept["type"] = [one["type"][0] for one in schema["oneOf"]]
    if "items" in schema:
        kept["items"] = trimmed(schema["items"], [item for value in values for item in value], where + "[]")
    if "properties" in schema:
        used = sorted({key for value in values for key in value} | set(schema.get("required", [])))
        unknown = [key for key in used if key not in schema["properties"]]
        if unknown:
            raise SystemExit(f"{where}: the schema has no {', '.join(unknown)}")
        kept["properties"] = {
            key: trimmed(schema["properties"][key], [v[key] for v in values if key in v], f"{where}.{key}") for key in used
        }
        kept["additionalProperties"] = False
        kept["required"] = schema.get("required", [])
    elif "additionalProperties" in schema:
        inner = schema["additionalProperties"]
        kept["additionalProperties"] = inner if isinstance(inner, bool) else trimmed(inner, [], where + ".*")
    return kept


def main():
    documents = [
        document
        for file in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
        for document in yaml.safe_load_all(file.read_text())
    ]
    of_kind = lambda kind: [document for document in documents if document["kind"] == kind]
    jobs, training = of_kind("Job"), of_kind("MPIJob")
    replicas = [spec for job in training for spec in job["spec"]["mpiReplicaSpecs"].values()]
    templates = [spec["template"] for spec in replicas] + [job["spec"]["template"] for job in jobs]
    for job in jobs:
        job["spec"] = {**job["spec"], "template": {}}
    definitions = {kind: trimmed(DEFINITIONS[name], of_kind(kind), kind) for kind, name in KINDS.items()}
    definitions["Job"]["properties"]["spec"]["properties"]["template"] = {"$ref": "#/definitions/PodTemplateSpec"}
    definitions["PodTemplateSpec"] = trimmed(DEFINITIONS[POD_TEMPLATE], templates, "template")
    definitions["ObjectMeta"] = trimmed({"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}, [
        document["metadata"] for document in documents
    ], "metadata")
    definitions["MPIJob"] = MPI_JOB
    for kind in KINDS:
        definitions[kind]["required"] = ["apiVersion", "kind", "metadata"]
    schema = {
        "$comment": "made by tools/parity/make_kubernetes_schema.py from the schemas of Kubernetes 1.37",
        "definitions": definitions,
    }
    target = ROOT / "packages" / "cli" / "fixtures" / "kubernetes.schema.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(schema, indent=2) + "\n")


main()
