"""Lints and renders the chart, and holds it against Kubernetes' schemas; run in the environment of `make tools`.

Reads from standard input, as JSON: `chart`, a path, and `values`. Writes, as JSON: `lint` (what Helm says of the chart,
each with its severity: 2 a warning, 3 an error), `manifests` (the text of each template), `documents` (the objects in
them), `faults` (what no schema allows), or `refused` (why Helm renders nothing).
"""

import json
import sys
from pathlib import Path

import helm_python
import jsonschema
import kubernetes_validate
import yaml

KEDA = json.loads(Path(__file__).with_name("keda.schema.json").read_text(encoding="utf-8"))
NEWEST = kubernetes_validate.latest_version()
OLDEST = "1.25"

given = json.load(sys.stdin)
lint = helm_python.lint(given["chart"], given["values"], strict=True)["messages"]
try:
    with helm_python.Chart.load(given["chart"]) as chart:
        chart.validate_schema(given["values"])
        manifests = chart.render(given["values"], name="release", namespace="contacts")
except helm_python.HelmError as error:
    json.dump({"refused": str(error)}, sys.stdout)
    sys.exit()
texts = {name.rpartition("/")[2]: text for name, text in sorted(manifests.items()) if text.strip()}
documents = [each for name, text in texts.items() if name != "NOTES.txt" for each in yaml.safe_load_all(text) if each]
faults = []
for document in documents:
    if document["apiVersion"] == "keda.sh/v1alpha1":
        found = jsonschema.Draft202012Validator(KEDA).iter_errors(document)
        faults += [f"{document['kind']} {document['metadata']['name']}: {error.message}" for error in found]
        continue
    for version in (OLDEST, NEWEST):
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            faults.append(f"{document['kind']} {document['metadata']['name']}, Kubernetes {version}: {error.message}")
json.dump({"lint": lint, "manifests": texts, "documents": documents, "faults": faults}, sys.stdout)
