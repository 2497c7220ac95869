"""Holds rendered manifests against the Kubernetes schemas, the CRDs' schemas, what the chart promises, and `trunkline check`.

    manifests.py TRUNKLINE CRDS FILE…
"""

import copy
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

import jsonschema
import kubernetes_validate
import yaml

# The oldest that the chart allows, and the newest that there are schemas of.
VERSIONS = ("1.30", kubernetes_validate.latest_version())
SECRETS = "/run/secrets/trunkline/"


def strict(schema):
    """`schema` of a CRD, which then refuses fields that it does not name."""
    schema = copy.deepcopy(schema)
    # Go's way to leave case aside, in a pattern of one field that the chart does not write.
    if "(?i)" in schema.get("pattern", ""):
        del schema["pattern"]
    if "properties" in schema:
        schema["properties"] = {name: strict(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    if "items" in schema:
        schema["items"] = strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = strict(schema["additionalProperties"])
    return schema


def custom_schemas(folder):
    """Schemas by apiVersion and kind."""
    schemas = {}
    for file in sorted(pathlib.Path(folder).glob("*.yaml")):
        for crd in filter(None, yaml.safe_load_all(file.read_text())):
            for version in crd["spec"]["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object", "required": ["name", "namespace"]}
                schemas[f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]] = schema
    assert schemas, f"no CRDs in {folder}: run tests/servers/install"
    return schemas


def check_schema(manifest, custom):
    schema = custom.get((manifest["apiVersion"], manifest["kind"]))
    if schema:
        jsonschema.validate(manifest, schema)
    else:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def check_pod(template, config):
    """Pod Security "restricted", probes of the admin listener, no token, and time enough to drain."""
    spec = template["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    security = container["securityContext"]
    assert security == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    admin = config["admin"]["listen"].rpartition(":")[2]
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    assert ports == {"push": config["ingress"]["listen"].rpartition(":")[2], "admin": admin}
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "admin"}, probe
    seconds = {key: int(value.removesuffix("s")) for key, value in config["drain"].items()}
    readiness = container["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < seconds["announce"], "the announcement is not noticed"
    pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > pre_stop + seconds["announce"] + seconds["deadline"]
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    for file in referenced_files(config):
        assert any(file.startswith(path + "/") for path in mounted), f"{file} is not mounted"
    assert {volume["name"] for volume in spec["volumes"]} <= {mount["name"] for mount in container["volumeMounts"]}


def check_promises(manifests):
    """What the values cannot take away; `manifests` without the dashboard's ConfigMap."""
    kinds = {manifest["kind"]: manifest for manifest in manifests}
    config = tomllib.loads(kinds["ConfigMap"]["data"]["gateway.toml"])
    selector = kinds["Service"]["spec"]["selector"]
    if config["journal"]["backend"] == "redis":
        workload = kinds["Deployment"]
        assert "StatefulSet" not in kinds and "HorizontalPodAutoscaler" in kinds
        assert workload["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert not config["journal"].get("disk")
    else:
        workload = kinds["StatefulSet"]
        assert "Deployment" not in kinds and "HorizontalPodAutoscaler" not in kinds
        assert set(workload["spec"]["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
        assert workload["spec"]["serviceName"] in [m["metadata"]["name"] for m in manifests if m["kind"] == "Service"]
    template = workload["spec"]["template"]
    assert selector.items() <= template["metadata"]["labels"].items()
    check_pod(template, config)
    assert kinds["ServiceAccount"]["automountServiceAccountToken"] is False
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == selector
    policy = kinds["NetworkPolicy"]["spec"]
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    assert all(rule.get("to") and rule.get("ports") for rule in policy["egress"]), "egress to anywhere"
    for monitor in ("ServiceMonitor", "PodMonitor"):
        if monitor in kinds:
            assert template["metadata"]["labels"][kinds[monitor]["spec"]["jobLabel"]] == "trunkline"
    if "PrometheusRule" in kinds:
        assert len(kinds["PrometheusRule"]["spec"]["groups"]) == 2


def referenced_files(config):
    if isinstance(config, dict):
        for key, value in config.items():
            if (key == "file" or key.endswith("_file")) and isinstance(value, str):
                yield value
            else:
                yield from referenced_files(value)
    elif isinstance(config, list):
        for value in config:
            yield from referenced_files(value)


def check_config(trunkline, toml):
    """`trunkline check` with every Secret at hand."""
    with tempfile.TemporaryDirectory() as folder:
        for file in re.findall(re.escape(SECRETS) + r"[\w./-]+", toml):
            secret = pathlib.Path(folder, file.removeprefix(SECRETS))
            secret.parent.mkdir(parents=True, exist_ok=True)
            secret.write_text("amqp://u:p@rabbitmq/" if file.endswith("amqp-url") else "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0")
        config = pathlib.Path(folder, "gateway.toml")
        config.write_text(toml.replace(SECRETS, folder + "/"))
        checked = subprocess.run([trunkline, "--config", config, "check"], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        assert "warning" not in checked.stderr, checked.stderr


def main(trunkline, crds, *files):
    custom = custom_schemas(crds)
    faults = 0
    for file in files:
        manifests = [each for each in yaml.safe_load_all(pathlib.Path(file).read_text()) if each]
        checks = [(f"{each['kind']} {each['metadata']['name']}", check_schema, (each, custom)) for each in manifests]
        # The dashboard is a ConfigMap too.
        own = [each for each in manifests if each["kind"] != "ConfigMap" or "gateway.toml" in each["data"]]
        checks.append(("promises", check_promises, (own,)))
        (toml,) = [each["data"]["gateway.toml"] for each in own if each["kind"] == "ConfigMap"]
        checks.append(("gateway.toml", check_config, (trunkline, toml)))
        for what, check, arguments in checks:
            try:
                check(*arguments)
            except Exception as error:
                faults += 1
                where = "" if isinstance(error, jsonschema.ValidationError) else f" (line {error.__traceback__.tb_next.tb_lineno})"
                print(f"{file}: {what}: {type(error).__name__}: {str(error)[:600]}{where}", file=sys.stderr)
        print(f"  {file}: {len(manifests)} manifests")
    sys.exit(faults > 0)


main(*sys.argv[1:])
