"""A program that speaks the device protocol: it reads the model files and says a nanosecond a byte of each inference.

Its first argument names a fault: `slow` becomes 30 % slower from the fourth run of each model on; others say what they
reply wrongly. Written as in a JSON object (without its braces, which a command template would read) it is added to the
reply to hello: with "energy" two watts and a millijoule an inference are counted, five of models that have as many
bytes as the file "dear" lists; "mean" and "silent" are faults.
"""

import json
import os
import sys

fault = sys.argv[1] if len(sys.argv) > 1 else ""
said = json.loads("{" + fault + "}") if fault.startswith('"') else {}
files, models, runs = {}, {}, {}
WATTS = 2


def millijoules(size):
    if "dear" not in said:
        return 1
    with open(said["dear"]) as dear:
        return 5 if str(size) in dear.read().split() else 1


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
        reply.update(said)
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
        if fault == "mean" or "mean" in said:
            reply = {"runs": request["runs"], "mean_ns": ns, "max_ns": 2 * ns}
        if said.get("energy") and "silent" not in said:
            reply["energy_uj"] = request["runs"] * (WATTS * ns / 1e3 + 1e3 * millijoules(models[request["model"]]))
    elif what == "idle":
        reply = {"energy_uj": WATTS * 1000 * request["ms"], "ns": 1e6 * request["ms"]}
    elif what == "state":
        reply = {"temperature_c": 88.0, "on_battery": True, "governor": "powersave", "peak_bytes": 4096}
        if fault == "state":
            reply["temperature"] = 3
    else:
        break
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()
