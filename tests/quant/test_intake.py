"""ONNX files of other exporters: brought into the form that is quantized, or refused with the tensor or node named."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tutelage.quant.entries import image_first
from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.quant.int8.placement import check_integer, integer_macs
from tutelage.quant.intake import fix_shape, prepare_model
from tutelage.quant.run import run_onnx
from tutelage.records import InputError

RNG = np.random.default_rng(0)
W = {"w0": (8, 4, 3, 3), "w1": (5, 8), "b1": (5,)}  # 36 products: no stem that stays in float
WIDE = {"logits": 5, "f": 8}
IMAGES = RNG.standard_normal((4, 4, 8, 8)).astype(np.float32)


def net(
    path: Path, *, opset: int = 17, named: bool = True, dtype: Any = np.float32, kind: int = TensorProto.FLOAT,
    shape: tuple[object, ...] = ("n", 4, 8, 8), before: tuple[Any, ...] = (), outputs: tuple[str, ...] = ("logits",),
    entries: tuple[Any, ...] = (), listed: bool = False,
) -> Path:  # fmt: skip
    """Write convolution, pool, linear; `before` are nodes that make `x0` of `image`."""
    weights = [
        numpy_helper.from_array(np.random.default_rng(1).standard_normal(s).astype(dtype), n) for n, s in W.items()
    ]
    nodes = [
        *before,
        helper.make_node("Conv", ["x0" if before else "image", "w0"], ["c"], name="conv0" * named, pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["a"], name="relu0" * named),
        helper.make_node("GlobalAveragePool", ["a"], ["p"], name="pool" * named),
        helper.make_node("Flatten", ["p"], ["f"], name="flat" * named),
        helper.make_node("Gemm", ["f", "w1", "b1"], ["logits"], name="fc" * named, transB=1),
    ]
    inputs = [helper.make_tensor_value_info("image", kind, shape), *entries]
    if listed:
        inputs += [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in W.items()]
    ends = [
        helper.make_tensor_value_info(n, kind if dtype == np.float16 else TensorProto.FLOAT, [shape[0], WIDE[n]])
        for n in outputs
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "net", inputs, ends, weights), opset_imports=[helper.make_opsetid("", opset)]
    )
    model.ir_version = 3 if listed else 8
    onnx.save_model(model, path)
    return path


@pytest.mark.parametrize(
    "options", [{"named": False}, {"opset": 9}, {"opset": 11, "listed": True}, {"shape": (2, 4, 8, 8)}, {}]
)
def test_what_can_be_brought_there_computes_the_same_and_becomes_int8(options: dict[str, Any], tmp_path: Path):
    path, usable, int8 = net(tmp_path / "net.onnx", **options), tmp_path / "usable.onnx", tmp_path / "int8.onnx"
    prepare_model(path, usable)
    np.testing.assert_allclose(run_onnx(usable, IMAGES), run_onnx(path, IMAGES), rtol=1e-5, atol=1e-6)
    model = onnx.load(usable)
    names = [node.name for node in model.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    report = quantize_onnx(usable, int8, IMAGES)
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(int8).graph.node}
    assert report.integer_macs == 1.0
    check_integer(report)


def test_macs_on_integers_are_counted_by_hand(tmp_path: Path):
    """8 x 8 outputs of 8 channels times 36 products, and 5 outputs times 8: the linear layer is left in float."""
    int8 = tmp_path / "int8.onnx"
    quantize_onnx(net(tmp_path / "net.onnx"), int8, IMAGES, exclude=["fc"])
    convolution, linear = 64 * 8 * 36, 5 * 8
    assert integer_macs(int8, (1, 4, 8, 8)) == pytest.approx(convolution / (convolution + linear))
    assert integer_macs(tmp_path / "net.onnx", (1, 4, 8, 8)) == 0


def test_a_file_that_stays_float_is_not_called_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Left without names, all nodes bear that of the stem, which stays in float, and so do they."""
    monkeypatch.setitem(W, "w0", (8, 3, 3, 3))
    int8, images = tmp_path / "int8.onnx", IMAGES[:, :3]
    path = net(tmp_path / "net.onnx", named=False, shape=("n", 3, 8, 8))
    report = quantize_onnx(path, int8, images)
    assert report.integer_macs == 0
    with pytest.raises(InputError, match=r"int8\.onnx would be float: of its operators \(.*Conv"):
        check_integer(report)
    assert not int8.exists()
    prepare_model(path, tmp_path / "usable.onnx")
    assert (quantize_onnx(tmp_path / "usable.onnx", int8, images).integer_macs or 0) > 0


CAST = (helper.make_node("Cast", ["image"], ["x0"], name="cast", to=TensorProto.FLOAT),)
TURN = (helper.make_node("Transpose", ["image"], ["x0"], name="turn", perm=[0, 3, 1, 2]),)
AGE = (helper.make_tensor_value_info("age", TensorProto.FLOAT, ["n", 1]),)
MIX = (helper.make_node("Mul", ["image", "age"], ["x0"], name="mix"),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": TensorProto.UINT8, "before": CAST}, "takes image as uint8, read by Cast cast: .*--input x0"),
        ({"shape": ("n", 8, 8, 4), "before": TURN}, r"image \(n, 8, 8, 4\), channels last .*--input x0"),
        ({"entries": AGE, "before": MIX}, r"2 inputs \(image \(n, 4, 8, 8\), age \(n, 1\)\)"),
        ({"outputs": ("logits", "f")}, r"2 outputs \(logits .*, f .*\): name that of the classes with --output"),
    ],
)
def test_what_cannot_is_refused_by_name(options: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message) as caught:
        prepare_model(net(tmp_path / "net.onnx", **options), tmp_path / "out.onnx")
    assert "\n" not in str(caught.value)


def test_what_is_random_or_not_finite_is_refused_by_node(tmp_path: Path):
    """Dropout that was exported in training mode runs in ONNX Runtime, with other outputs each time."""
    model = onnx.load_model(net(tmp_path / "net.onnx"))

    def refused(nodes: list[Any], *constants: Any) -> str:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        changed.graph.node[0].output[0] = "c0"
        for place, node in enumerate(nodes, 1):
            changed.graph.node.insert(place, node)
        changed.graph.initializer.extend(constants)
        onnx.save_model(changed, tmp_path / "changed.onnx")
        with pytest.raises(InputError) as caught:
            prepare_model(tmp_path / "changed.onnx", tmp_path / "out.onnx")
        return str(caught.value)

    ratio, on = (numpy_helper.from_array(np.array(v, t), n) for v, t, n in ((0.5, np.float32, "half"), (1, bool, "on")))
    dropout = helper.make_node("Dropout", ["c0", "half", "on"], ["c"], name="drop")
    assert "Dropout drop is in training mode" in refused([dropout], ratio, on)
    noise = helper.make_node("RandomNormalLike", ["c0"], ["noise"], name="jitter")
    add = helper.make_node("Add", ["c0", "noise"], ["c"], name="add")
    assert "RandomNormalLike jitter draws random numbers" in refused([noise, add])
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full(W["w0"], np.nan, np.float32), "w0"))
    assert "tensor w0 of Conv conv0 holds NaN" in refused([helper.make_node("Identity", ["c0"], ["c"], name="same")])


@pytest.mark.parametrize(
    ("kind", "dtype"), [(TensorProto.FLOAT16, np.float16), (TensorProto.DOUBLE, np.float64)], ids=["half", "double"]
)
@pytest.mark.parametrize("in_nodes", [False, True])
def test_a_network_in_another_float_is_taken_in_float32(
    kind: int, dtype: Any, in_nodes: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path, usable, int8 = (
        net(tmp_path / "net.onnx", kind=kind, dtype=dtype),
        tmp_path / "usable.onnx",
        tmp_path / "8.onnx",
    )
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = kind
    if in_nodes:
        constants = [helper.make_node("Constant", [], [w.name], value=w) for w in model.graph.initializer]
        nodes = [*constants, *model.graph.node]
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(nodes)
    onnx.save_model(model, path)
    prepare_model(path, usable)
    assert "it is taken in float32" in caplog.text
    plain = net(tmp_path / "plain.onnx")
    np.testing.assert_allclose(run_onnx(usable, IMAGES), run_onnx(plain, IMAGES), atol=0.05)
    assert quantize_onnx(usable, int8, IMAGES).num_quantized


def test_the_input_that_takes_the_image_is_found_or_named_and_comes_first(tmp_path: Path):
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 4, 8, 8])
    mix = (helper.make_node("Mul", ["image", "mask"], ["x0"], name="mix"),)
    two = net(tmp_path / "two.onnx", entries=AGE, before=MIX)
    assert image_first(two, "", tmp_path / "kept") == (two, ("age (n, 1)",))
    assert not (tmp_path / "kept").exists()
    pictures = net(tmp_path / "pictures.onnx", entries=(mask,), before=mix)
    with pytest.raises(InputError, match=r"takes 2 inputs \(image, mask\), 2 of four dimensions: .* --input"):
        image_first(pictures, "", tmp_path)
    with pytest.raises(InputError, match=r"--input x: .* has no input of that name; its own are image, mask"):
        image_first(pictures, "x", tmp_path)
    path, others = image_first(pictures, "mask", tmp_path / "kept")
    assert others == ("image (n, 4, 8, 8)",)
    assert [value.name for value in onnx.load(path).graph.input] == ["mask", "image"]
    assert image_first(net(tmp_path / "one.onnx"), "", tmp_path)[1] == ()


def test_truncated_weights_beside_the_file_are_named(tmp_path: Path):
    model = onnx.load(net(tmp_path / "net.onnx"))
    onnx.save_model(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    weights = tmp_path / "net.data"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"tensor b1 reads net.data up to byte \d+, and it has \d+; copy it whole"):
        prepare_model(tmp_path / "net.onnx", tmp_path / "out.onnx")


def test_a_network_is_taken_between_two_tensors(tmp_path: Path):
    path = net(tmp_path / "net.onnx", kind=TensorProto.UINT8, before=CAST, outputs=("f", "logits"))
    prepare_model(path, tmp_path / "out.onnx", start="x0", end="logits")
    plain = net(tmp_path / "plain.onnx")
    np.testing.assert_allclose(run_onnx(tmp_path / "out.onnx", IMAGES), run_onnx(plain, IMAGES), rtol=1e-6)
    with pytest.raises(InputError, match=r"--output nothing: .* has no tensor of that name; its own are f, logits"):
        prepare_model(path, tmp_path / "out.onnx", end="nothing")


def test_free_sides_are_fixed_and_the_batch_stays_free(tmp_path: Path):
    path = net(tmp_path / "net.onnx", shape=("n", 4, "h", "w"))
    fix_shape(path, (1, 4, 8, 8))
    dims = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value or d.dim_param for d in dims] == ["n", 4, 8, 8]
