// Prints what a runtime's benchmark program prints, by the name it is called by: benchmark_model, benchncnn,
// executor_runner, onnxruntime_perf_test. It reads the whole model file, and each byte stands for a nanosecond, so that
// no test depends on how busy the host is. A file `pace` beside the models, "START PERCENT", makes times so many percent
// of that from a number of starts on, as a processor that throttles.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static const char *value(int argc, char **argv, const char *key, const char *otherwise) {
  for (int i = 1; i < argc; i++)
    if (!strncmp(argv[i], key, strlen(key))) return argv[i] + strlen(key);
  return otherwise;
}
static double pace(void) {
  long starts = 0, from = 0, percent = 100;
  FILE *file = fopen("starts", "r");
  if (file) { if (fscanf(file, "%ld", &starts) != 1) starts = 0; fclose(file); }
  if ((file = fopen("starts", "w"))) { fprintf(file, "%ld", starts + 1); fclose(file); }
  if (!(file = fopen("pace", "r"))) return 1;
  if (fscanf(file, "%ld %ld", &from, &percent) != 2) percent = 100;
  fclose(file);
  return starts >= from ? percent / 100.0 : 1;
}
static void order(void) {
  printf("============================== Run Order ==============================\n"
         "\t%36s\t%9s\t%9s\t%8s\t%8s\t%10s\t%9s\t%s\n",
         "[node type]", "[first]", "[avg ms]", "[%]", "[cdf%]", "[mem KB]", "[times called]", "[Name]");
}
static void row(const char *type, double ms, int called, const char *name) {
  printf("\t%36s\t%9.3f\t%9.3f\t%7.3f%%\t%7.3f%%\t%10.3f\t%9d\t%s\n", type, ms, ms, 1.0, 1.0, 0.0, called, name);
}
int main(int argc, char **argv) {
  const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
  int litert = strstr(argv[0], "benchmark_model") || value(argc, argv, "--graph=", 0) != 0;
  int ncnn = value(argc, argv, "param=", 0) != 0, torch = value(argc, argv, "--model_path=", 0) != 0;
  const char *path = litert ? value(argc, argv, "--graph=", "") : ncnn ? value(argc, argv, "param=", "")
      : torch ? value(argc, argv, "--model_path=", "") : argc > 2 ? argv[argc - 2] : "";
  FILE *file = fopen(path, "rb");
  if (!file) { fprintf(stderr, "%s: failed to open %s\n", name, path); return 1; }
  double us = 0;
  for (int c; (c = getc(file)) != EOF;) us += 1e-3;
  fclose(file);
  us *= pace();
  if (litert) {
    int runs = atoi(value(argc, argv, "--num_runs=", "50")), warm = atoi(value(argc, argv, "--warmup_runs=", "1"));
    printf("INFO: count=%d first=%.0f curr=%.0f min=%.0f max=%.0f avg=%g std=1\n", warm, 9 * us, us, us, 9 * us, us);
    printf("INFO: count=%d first=%.0f curr=%.0f min=%.0f max=%.0f avg=%g std=1 p5=%.0f median=%.0f p95=%.0f\n", runs,
        us, us, us, 2 * us, 1.1 * us, us, us, us);
    printf("INFO: Inference timings in us: Init: 1234, First inference: 9, Warmup (avg): 9, Inference (avg): 9\n");
    if (strcmp(value(argc, argv, "--enable_op_profiling=", "false"), "true") == 0) {
      printf("INFO: Profiling Info for Benchmark Initialization:\n");
      order();
      row("ModifyGraphWithDelegate", 9, 1, "ModifyGraphWithDelegate/0");
      printf("\nNumber of nodes executed: 1\n\nINFO: Operator-wise Profiling Info for Regular Benchmark Runs:\n");
      order();
      row("TRANSPOSE", us / 4e3, 1, "[transpose_0]:0");
      row("Convolution (NHWC, F32) IGEMM", us / 2e3, 1, "Delegate/Convolution (NHWC, F32) IGEMM:0");
      row("Convolution (NHWC, QC8) DWConv", us / 8e3, 2, "Delegate/Convolution (NHWC, QC8) DWConv:1");
      printf("\n============================== Top by Computation Time ==============================\n");
      row("Convolution (NHWC, F32) IGEMM", us / 2e3, 1, "Delegate/Convolution (NHWC, F32) IGEMM:0");
    }
  } else if (ncnn) {
    fprintf(stderr, "loop_count = %s\nnum_threads = %s\n", argv[1], argv[2]);
    fprintf(stderr, "%20s  min = %7.2f  max = %7.2f  avg = %7.2f\n", path, us / 1e3, us / 1e3, us / 1e3);
  } else if (torch) {
    int runs = atoi(value(argc, argv, "--num_executions=", "1"));
    printf("I 00:00:00.1 executor_runner:99] Model executed successfully %d time(s) in %f ms.\n", runs, runs * us / 1e3);
  } else {
    int runs = 1000;
    for (int i = 1; i + 1 < argc; i++) if (!strcmp(argv[i], "-r")) runs = atoi(argv[i + 1]);
    FILE *result = fopen(argv[argc - 1], "a");
    if (!result) return 1;
    for (int run = 0; run < runs; run++) fprintf(result, "%s,%.9g,50905088,74,%d\n", path, us / 1e6, run);
    fclose(result);
    printf("\nSession creation time cost: 0.0183481 s\nFirst inference time cost: 2 ms\n");
  }
  return 0;
}
