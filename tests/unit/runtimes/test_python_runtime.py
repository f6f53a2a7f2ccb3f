from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modelmq.errors import ModelLoadError
from modelmq.metadata import Signature, TensorSpec
from modelmq.runtimes import ModelSettings, ModelSource, Runtime, open_model

Open = Callable[..., Runtime]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def write_and_open(text: str, **settings: object) -> Runtime:
        path = tmp_path / "model.py"
        path.write_text(text)
        return open_model(ModelSource("my-model", "1", path, ModelSettings(runtime="python", **settings)))

    return write_and_open


def test_without_declarations_any_tensors_pass_and_rows_are_joined(opened: Open) -> None:
    runtime = opened("class Echo:\n    def predict(self, batch):\n        return batch\n")
    assert runtime.signature == Signature("python", (), (), batched=True)
    batch = {"any": np.zeros(3)}
    assert runtime.predict(batch) is batch


def test_the_class_declares_its_tensors(opened: Open) -> None:
    runtime = opened(
        "class M:\n"
        "    inputs = {'a': ('FP32', [-1, 2]), 'b': ['BYTES', (-1,)]}\n"
        "    outputs = {'y': ('INT64', [-1])}\n"
        "    def predict(self, batch): return batch\n"
    )
    assert runtime.signature == Signature(
        "python",
        (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "BYTES", (-1,))),
        (TensorSpec("y", "INT64", (-1,)),),
        batched=True,
    )


def test_settings_declare_in_place_of_the_class(opened: Open) -> None:
    spec = TensorSpec("q", "BOOL", (4,))
    runtime = opened(
        "class M:\n    inputs = {'a': ('FP32', [-1])}\n    def predict(self, b): return b\n", inputs=(spec,)
    )
    assert runtime.signature.inputs == (spec,)
    assert not runtime.signature.batched


@pytest.mark.parametrize(("attribute", "settings"), [("batched = False", {}), ("", {"batched": False})])
def test_joining_rows_can_be_declined(opened: Open, attribute: str, settings: dict[str, object]) -> None:
    runtime = opened(f"class M:\n    {attribute}\n    def predict(self, batch): return batch\n", **settings)
    assert not runtime.signature.batched


def test_of_several_classes_the_one_named_model_is_served(opened: Open) -> None:
    part = "class Part:\n    def predict(self, b): return b\n"
    text = part + "class Model:\n    def predict(self, b): return {'chosen': 1}\n"
    assert opened(text).predict({}) == {"chosen": 1}


def test_imported_classes_are_not_models(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text("class Part:\n    def predict(self, b): return b\n")
    text = "from my_parts import Part\nclass Whole(Part):\n    def load(self): self.ready = 1\n"
    assert opened(text).predict({"a": 1}) == {"a": 1}
    sys.modules.pop("my_parts")


def test_modules_beside_the_file_can_be_imported_later_and_path_is_left_clean(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "late_part.py").write_text("VALUE = 7\n")
    before = list(sys.path)
    runtime = opened("class M:\n    def predict(self, b):\n        import late_part\n        return late_part.VALUE\n")
    assert runtime.predict({}) == 7
    assert "modelmq_model_my_model_1" in sys.modules
    runtime.close()
    sys.modules.pop("late_part")
    assert sys.path == before
    assert "modelmq_model_my_model_1" not in sys.modules


def test_files_beside_the_model_never_hide_installed_packages(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('hidden')\n")
    sys.modules.pop("colorsys", None)
    assert opened("import colorsys\nclass M:\n    def predict(self, b): return b\n")


@pytest.mark.parametrize("parameters", ["self", "self, folder", "self, folder=None"])
def test_load_may_take_the_version_folder(opened: Open, tmp_path: Path, parameters: str) -> None:
    seen = "folder" if "folder" in parameters else "None"
    text = f"class M:\n    def load({parameters}): self.seen = {seen}\n    def predict(self, b): return self.seen\n"
    assert opened(text).predict({}) == (tmp_path if seen == "folder" else None)


def test_close_is_called_once(opened: Open) -> None:
    runtime = opened(
        "CLOSED = []\nclass M:\n    closed = CLOSED\n    def predict(self, b): return self.closed\n"
        "    def close(self): self.closed.append(1)\n"
    )
    closed = runtime.predict({})
    runtime.close()
    runtime.close()
    assert closed == [1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\n", "has no class with a method predict(self, batch); write one."),
        (
            "class A:\n    def predict(self, b): ...\nclass B:\n    def predict(self, b): ...\n",
            "has several classes with predict (A, B); name the one to serve Model.",
        ),
        ("class M:\n    async def predict(self, b): ...\n", "predict of M must be a plain function that returns."),
        ("class M:\n    def predict(self, b): yield 1\n", "predict of M must be a plain function that returns."),
        ("class M:\n  inputs = ['x']\n  def predict(self, b): ...\n", "inputs of class M must be a dict such as"),
        (
            "class M:\n  inputs = {'x': 'FP32'}\n  def predict(self, b): ...\n",
            'inputs of class M: "x" must be a datatype and a shape, as in {"text": ("BYTES", [-1])}.',
        ),
        (
            "class M:\n  outputs = {'x': ('FP', [1])}\n  def predict(self, b): ...\n",
            '"x" has datatype "FP"; expected one',
        ),
        ("import nothing_here\n", "cannot be loaded: ModuleNotFoundError: No module named 'nothing_here'; install"),
        ("class M(\n", "cannot be loaded: SyntaxError"),
        ("raise ValueError('no\\nsecond line')\n", "cannot be loaded: ValueError: no."),
        ("raise SystemExit(3)\n", "cannot be loaded: it calls exit()."),
        ("class M:\n  def load(self): raise OSError('gone')\n  def predict(self, b): ...\n", "OSError: gone."),
        ("class M:\n  def __init__(self, x): ...\n  def predict(self, b): ...\n", "cannot be loaded: TypeError"),
        ("class M:\n  def load(self): raise SystemExit\n  def predict(self, b): ...\n", "it calls exit()."),
    ],
)
def test_a_file_that_cannot_be_served_is_one_sentence(opened: Open, tmp_path: Path, text: str, sentence: str) -> None:
    before = list(sys.path)
    with pytest.raises(ModelLoadError) as caught:
        opened(text)
    assert str(tmp_path / "model.py") in caught.value.message
    assert sentence in caught.value.message
    assert sys.path == before
    assert "modelmq_model_my_model_1" not in sys.modules


@pytest.mark.parametrize(
    ("signature", "told"),
    [
        ("batch, cancelled", True),
        ("batch, *, cancelled", True),
        ("batch, cancelled=None", True),
        ("batch", None),
        ("batch, verbose=None", None),
        ("batch, **more", None),
    ],
)
def test_a_model_that_asks_for_it_is_told_whether_anybody_waits(
    tmp_path: Path, signature: str, told: bool | None
) -> None:
    path = tmp_path / "model.py"
    path.write_text(
        f"class M:\n    def predict(self, {signature}):\n"
        "        word = locals().get('cancelled')\n        return {'y': [word and word()]}\n"
    )
    source = ModelSource("m", "1", path, ModelSettings(runtime="python"))
    assert open_model(source, lambda: True).predict({})["y"] == [told]
    assert open_model(source).predict({})["y"] == [None if told is None else False]
