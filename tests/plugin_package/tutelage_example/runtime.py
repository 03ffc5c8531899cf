"""A runtime: ONNX's reference evaluator, in numpy alone. On a device this file lies beside the runner."""

try:
    from tutelage.bench.runtimes.entry import Runtime
except ImportError:  # a device needs Python, numpy and the runtime, and no Tutelage
    from entry import Runtime


class Reference:
    """Load an ONNX file and run it."""

    def prepare(self):
        import onnx

        return onnx.__version__

    def load(self, path, shape, threads, precision):
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(path)
        name = session.input_names[0]
        return lambda images: session.run(None, {name: images})[0], precision


REFERENCE = Runtime(
    name="onnx-reference",
    module="onnx.reference",
    distribution="onnx",
    precisions=("fp32",),
    suffixes=(".onnx",),
    adapter=Reference,
    file=__file__,
)
