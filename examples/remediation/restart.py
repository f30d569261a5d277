#!/usr/bin/env python3
"""Restarts the pod of an alert while anomaly-counter says that a restart may help.

    restart.py http://127.0.0.1:8080 9099 kubectl delete pod --wait=false

receives Alertmanager's deliveries on 127.0.0.1:9099 instead of anomaly-counter, and forwards each
to it. The response says how often each alert has occurred. For the alerts in RESTART_ON the command
runs with `--namespace=NAMESPACE -- POD`; its exit status says whether the repair worked, and the
next delivery waits until it ends. Without a response, no pod is restarted.
ANOMALY_COUNTER_TOKEN is a token with the scopes `ingest` and `read`.
"""
import json, os, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import Request, urlopen

if len(sys.argv) < 4:
    sys.exit(__doc__)
COUNTER, PORT, *RESTART = sys.argv[1:]
ACTION = "restart_pod"
RESTART_ON = {"KubePodCrashLooping"}  # alerts that a restart may help
HEADERS = {"Content-Type": "application/json"}
if token := os.environ.get("ANOMALY_COUNTER_TOKEN"):
    HEADERS["Authorization"] = f"Bearer {token}"

def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(COUNTER + path, data, HEADERS), timeout=10) as answer:
        return json.load(answer)

def pod_of(labels):
    # With these labels `pod` and `namespace` are those of the exporter, kube-state-metrics.
    exported = labels.keys() & {"exported_namespace", "exported_pod", "exported_container"}
    namespace = labels.get("exported_namespace") or labels.get("namespace") or "default"
    return namespace, labels["exported_pod" if exported else "pod"]

def handle(alert, result):
    labels = alert["labels"] or {}
    if (name := labels.get("alertname")) not in RESTART_ON:
        return f"{name}: no restart, because it is not in RESTART_ON"
    # Another pod of the same incident does not count, but may need a restart too.
    if result["counted"] is not True and result["reason"] != "same_incident":
        return f"{name}: no restart: {result['reason']}"  # ended, repeated, or waiting
    key, level = result["anomaly_key"], result["escalation_level"]
    if level not in (None, "REPEAT"):  # ESCALATE: page a person; PERMANENT_FIX: fix the cause
        return f"{key}: no restart at {level}"
    if result["regressed"] is not False:
        return f"{key}: no restart, because it came back after its fix"
    if ask(f"/anomalies/{key}/repairs/{ACTION}")["should_skip"] is not False:
        return f"{key}: no restart, because it has not helped before"
    namespace, pod = pod_of(labels)
    command = [*RESTART, f"--namespace={namespace}", "--", pod]
    success = subprocess.run(command).returncode == 0
    ask("/repairs", {"anomaly_key": key, "action": ACTION, "success": success})
    return f"{key}: restarted, success: {success}"

class Deliveries(BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            delivery = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            results = ask("/webhooks/alertmanager", delivery)["alerts"]
        except (OSError, ValueError) as error:
            # After a 503 Alertmanager sends the delivery again.
            return self.send_error(getattr(error, "code", 503))
        for alert, result in zip(delivery["alerts"] or [], results):
            try:
                print(handle(alert, result), flush=True)
            except (OSError, KeyError) as error:
                print(f"no restart: {error!r}", flush=True)
        self.send_response(200)
        self.end_headers()

HTTPServer(("127.0.0.1", int(PORT)), Deliveries).serve_forever()
