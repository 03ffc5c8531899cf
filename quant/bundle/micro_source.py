"""The C++ sources and the README of a bundle for TFLite Micro, as templates of `string.Template`."""

MODEL_H = """\
// The network: a .tflite file of $bytes bytes, which stays in flash.
#pragma once

extern const unsigned char kModel[$bytes];
constexpr int kModelBytes = $bytes;
// Memory that the interpreter needs, see README.md.
constexpr int kArenaBytes = $arena;
"""

IMAGE_H = """\
// What goes into the network and what its outputs mean; nothing here needs TFLite Micro.
#pragma once

constexpr int kHeight = $height, kWidth = $width, kChannels = $channels, kClasses = $classes;
extern const char* const kLabels[kClasses];

// Turns pixels (height, width, channels; 0 to 255) into the network's int8 input.
void ToInput(const unsigned char* pixels, signed char* input);

// Turns the network's int8 outputs into probabilities.
void ToProbabilities(const signed char* outputs, float* probabilities);

// Says which labels are called, true a label.
void Called(const float* probabilities, bool* called);
"""

IMAGE_CC = """\
#include "image.h"

#include <cmath>

const char* const kLabels[kClasses] = {$labels};

namespace {
// Scaling to 0..1, the mean, the standard deviation and the quantization of the input, for each pixel value.
const signed char kInput[kChannels][256] = {
$table};
constexpr float kOutputScale = $output_scale;
constexpr int kOutputZero = $output_zero;
constexpr bool kMultiLabel = $multi_label;
const float kThresholds[kClasses] = {$thresholds};
}  // namespace

void ToInput(const unsigned char* pixels, signed char* input) {
  for (int i = 0; i < kHeight * kWidth * kChannels; ++i) input[i] = kInput[i % kChannels][pixels[i]];
}

void ToProbabilities(const signed char* outputs, float* probabilities) {
  int most = 0;
  for (int i = 1; i < kClasses; ++i) {
    if (outputs[i] > outputs[most]) most = i;
  }
  float sum = 0.0f;
  for (int i = 0; i < kClasses; ++i) {
    if (kMultiLabel) {
      probabilities[i] = 1.0f / (1.0f + std::exp(-kOutputScale * (outputs[i] - kOutputZero)));
    } else {
      probabilities[i] = std::exp(kOutputScale * (outputs[i] - outputs[most]));
      sum += probabilities[i];
    }
  }
  for (int i = 0; i < kClasses && !kMultiLabel; ++i) probabilities[i] /= sum;
}

void Called(const float* probabilities, bool* called) {
  int most = 0;
  for (int i = 0; i < kClasses; ++i) {
    called[i] = kMultiLabel && probabilities[i] >= kThresholds[i];
    if (probabilities[i] > probabilities[most]) most = i;
  }
  if (kMultiLabel) return;
  if (kClasses == 2) most = probabilities[1] >= kThresholds[1] ? 1 : 0;  // chosen on validation images
  called[most] = true;
}
"""

SAMPLE_H = """\
// A validation image and the outputs that the network gave for it, to test a build; leave it out of a product.
#pragma once

#include "image.h"

extern const unsigned char kSamplePixels[kHeight * kWidth * kChannels];
extern const signed char kSampleOutputs[kClasses];
"""

MAIN_CC = """\
// Runs the network on the sample image under TFLite Micro and compares with the outputs that are known.
#include <cstdio>
#include <cstring>

#include "image.h"
#include "model.h"
#include "sample.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {
alignas(16) unsigned char arena[kArenaBytes];

// Prepares the network once; null where the library lacks an operator or the arena is too small.
tflite::MicroInterpreter* Prepare() {
  static tflite::MicroMutableOpResolver<$num_operators> resolver;
$resolvers
  const tflite::Model* model = tflite::GetModel(kModel);
  if (model->version() != TFLITE_SCHEMA_VERSION) return nullptr;
  static tflite::MicroInterpreter interpreter(model, resolver, arena, kArenaBytes);
  return interpreter.AllocateTensors() == kTfLiteOk ? &interpreter : nullptr;
}
}  // namespace

int main() {
  tflite::MicroInterpreter* interpreter = Prepare();
  if (interpreter == nullptr) {
    std::printf("the network could not be prepared\\n");
    return 1;
  }
  std::printf("arena: %d of %d bytes\\n", static_cast<int>(interpreter->arena_used_bytes()), kArenaBytes);
  ToInput(kSamplePixels, interpreter->input(0)->data.int8);
  if (interpreter->Invoke() != kTfLiteOk) return 1;
  const signed char* outputs = interpreter->output(0)->data.int8;
  float probabilities[kClasses];
  bool called[kClasses];
  ToProbabilities(outputs, probabilities);
  Called(probabilities, called);
  int furthest = 0;
  for (int i = 0; i < kClasses; ++i) {
    const int distance = outputs[i] - kSampleOutputs[i];
    if (distance > furthest || -distance > furthest) furthest = distance < 0 ? -distance : distance;
    std::printf("%s %.4f%s\\n", kLabels[i], static_cast<double>(probabilities[i]), called[i] ? " <-" : "");
  }
  // Kernels may round apart by a step; more says that something is wrong.
  std::printf("outputs differ by at most %d steps from those known: %s\\n", furthest, furthest <= 2 ? "ok" : "WRONG");
  return furthest <= 2 ? 0 : 1;
}
"""

README = """\
# $title on a microcontroller

| | |
|---|---|
| flash, the model alone | $flash bytes (`model.tflite`, the same bytes in `model.cc`) |
| RAM, the arena | $arena_bytes bytes, $arena_source; of these $head_bytes for activations and scratch |
| input | $height x $width x $channels pixels of 8 bits, channels last |
| operators | $operators |
| SHA-256 of the model | `$sha256` |

Against $reference, on $num_images validation images: outputs differ by at most $largest (mean $average); the same class
is first in $same %.

The arena was taken on a 64-bit host with TFLite Micro's reference kernels. On a 32-bit board what persists takes less;
CMSIS-NN's kernels need scratch for their convolutions besides. `main.cc` prints what is used: set `kArenaBytes` in
`model.h` to that.

## Build

`main.cc` needs TFLite Micro (https://github.com/tensorflow/tflite-micro); `model.cc`, `image.cc` and `sample.cc` need
nothing. It was written to the library's interface and not compiled against the library here. In a build of your board,
with the library's headers on the include path and its archive:

    g++ -std=c++17 -I tflite-micro -I FLATBUFFERS/include -I GEMMLOWP *.cc libtensorflow-microlite.a -o classify

`main` runs the sample image and says whether the outputs are those known. In a product leave `sample.cc` out and call
`ToInput`, `Invoke`, `ToProbabilities` and `Called` on your own pixels: an image of the size above, resized as
`preprocess.json` says ($fit, bilinear). The table in `image.cc` holds / 255, - mean ($mean), / std ($std) and the
input's quantization.
$notes
"""
