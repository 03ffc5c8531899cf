"""A program that speaks the device protocol: it reads the model files and says a nanosecond a byte of each inference.

Its first argument names a fault: `slow` becomes 30 % slower from the fourth run of each model on; others say what they
reply wrongly.
"""

import json
import os
import sys

fault = sys.argv[1] if len(sys.argv) > 1 else ""
files, models, runs = {}, {}, {}
for line in sys.stdin.buffer:
    request = json.loads(line)
    what = request["do"]
    if what == "hello":
        reply = {
            "protocol": 1,
            "runtime": "onnxruntime",
            "runtime_version": "1",
            "formats": [".onnx"],
            "processor": "Z80",
        }
        reply["cores"] = request["cores"]
        reply.update(json.loads(fault) if fault.startswith("{") else {})
    elif what == "put":
        files[request["name"]] = len(sys.stdin.buffer.read(request["bytes"]))
        reply = {"bytes": 1 if fault == "full" else files[request["name"]]}
    elif what == "load":
        models[request["model"]] = files[request["name"]]
        reply = {"load_ns": 5e6} if fault != "broken" else {"error": "the net is broken\nin two lines"}
    elif what == "run":
        runs[request["model"]] = runs.get(request["model"], 0) + 1
        ns = models[request["model"]] * (1.3 if fault == "slow" and runs[request["model"]] > 4 else 1.0)
        if fault == "dies":
            os._exit(7)
        reply = {"ns": [ns] * (request["runs"] - (fault == "short"))}
        if fault == "mean":
            reply = {"runs": request["runs"], "mean_ns": ns, "max_ns": 2 * ns}
    elif what == "state":
        reply = {"temperature_c": 88.0, "on_battery": True, "governor": "powersave", "peak_bytes": 4096}
        if fault == "state":
            reply["temperature"] = 3
    else:
        break
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()
