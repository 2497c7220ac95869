"""Holds a CycloneDX file against the schema of its version, and looks whether it names what it must."""

import json
import pathlib
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = pathlib.Path(sys.argv[1]).read_text()
fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
assert fault is None, fault
names = {component["name"] for component in json.loads(text)["components"]}
# One of ours, a plain one, C code that crates bring along, and nothing that only tests need.
assert {"sink-api", "hyper", "librdkafka", "openssl"} <= names and "proptest" not in names, sorted(names)
