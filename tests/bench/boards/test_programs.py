"""What the runtimes' benchmark programs are asked and what they print: lines as they stand in their documentation."""

import pytest

from tutelage.bench.programs.entry import TimedLayer, Turn, program_of
from tutelage.bench.runtimes.registry import RUNTIMES, find_runtime

TURN = Turn("/d/net", (1, 3, 96, 64), threads=2, settle=3, runs=4, result="/d/r.csv")


def read(runtime: str, printed: str, turn: Turn = TURN):
    return program_of(find_runtime(runtime)).parse(printed, turn)


def test_each_program_is_called_with_what_its_turn_says() -> None:
    words = {name: program_of(one).arguments(TURN) for name, one in RUNTIMES.items() if one.program}
    assert set(words) == {"executorch", "litert", "ncnn", "onnxruntime"}
    assert words["litert"] == [
        "--graph=/d/net", "--num_threads=2", "--use_xnnpack=true", "--warmup_runs=3", "--warmup_min_secs=0",
        "--num_runs=4", "--min_secs=0",
    ]  # fmt: skip
    assert words["ncnn"] == ["4", "2", "0", "-1", "0", "param=/d/net", "shape=[64,96,3]"]  # width, height, channels
    assert words["executorch"] == ["--model_path=/d/net", "--num_executions=7", "--cpu_threads=2"]
    assert words["onnxruntime"][3:5] == ["-r", "7"]
    assert words["onnxruntime"][-2:] == ["/d/net", "/d/r.csv"]


def test_litert_reports_statistics_of_the_runs_that_count() -> None:
    printed = (
        "INFO: count=3 first=187533 curr=211669 min=187533 max=211669 avg=2e+05 std=9\n"
        "INFO: count=4 first=1249 curr=1240 min=1238 max=1252 avg=1.24027e+03 std=25 p5=1238 median=1239 p95=1247\n"
        "INFO: Inference timings in us: Init: 5579, First inference: 187533, Warmup (avg): 2e+05, Inference (avg): 9\n"
    )
    found = read("litert", printed)
    assert found.load_ms == 5.579
    assert not found.samples_ms
    report = found.report.to_dict()
    assert report == {"runs": 4, "mean_ms": 1.24027, "median_ms": 1.239, "min_ms": 1.238, "max_ms": 1.252}
    older = read("litert", "count=4 first=9 curr=9 min=9 max=11 avg=10 std=1\n")  # without percentiles, nor a prefix
    assert (older.report.mean_ms, older.report.median_ms) == (0.01, None)
    one = read("litert", "count=1 curr=3512391\n", Turn("/d/net", (1, 3, 8, 8), 1, 0, 1, ""))
    assert one.report.mean_ms == 3512.391
    with pytest.raises(ValueError, match="timed 50 inferences instead of 4"):  # it went on for its minimum of seconds
        read("litert", printed.replace("count=4", "count=50"))
    with pytest.raises(ValueError, match="no line of count="):
        read("litert", "ERROR: failed to load")


HEADER = "[node type]\t[first]\t[avg ms]\t[%]\t[cdf%]\t[mem KB]\t[times called]\t[Name]"
OLDER = HEADER.replace("[first]", "[start]\t[first]")
ORDER = "============================== Run Order ==============================\n\t"


def layers(printed: str, int8: bool = False) -> list[TimedLayer]:
    profiles = program_of(find_runtime("litert")).layers
    assert profiles is not None
    assert profiles.arguments == ("--enable_op_profiling=true",)
    return profiles.parse(printed, int8)


def test_litert_prints_the_operators_of_the_runs_in_tables_of_several_versions() -> None:
    before = (
        f"INFO: Profiling Info for Benchmark Initialization:\n{ORDER}{HEADER}\n\tModify\t9\t9\t1%\t1%\t0\t1\tM/0\n\n"
    )
    runs = "INFO: Operator-wise Profiling Info for Regular Benchmark Runs:\n"
    conv = "\tConvolution (NHWC, F32) GEMM\t0.4\t0.25\t9%\t9%\t0.000\t2\tDelegate/Convolution (NHWC, F32) GEMM:0\n"
    rows = "\tMEAN\t0.1\t0.125\t9%\t9%\t0.000\t1\t[a/mean]:7\n"
    after = f"\n=== Top by Computation Time ===\n\t{HEADER}\n{conv}"
    mean = TimedLayer("a/mean:7", "MEAN", 0.125, "built-in", "not by XNNPACK")
    product = TimedLayer("Convolution (NHWC, F32) GEMM:0", "Convolution (NHWC, F32) GEMM", 0.5, "XNNPACK")
    # All in one table.
    assert layers(f"{before}{runs}{ORDER}{HEADER}\n{conv}{rows}{after}") == [product, mean]
    # XNNPACK's in one of their own, in the place of the row that stands for them.
    whole = "\tTfLiteXNNPackDelegate\t9\t9\t9%\t9%\t0\t1\t[x]:8\n"
    own = f"Delegate internal: \n{ORDER}{HEADER}\n{conv}\n"
    assert layers(f"{before}{runs}{ORDER}{HEADER}\n{whole}{rows}{after}{own}") == [product, mean]
    # Before XNNPACK was profiled, with a column more: its part of the graph is one row.
    older = f"{runs}{ORDER}{OLDER}\n\tTfLiteXNNPackDelegate\t0\t9\t3.5\t9%\t9%\t0\t1\t[x]:8\n"
    assert layers(older) == [TimedLayer("x:8", "TfLiteXNNPackDelegate", 3.5, "built-in")]
    assert layers(f"{runs}{ORDER}{HEADER}\n{conv}", int8=True)[0].note == "not quantized"
    for printed, message in (
        (before, "printed no table after 'Operator-wise"),
        (f"{runs}{ORDER}[node type]\t[avg ms]\n", "has no column"),
    ):
        with pytest.raises(ValueError, match=message):
            layers(printed)


def test_ncnn_reports_minimum_maximum_and_mean() -> None:
    line = "            /d/net  min =   23.20  max =   24.06  avg =   23.63\n"
    report = read("ncnn", f"loop_count = 4\ncooling_down = 0\n{line}").report
    assert (report.runs, report.min_ms, report.max_ms, report.mean_ms) == (4, 23.2, 24.06, 23.63)
    with pytest.raises(ValueError, match=r"2 lines .* takes param="):  # an older one runs its own networks
        read("ncnn", line * 2)
    with pytest.raises(ValueError, match=r"0\.00 ms"):
        read("ncnn", "net  min =    0.00  max =    0.01  avg =    0.00")


def test_executorch_reports_one_time_of_all() -> None:
    said = "I 00:00:00.086 executor_runner.cpp:402] Model executed successfully 7 time(s) in 35.000000 ms.\n"
    report = read("executorch", said).report
    assert (report.runs, report.mean_ms, report.min_ms) == (7, 5.0, None)
    with pytest.raises(ValueError, match="an older version"):
        read("executorch", "Model executed successfully.")


def test_onnxruntime_reports_every_run_of_which_the_first_do_not_count() -> None:
    lines = "".join(f"net,{0.001 * (1 + run):.4f},{50905088 + run},74,{run}\n" for run in range(7))
    found = read("onnxruntime", f"Session creation time cost: 0.0183481 s\nAvg CPU usage: 74 %\n{lines}")
    assert found.samples_ms == pytest.approx((4, 5, 6, 7))
    assert found.load_ms == pytest.approx(18.3481)
    assert found.peak_bytes == 50905094
    with pytest.raises(ValueError, match="holds 0 runs instead of 7"):
        read("onnxruntime", "failed to open result file")
