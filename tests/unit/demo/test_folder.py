from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelmq.demo import MODELS, folder, is_current
from modelmq.errors import ModelLoadError

FRAMEWORKS = "sklearn", "skl2onnx", "skops", "onnxruntime", "onnx"


def files(directory: Path) -> dict[str, int]:
    return {str(p.relative_to(directory)): p.stat().st_mtime_ns for p in directory.rglob("*") if p.is_file()}


def test_a_second_run_changes_nothing(models: Path) -> None:
    before = files(models)
    assert is_current(models)
    assert folder.write(models) == ()
    assert {k: v for k, v in files(models).items() if k != ".demo-lock"} == {
        k: v for k, v in before.items() if k != ".demo-lock"
    }


def test_a_second_run_imports_no_framework(models: Path) -> None:
    code = (
        "import sys; from modelmq.demo.__main__ import main; status = main(sys.argv[1:2]); "
        f"sys.exit(status or any(name in sys.modules for name in {FRAMEWORKS!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(models)], capture_output=True, text=True, check=True)
    assert done.stdout == f"the demo models in {models} are up to date\n"


def test_an_outdated_model_is_built_anew_and_the_others_stay(models: Path) -> None:
    (models / "sentiment" / folder.MARK).write_text("an older recipe")
    (models / "sentiment" / "1" / "model.py").write_text("old")
    before = files(models / "digits")
    assert not is_current(models)
    assert folder.write(models) == ("sentiment",)
    assert "class Sentiment" in (models / "sentiment" / "1" / "model.py").read_text()
    assert files(models / "digits") == before
    assert is_current(models)


def test_what_a_killed_run_left_behind_is_cleared(models: Path) -> None:
    left = models / ".demo-scratch-abc" / "digits" / "1"
    left.mkdir(parents=True)
    (models / "sentiment" / folder.MARK).write_text("an older recipe")
    folder.write(models)
    assert not list(models.glob(".demo-scratch-*"))


def test_a_build_that_fails_leaves_the_model_that_was_there(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(place: Path) -> None:
        place.mkdir()
        raise OSError("disk full")

    monkeypatch.setattr("modelmq.demo.sentiment.build", fails)
    (models / "sentiment" / folder.MARK).write_text("an older recipe")
    before = files(models / "sentiment")
    with pytest.raises(OSError, match="disk full"):
        folder.write(models)
    assert files(models / "sentiment") == before
    assert not list(models.glob(".demo-scratch-*"))


def test_a_folder_of_somebody_elses_is_never_replaced(models: Path) -> None:
    (models / "digits" / folder.MARK).unlink()
    (models / "sentiment" / folder.MARK).write_text("an older recipe")
    with pytest.raises(ModelLoadError, match="digits is not a demo model; move it away"):
        folder.write(models)
    assert (models / "sentiment" / folder.MARK).read_text() == "an older recipe"


def test_a_missing_package_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "modelmq.demo.digits", raising=False)
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(ModelLoadError, match=r'package skl2onnx is missing; install "modelmq\[demo\]"'):
        folder.write(tmp_path)


def test_the_recipe_is_the_same_in_every_process() -> None:
    code = "from modelmq.demo.folder import fingerprint; print(fingerprint())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == folder.fingerprint()


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--help"]])
def test_a_wrong_call_shows_the_usage(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "modelmq.demo", *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: python -m modelmq.demo DIR" in done.stderr


def test_the_first_model_is_the_one_to_show() -> None:
    assert MODELS[0] == "digits"
