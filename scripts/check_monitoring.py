"""Checks k8s/monitoring for what promtool cannot see, and writes the dashboard's queries as rules, which it can.

    check_monitoring.py FOLDER QUERIES_FILE
"""

import json
import sys
from pathlib import Path

import yaml

# What Grafana puts in place of its variables.
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$stream": ".*"}


def main() -> None:
    folder, queries = Path(sys.argv[1]), Path(sys.argv[2])
    alerts = yaml.safe_load((folder / "alerts.yaml").read_text(encoding="utf-8"))
    rule = yaml.safe_load((folder / "prometheus-rule.yaml").read_text(encoding="utf-8"))
    if rule["spec"] != alerts:
        sys.exit("check-k8s: prometheus-rule.yaml has not the groups of alerts.yaml")
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    tests = (folder / "alerts_test.yaml").read_text(encoding="utf-8")
    untested = [rule["alert"] for rule in rules if rule["alert"] not in tests]
    if untested:
        sys.exit(f"check-k8s: no test in alerts_test.yaml for {', '.join(untested)}")

    dashboard = json.loads((folder / "dashboard.json").read_text(encoding="utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    if len(panels) < 10 or not all(panel["description"] for panel in panels):
        sys.exit("check-k8s: dashboard.json has panels that nobody explains, or hardly any")
    for name, value in VARIABLES.items():
        expressions = [expression.replace(name, value) for expression in expressions]
    recorded = [{"record": f"dashboard:{at}", "expr": expr} for at, expr in enumerate(expressions)]
    queries.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}), encoding="utf-8")


main()
