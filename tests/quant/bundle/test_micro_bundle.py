"""A bundle for TFLite Micro: what can be compiled here is, and computes what Python does; main.cc is parsed."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tutelage.quant.bundle.micro import MicroModel, Sample, input_table, resolver_of, write_micro_bundle
from tutelage.quant.bundle.write import Parity, Preprocess, Thresholds
from tutelage.records import InputError

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
HOW = Preprocess(height=2, width=3, channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
LABELS = ("a", 'quoted "b"')
SCALE, ZERO, OUT_SCALE, OUT_ZERO = 0.031, -3, 0.11, 7
# The interface that main.cc is written to, as far as it uses it: it is parsed, and not compiled against the library.
STUBS = {
    "tensorflow/lite/schema/schema_generated.h": """#pragma once
        #define TFLITE_SCHEMA_VERSION 3
        namespace tflite { struct Model { int version() const; }; const Model* GetModel(const void*); }""",
    "tensorflow/lite/micro/micro_mutable_op_resolver.h": """#pragma once
        enum TfLiteStatus { kTfLiteOk, kTfLiteError };
        namespace tflite { template <unsigned int N> struct MicroMutableOpResolver {
          TfLiteStatus AddConv2D(); TfLiteStatus AddFullyConnected(); }; }""",
    "tensorflow/lite/micro/micro_interpreter.h": """#pragma once
        #include <cstddef>
        #include <cstdint>
        #include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
        #include "tensorflow/lite/schema/schema_generated.h"
        struct TfLiteTensor { union { int8_t* int8; } data; };
        namespace tflite { struct MicroInterpreter {
          template <class R> MicroInterpreter(const Model*, const R&, uint8_t*, size_t);
          TfLiteStatus AllocateTensors(); TfLiteStatus Invoke(); size_t arena_used_bytes() const;
          TfLiteTensor* input(size_t); TfLiteTensor* output(size_t); }; }""",
}
DRIVER = r"""
#include <cstdio>
#include "image.h"
#include "model.h"
#include "sample.h"
int main() {
  std::fwrite(kModel, 1, kModelBytes, stdout);
  signed char input[kHeight * kWidth * kChannels];
  ToInput(kSamplePixels, input);
  std::fwrite(input, 1, sizeof(input), stdout);
  float probabilities[kClasses];
  ToProbabilities(kSampleOutputs, probabilities);
  std::fwrite(probabilities, 4, kClasses, stdout);
  bool called[kClasses];
  Called(probabilities, called);
  for (bool one : called) std::fputc(one, stdout);
  std::fputs(kLabels[1], stdout);
}
"""


@pytest.fixture
def model(tmp_path: Path) -> MicroModel:
    path = tmp_path / "net.tflite"
    path.write_bytes(np.random.default_rng(0).integers(0, 256, 1003, dtype=np.uint8).tobytes())
    return MicroModel(path, ("CONV_2D", "FULLY_CONNECTED"), SCALE, ZERO, OUT_SCALE, OUT_ZERO, 5000, "reported", 4000)


def write(folder: Path, model: MicroModel, thresholds: Thresholds) -> tuple[Path, Sample]:
    rng = np.random.default_rng(1)
    sample = Sample(
        rng.integers(0, 256, (HOW.height, HOW.width, HOW.channels), dtype=np.uint8), np.array([3, 12], dtype=np.int8)
    )
    parity = Parity(reference="fp32", num_images=5, largest_difference=0.1, mean_difference=0.01, same_top1=1.0)
    made = write_micro_bundle(
        folder, model, title="a student", preprocess=HOW, labels=LABELS, thresholds=thresholds, parity=parity,
        sample=sample, notes=["for a test"],
    )  # fmt: skip
    assert made.flash_bytes == 1003
    return made.folder, sample


def run(folder: Path, *arguments: str) -> bytes:
    done = subprocess.run([*arguments], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@needs_compiler
@pytest.mark.parametrize("multi_label", [False, True])
def test_what_is_compiled_holds_the_file_and_computes_what_python_does(
    tmp_path: Path, model: MicroModel, multi_label: bool
) -> None:
    # exp(.11 * 9) / (1 + exp(.11 * 9)) = .729: below the threshold of .8, which the largest class would not see.
    folder, sample = write(tmp_path / "bundle", model, Thresholds(values=(0.2, 0.8), multi_label=multi_label))
    (folder / "driver.cc").write_text(DRIVER)
    run(
        folder,
        *[
            "g++",
            "-std=c++17",
            "-Wall",
            "-Werror",
            "-O0",
            "model.cc",
            "image.cc",
            "sample.cc",
            "driver.cc",
            "-o",
            "driver",
        ],
    )
    said = run(folder, "./driver")
    content = model.path.read_bytes()
    assert said[:1003] == content == (folder / "model.tflite").read_bytes()
    values, said = said[1003 : 1003 + sample.pixels.size], said[1003 + sample.pixels.size :]
    mean, std = np.array(HOW.mean, np.float32), np.array(HOW.std, np.float32)
    exact = (sample.pixels.astype(np.float32) / 255 - mean) / std / np.float32(SCALE) + ZERO
    expected = np.clip(np.round(exact), -128, 127)
    assert np.abs(np.frombuffer(values, np.int8).reshape(expected.shape) - expected).max() <= (
        np.abs(exact % 1 - 0.5).min() < 1e-4
    )
    logits = OUT_SCALE * (sample.outputs.astype(np.float64) - OUT_ZERO)
    probabilities = 1 / (1 + np.exp(-logits)) if multi_label else np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(np.frombuffer(said[:8], np.float32), probabilities, rtol=1e-5)
    called = [p >= t for p, t in zip(probabilities, (0.2, 0.8), strict=True)] if multi_label else [True, False]
    assert list(map(bool, said[8:10])) == called
    assert said[10:].decode() == LABELS[1]


@needs_compiler
def test_main_is_cpp_of_the_interface_that_it_is_written_to(tmp_path: Path, model: MicroModel) -> None:
    folder, _ = write(tmp_path / "bundle", model, Thresholds(values=(0.5, 0.5)))
    for name, text in STUBS.items():
        (tmp_path / "stubs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stubs" / name).write_text(text)
    run(folder, "g++", "-std=c++17", "-Wall", "-Werror", "-fsyntax-only", "-I", str(tmp_path / "stubs"), "main.cc")
    main = (folder / "main.cc").read_text()
    assert "MicroMutableOpResolver<2>" in main
    assert main.count("resolver.Add") == 2


def test_the_arena_is_rounded_up_and_the_readme_says_what_was_not_done(tmp_path: Path, model: MicroModel) -> None:
    folder, _ = write(tmp_path / "bundle", model, Thresholds(values=(0.5, 0.5)))
    assert "kArenaBytes = 5120;" in (folder / "model.h").read_text()
    readme = (folder / "README.md").read_text()
    assert "not compiled against the library here" in readme
    assert "5,000 bytes, reported; of these 4,000" in readme
    assert "- for a test" in readme
    with pytest.raises(InputError, match="is not empty"):
        write(tmp_path / "bundle", model, Thresholds(values=(0.5, 0.5)))


def test_the_table_is_numpys_rounding() -> None:
    table = input_table(HOW, SCALE, ZERO)
    assert table.shape == (3, 256)
    pixel = np.float32(200) / np.float32(255)
    assert table[1, 200] == np.round((pixel - np.float32(0.4)) / np.float32(0.25) / np.float32(SCALE) + ZERO)
    assert (np.diff(table.astype(int), axis=1) >= 0).all()
    assert table.min() >= -128


def test_an_operator_that_no_resolver_is_known_for_is_refused() -> None:
    assert resolver_of("DEPTHWISE_CONV_2D") == "AddDepthwiseConv2D"
    with pytest.raises(InputError, match="operator GATHER is none"):
        resolver_of("GATHER")
