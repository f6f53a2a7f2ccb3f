from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelmq.runtimes import Catalog, scan


def put(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def found(catalog: Catalog) -> list[tuple[str, str, str, str]]:
    return [(m.name, m.version, m.settings.runtime, m.path.name) for m in catalog.models]


def test_models_are_found_by_name_and_version_number(tmp_path: Path) -> None:
    for version in ("10", "9", "1"):
        put(tmp_path, f"digits/{version}/model.onnx")
    put(tmp_path, "a-model_2/1/model.py")
    put(tmp_path, "cancer/3/model.skops")
    put(tmp_path, "old/1/model.pkl")
    put(tmp_path, "older/1/model.joblib")
    catalog = scan(tmp_path)
    assert catalog.problems == ()
    assert found(catalog) == [
        ("a-model_2", "1", "python", "model.py"),
        ("cancer", "3", "sklearn", "model.skops"),
        ("digits", "1", "onnx", "model.onnx"),
        ("digits", "9", "onnx", "model.onnx"),
        ("digits", "10", "onnx", "model.onnx"),
        ("old", "1", "sklearn", "model.pkl"),
        ("older", "1", "sklearn", "model.joblib"),
    ]


def test_what_is_no_model_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "digits/1/model.onnx")
    put(tmp_path, "digits/1/notes.txt")
    put(tmp_path, "digits/sample.json")
    put(tmp_path, "digits/training/data.csv")
    put(tmp_path, "digits/.git/1/model.onnx")
    put(tmp_path, ".hidden/1/model.onnx")
    put(tmp_path, "__pycache__/1/model.py")
    put(tmp_path, "README.md")
    catalog = scan(tmp_path)
    assert catalog.problems == ()
    assert len(catalog.models) == 1


def test_a_linked_version_folder_is_followed(tmp_path: Path) -> None:
    put(tmp_path, "store/abc/model.py")
    (tmp_path / "models" / "m").mkdir(parents=True)
    (tmp_path / "models" / "m" / "1").symlink_to(tmp_path / "store" / "abc")
    assert found(scan(tmp_path / "models")) == [("m", "1", "python", "model.py")]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (
            {"bad name/1/model.py": ""},
            "bad name is not served: a model's name has letters, digits, _ and -, at most 64.",
        ),
        ({"m/v1/model.py": ""}, "v1 is not served: a version is a whole number, such as"),
        ({"m/1/notes.txt": ""}, "1 holds no model file; expected one of model.py, model.onnx, model.skops"),
        ({"m/notes.txt": ""}, "m holds no model; expected <model>/<version>/ with one of model.py"),
        ({"m/model.onnx": ""}, "model.onnx is not in a version folder; move it to"),
        ({"digits.onnx": ""}, "digits.onnx is not in a model's folder; move it to"),
        ({"m/1/model.onnx": "", "m/1/model.skops": ""}, "holds model.onnx and model.skops; keep one, or choose by"),
        (
            {"m/1/model.onnx": "", "m/model.toml": 'runtime = "sklearn"'},
            "holds no file for runtime sklearn; expected one of model.skops, model.joblib, model.pkl; version 1 of",
        ),
        (
            {"m/1/model.py": "", "m/model.toml": "\nmax_batch = 3"},
            'model.toml, line 2: unknown key "max_batch"; did you',
        ),
        ({"m/1/model.py": "", "m/1/model.toml": "threads = 0"}, "line 1: threads must be a whole number from 1 to 256"),
        (
            {"m/1/model.py": "", "m/1/model.toml": 'queue = "q"'},
            "queue holds for all versions; move it to the model.toml",
        ),
        ({"m/1/model.py": "", "m/model.toml": "["}, "this is not valid TOML"),
    ],
)
def test_what_cannot_be_served_is_one_sentence_and_the_rest_is_served(
    tmp_path: Path, files: dict[str, str], problem: str
) -> None:
    put(tmp_path, "zz/1/model.py")
    for path, text in files.items():
        put(tmp_path, path, text)
    catalog = scan(tmp_path)
    assert len(catalog.problems) == 1
    assert problem in catalog.problems[0]
    assert str(tmp_path) in catalog.problems[0]
    assert catalog.problems[0].endswith(".")
    assert found(catalog) == [("zz", "1", "python", "model.py")]


def test_a_bad_version_leaves_the_others(tmp_path: Path) -> None:
    put(tmp_path, "m/1/model.py")
    put(tmp_path, "m/2/model.py")
    put(tmp_path, "m/2/model.toml", "thread = 2")
    catalog = scan(tmp_path)
    assert found(catalog) == [("m", "1", "python", "model.py")]
    assert "version 2 of model m is not served." in catalog.problems[0]


def test_the_versions_settings_win_over_the_models(tmp_path: Path) -> None:
    put(tmp_path, "m/model.toml", 'max_batch_size = 8\nthreads = 2\nrouting_key = "alias"\nqueue = "q"\n')
    put(tmp_path, "m/1/model.py")
    put(tmp_path, "m/2/model.py")
    put(tmp_path, "m/2/model.toml", "max_batch_size = 64\n")
    first, second = (source.settings for source in scan(tmp_path).models)
    assert (first.max_batch_size, first.threads, first.routing_key, first.queue) == (8, 2, "alias", "q")
    assert (second.max_batch_size, second.threads, second.routing_key, second.queue) == (64, 2, "alias", "q")


def test_python_code_is_served_when_it_has_its_weights_beside_it(tmp_path: Path) -> None:
    put(tmp_path, "m/1/model.py")
    put(tmp_path, "m/1/model.onnx")
    assert found(scan(tmp_path)) == [("m", "1", "python", "model.py")]
    put(tmp_path, "m/1/model.toml", 'runtime = "onnx"')
    assert found(scan(tmp_path)) == [("m", "1", "onnx", "model.onnx")]


@pytest.mark.parametrize("key", ['routing_key = "a"', 'queue = "q"', 'routing_key = "c"'])
def test_two_models_cannot_share_an_address(tmp_path: Path, key: str) -> None:
    for model in ("a", "b", "c", "d"):
        put(tmp_path, f"{model}/1/model.py")
    put(tmp_path, "b/model.toml", key)
    put(tmp_path, "d/model.toml", key)
    catalog = scan(tmp_path)
    assert {name for name, *_ in found(catalog)} == {"a", "c"}
    assert len(catalog.problems) == 2
    assert "is also that of another model." in catalog.problems[0]


def test_a_folder_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    catalog = scan(tmp_path / "models")
    assert catalog.models == ()
    assert catalog.problems == (f"The models folder {tmp_path / 'models'} cannot be read: no such file or directory.",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_a_problem(tmp_path: Path) -> None:
    put(tmp_path, "m/1/model.py")
    (tmp_path / "m").chmod(0)
    assert "cannot be read: permission denied" in scan(tmp_path).problems[0]
    (tmp_path / "m").chmod(0o700)


def test_settings_that_are_not_text_are_a_problem(tmp_path: Path) -> None:
    put(tmp_path, "m/1/model.py")
    (tmp_path / "m" / "model.toml").write_bytes(b"\xff")
    assert "model.toml cannot be read: it is not UTF-8; model m is not served." in scan(tmp_path).problems[0]
    (tmp_path / "m" / "model.toml").unlink()
    (tmp_path / "m" / "model.toml").mkdir()
    assert "model.toml cannot be read: is a directory" in scan(tmp_path).problems[0]
