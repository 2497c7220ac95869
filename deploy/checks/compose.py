"""Looks whether what a compose file refers to is there: files, services and pinned images."""

import pathlib
import sys

import yaml

file = pathlib.Path(sys.argv[1])
compose = yaml.safe_load(file.read_text())
services = compose["services"]
for name, service in services.items():
    image = service.get("image")
    assert image is None or (":" in image and not image.endswith(":latest")), f"{name}: {image} is not pinned"
    assert image or (file.parent / service["build"]["context"] / service["build"]["dockerfile"]).is_file(), name
    for other in service.get("depends_on", {}):
        assert other in services, f"{name} depends on {other}"
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert (file.parent / source).exists() if source.startswith(".") else source in compose["volumes"], f"{name}: {source}"
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), f"{name}: {port} is open to everybody"
