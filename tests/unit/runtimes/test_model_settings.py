from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from modelmq.errors import ConfigError
from modelmq.metadata import TensorSpec
from modelmq.runtimes import ModelSettings
from modelmq.runtimes.model_settings import parse


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse([(text, "m/model.toml")])
    return caught.value.message


def test_no_file_means_defaults() -> None:
    assert parse([]) == ModelSettings()


def test_every_key_can_be_set() -> None:
    text = """
        runtime = "sklearn"
        trust = true
        batched = false
        max_batch_size = 64
        max_queue_delay_ms = 2.5
        timeout_s = 10
        max_run_s = 20
        threads = 2
        max_memory_bytes = 1_000_000_000
        max_retries = 3
        idempotent = false
        routing_key = "ml_service"
        queue = "ml-service-queue"
        [[inputs]]
        name = "x"
        datatype = "FP32"
        shape = [-1, 3]
        [[outputs]]
        name = "predict"
        datatype = "INT64"
        shape = [-1]
    """
    settings = parse([(text, "m/model.toml")])
    assert settings.inputs == (TensorSpec("x", "FP32", (-1, 3)),)
    defaults = msgspec.structs.asdict(ModelSettings())
    assert all(value != defaults[key] for key, value in msgspec.structs.asdict(settings).items())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("max_batch_sise = 3", 'm/model.toml, line 1: unknown key "max_batch_sise"; did you mean "max_batch_size"?'),
        ("\n\nthreads = 2.5", "m/model.toml, line 3: threads must be a whole number from 1 to 256, not 2.5."),
        (
            "[batch]\nsize = 3",
            "m/model.toml, line 1: there is no section [batch]; this file has no sections, its keys stand",
        ),
        ("max_batch_size = 0", "max_batch_size must be a whole number from 1 to 65536, not 0."),
        ('max_batch_size = "8"', 'max_batch_size must be a whole number from 1 to 65536, not "8".'),
        ("max_queue_delay_ms = -1", "must be a number of milliseconds from 0 to 60000, not -1."),
        ("timeout_s = 0", "timeout_s must be a number of seconds above 0"),
        ("max_run_s = inf", "max_run_s must be a number of seconds above 0"),
        ("timeout_s = nan", "timeout_s must be a number of seconds above 0"),
        ('runtime = "torch"', 'runtime must be "auto", "onnx", "sklearn" or "python", not "torch".'),
        ("trust = 1", "trust must be true or false, not 1."),
        ('routing_key = "a.b"', 'routing_key must be letters, digits, _ and -, at most 64, not "a.b".'),
        ('routing_key = ""', "routing_key must be letters"),
        ('routing_key = "a\\n"', "routing_key must be letters"),
        ('queue = "amq.gen-1"', 'not beginning with "amq.", not "amq.gen-1".'),
        ('queue = "a b"', "queue must be letters"),
        ('queue = "a\\n"', "queue must be letters"),
        ("inputs = 3", "inputs must be a list of tables with name, datatype and shape"),
        ('[[inputs]]\nname = "x"\ndtype = "FP32"\nshape = [-1]', "line 1: inputs must be a list of tables"),
        ('[[inputs]]\nname = "x"\ndatatype = "FLOAT"\nshape = [-1]', '"x" has datatype "FLOAT"; expected one of BOOL'),
        (
            '[[inputs]]\nname = "x"\ndatatype = "FP32"\nshape = [-2]',
            '"x" has shape [-2]; expected sizes from 0 up, or -1',
        ),
        ('[[inputs]]\nname = ""\ndatatype = "FP32"\nshape = [1]', "a tensor has an empty name"),
        ('[[outputs]]\nname = "y"\ndatatype = "FP32"\nshape = [1]\n' * 2, '"y" is there twice'),
    ],
)
def test_a_mistake_is_named_with_file_line_and_what_was_expected(text: str, sentence: str) -> None:
    assert sentence in refusal(text)


def test_the_documentation_names_every_key_with_its_default() -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
    rows = {
        line.split("|")[1].strip(): line.split("|")[3].strip() for line in page.splitlines() if line.startswith("| `")
    }
    shown = {"`inputs`, `outputs`": ("inputs", "outputs")}
    documented = {
        key: default for cell, default in rows.items() for key in shown.get(cell, (cell.strip("`"),)) if default
    }
    for key, value in msgspec.structs.asdict(ModelSettings()).items():
        plain = {None: "none", (): "none", True: "`true`", False: "`false`", "auto": '`"auto"`'}
        expected = plain[value] if isinstance(value, (str, bool, tuple, type(None))) else f"{value:g}"
        assert documented[key] == expected, key
