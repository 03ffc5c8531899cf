"""A small float network as a .tflite model, written by hand: what the converter makes of an inverted bottleneck."""

from typing import Any

import numpy as np

from tutelage.bench.micro.model import FLOAT32, INT32, add_constant, schema

SIDE, CHANNELS, CLASSES = 16, 3, 4


class Builder:
    """Append operators of a network one after another; each method gives the number of its result."""

    def __init__(self, seed: int = 0) -> None:
        self.kinds = schema()
        self.model: Any = self.kinds.ModelT()
        self.model.version, self.model.operatorCodes = 3, []
        self.model.buffers, self.model.subgraphs = [self.kinds.BufferT()], [self.kinds.SubGraphT()]
        self.graph: Any = self.model.subgraphs[0]
        self.graph.tensors, self.graph.operators = [], []
        self.rng = np.random.default_rng(seed)

    def tensor(self, shape: tuple[int, ...], name: str) -> int:
        tensor = self.kinds.TensorT()
        tensor.shape, tensor.type, tensor.buffer, tensor.name = np.array(shape, np.int32), FLOAT32, 0, name.encode()
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def run(self, name: str, inputs: list[int], shape: tuple[int, ...], kind: str = "", **options: Any) -> int:
        code = self.kinds.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(self.kinds.BuiltinOperator, name)
        code.version = 1
        self.model.operatorCodes.append(code)
        operator = self.kinds.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        result = self.tensor(shape, f"{name.lower()}_{operator.opcodeIndex}")
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([result], np.int32)
        if kind:
            operator.builtinOptionsType = getattr(self.kinds.BuiltinOptions, kind)
            operator.builtinOptions = getattr(self.kinds, f"{kind}T")()
            for key, value in options.items():
                setattr(operator.builtinOptions, key, value)
        self.graph.operators.append(operator)
        return result

    def weights(self, *shape: int) -> int:
        values = self.rng.normal(size=shape, scale=0.4).astype(np.float32)
        return add_constant(self.model, values, f"weights_{len(self.graph.tensors)}", FLOAT32)

    def integers(self, values: list[Any]) -> int:
        return add_constant(self.model, np.array(values, np.int32), f"integers_{len(self.graph.tensors)}", INT32)

    def conv(self, source: int, side: int, inp: int, out: int, kernel: int = 1, stride: int = 1) -> int:
        """A convolution; at stride 2 it is padded before, as the converter does."""
        return self._conv("CONV_2D", source, side, inp, out, (out, kernel, kernel, inp), stride)

    def depthwise(self, source: int, side: int, channels: int, kernel: int, stride: int = 1) -> int:
        shape = (1, kernel, kernel, channels)
        return self._conv("DEPTHWISE_CONV_2D", source, side, channels, channels, shape, stride)

    def _conv(self, name: str, source: int, side: int, inp: int, out: int, kernel: tuple[int, ...], stride: int) -> int:
        padding = self.kinds.Padding.SAME
        if stride == 2:
            half = kernel[1] // 2
            margins = self.integers([[0, 0], [half, half], [half, half], [0, 0]])
            source = self.run("PAD", [source, margins], (1, side + 2 * half, side + 2 * half, inp), "PadOptions")
            padding = self.kinds.Padding.VALID
        options: dict[str, Any] = {"padding": padding, "strideH": stride, "strideW": stride}
        options |= {"fusedActivationFunction": self.kinds.ActivationFunctionType.RELU6}
        if name == "DEPTHWISE_CONV_2D":
            options["depthMultiplier"] = 1
        result = (1, -(-side // stride), -(-side // stride), out)
        kind = "Conv2DOptions" if name == "CONV_2D" else "DepthwiseConv2DOptions"
        return self.run(name, [source, self.weights(*kernel), self.weights(out)], result, kind, **options)

    def add(self, one: int, other: int, shape: tuple[int, ...]) -> int:
        return self.run("ADD", [one, other], shape, "AddOptions")


def small_net(side: int = SIDE, channels: int = CHANNELS, kernel: int = 3) -> Any:
    """Input (1, channels, side, side): strided convolution, bottlenecks of stride 1 and 2, mean, classifier."""
    net = Builder()
    entry = net.tensor((1, channels, side, side), "input")
    image = net.run("TRANSPOSE", [entry, net.integers([0, 2, 3, 1])], (1, side, side, channels), "TransposeOptions")
    half, quarter = (side + 1) // 2, (side + 3) // 4
    x = net.conv(image, side, channels, 8, 3, 2)
    wide = net.conv(x, half, 8, 24)
    y = net.conv(net.depthwise(wide, half, 24, kernel), half, 24, 8)
    x = net.add(y, x, (1, half, half, 8))
    wide = net.conv(x, half, 8, 32)
    x = net.conv(net.depthwise(wide, half, 32, kernel, 2), quarter, 32, 16)
    mean = net.run("MEAN", [x, net.integers([1, 2])], (1, 1, 1, 16), "ReducerOptions", keepDims=True)
    flat = net.run("RESHAPE", [mean, net.integers([1, 16])], (1, 16), "ReshapeOptions", newShape=np.array([1, 16]))
    logits = net.run(
        "FULLY_CONNECTED", [flat, net.weights(CLASSES, 16), net.weights(CLASSES)], (1, CLASSES), "FullyConnectedOptions"
    )
    net.graph.inputs, net.graph.outputs = np.array([entry], np.int32), np.array([logits], np.int32)
    net.graph.tensors[logits].name = b"logits"
    net.model.signatureDefs = [_signature(net.kinds, entry, logits)]
    return net.model


def _signature(kinds: Any, entry: int, logits: int) -> Any:
    """Name the ends as the converter does: the quantizer calibrates by these names."""
    signature = kinds.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    for name, number in (("inputs", entry), ("outputs", logits)):
        one = kinds.TensorMapT()
        one.name, one.tensorIndex = name[:-1].encode(), number
        setattr(signature, name, [one])
    return signature
