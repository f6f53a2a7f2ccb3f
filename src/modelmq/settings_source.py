"""Reads settings out of their three sources: TOML text, environment variables and flags.

Works from a catalog of known settings that it takes from the records of `settings.py`; every value leaves here
converted and with its origin, every mistake as one sentence. Does not know which source wins, nor any setting's use.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, get_type_hints

import msgspec

from modelmq import toml_lines
from modelmq.errors import ConfigError

ENVIRONMENT_PREFIX = "MODELMQ_"
NOT_SETTINGS = frozenset(
    {
        "MODELMQ_CONFIG",
        "MODELMQ_READY_FD",
        "MODELMQ_HTTP_URL",
        "MODELMQ_REPLY_MODE",
        "MODELMQ_AMQP_URL",
        "MODELMQ_AMQP_CA_FILE",
    }
)
"""Variables with our prefix that are no settings: where the file is, the supervisor's signal, what `env` prints."""

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_USER_IN_URL = re.compile(r"//[^/]*@")


class Setting(NamedTuple):
    """One known setting. `key` is dotted (`gateway.port`), without a dot at the top level."""

    key: str
    type: Any
    default: Any
    expected: str
    meaning: str
    secret: bool

    @property
    def section(self) -> str:
        """The TOML table the setting stands in; empty at the top level."""
        return self.key.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The key within its section."""
        return self.key.rpartition(".")[2]

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.key.replace(".", "_").upper()


class Given(NamedTuple):
    """A value somebody set, and where."""

    value: Any
    origin: str


Catalog = Mapping[str, Setting]


def catalog(root: type[msgspec.Struct]) -> dict[str, Setting]:
    """Every setting of a record whose nested records are the sections, in the order of the source."""
    found: dict[str, Setting] = {}
    hints = get_type_hints(root, include_extras=True)
    for field in msgspec.structs.fields(root):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found |= {
                f"{field.name}.{key}": s._replace(key=f"{field.name}.{key}") for key, s in catalog(field.type).items()
            }
        else:
            found[field.name] = _setting(field, hints[field.name])
    return found


def _setting(field: msgspec.structs.FieldInfo, hint: Any) -> Setting:
    metas = [meta for meta in hint.__metadata__ if isinstance(meta, msgspec.Meta)]
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return Setting(
        key=field.name,
        type=hint,
        default=default,
        expected=next(meta.title for meta in metas if meta.title),
        meaning=next(meta.description for meta in metas if meta.description),
        secret=any(meta.extra and meta.extra.get("secret") for meta in metas),
    )


def from_toml(text: str, source: str, known: Catalog) -> dict[str, Given]:
    """The settings of a file; `source` is its name for error messages. Raises ConfigError."""
    document = _parse(text, source)
    lines = toml_lines.locate(text)
    sections = {setting.section for setting in known.values()}
    given: dict[str, Given] = {}

    def origin(*path: str) -> str:
        return f"{source}, line {lines.get(path, 1)}"

    for name, value in document.items():
        if name and name in sections:
            if not isinstance(value, dict):
                raise ConfigError(f"{origin(name)}: {name} must be a table, [{name}], not {_shown(value)}.")
            for key, inner in value.items():
                path = f"{name}.{key}"
                if path in known and isinstance(known[path].default, dict) and isinstance(inner, dict):
                    for item, part in inner.items():  # each item of a table is judged at its own line
                        _converted(known[path], {item: part}, origin(name, key, item))
                given |= _entry(path, inner, origin(name, key), known)
        else:
            given |= _entry(name, value, origin(name), known)
    return given


def _entry(key: str, value: object, origin: str, known: Catalog) -> dict[str, Given]:
    setting = known.get(key)
    if setting is None:
        raise ConfigError(f"{origin}: {_unknown(key, value, known)}")
    return {key: Given(_converted(setting, value, origin), origin)}


def from_environ(environ: Mapping[str, str], known: Catalog) -> dict[str, Given]:
    """The settings among environment variables. Raises ConfigError, also for an unknown MODELMQ_ variable."""
    by_variable = {setting.variable: setting for setting in known.values()}
    given: dict[str, Given] = {}
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in NOT_SETTINGS:
            continue
        origin = f"environment variable {variable}"
        setting = by_variable.get(variable)
        if setting is None:
            advice = _nearest(variable, by_variable) or "unset it."
            raise ConfigError(f"The {origin} is not a setting; {advice}")
        given[setting.key] = Given(_converted(setting, _read(setting, environ[variable]), origin), origin)
    return given


def from_flags(flags: Mapping[str, object], known: Catalog, what: str = "flag") -> dict[str, Given]:
    """The settings among command-line flags, by dotted key; None is a flag not given. Raises ConfigError.

    `what` is the word for them in errors, for those who take settings from elsewhere.
    """
    given: dict[str, Given] = {}
    for key, value in flags.items():
        if value is None:
            continue
        setting = known.get(key)
        if setting is None:
            advice = _nearest(key, known) or f"the settings are {_listed(known)}."
            raise ConfigError(f"There is no setting {key} for the {what}; {advice}")
        origin = f"{what} for {key}"
        plain = _read(setting, value) if isinstance(value, str) else value
        given[key] = Given(_converted(setting, plain, origin), origin)
    return given


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        found = re.search(r"\(at line (\d+), column (\d+)\)", message)
        line = int(found.group(1)) if found else max(1, text.count("\n") + (not text.endswith("\n")))
        what = message.partition(" (at ")[0]
        raise ConfigError(f"{source}, line {line}: this is not valid TOML: {what}.") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: this is not a settings file: its values are nested too deeply.") from error


def _unknown(key: str, value: object, known: Catalog) -> str:
    sections = _sections(known)
    section, _, name = key.partition(".")
    if section not in sections or not name:
        section, name = "", key
        if isinstance(value, dict):
            known_ones = (
                f"the sections are {_listed(sections, '[{}]')}."
                if sections
                else "this file has no sections, its keys stand alone."
            )
            advice = _nearest(key, sections, "[{}]") or known_ones
            return f"there is no section [{_short(key)}]; {advice}"
    siblings = [setting.name for setting in known.values() if setting.section == section]
    elsewhere = [setting.section for setting in known.values() if setting.name == name and setting.section]
    advice = _nearest(name.replace("-", "_").lower(), siblings, '"{}"')
    if not advice and elsewhere:
        advice = f"it belongs in {_listed(elsewhere, '[{}]', ' or ')}."
    place = f" in [{section}]" if section else ""
    return f'unknown key "{_short(name)}"{place}; {advice or f"the keys here are {_listed(siblings)}."}'


def _sections(known: Catalog) -> list[str]:
    return list(dict.fromkeys(setting.section for setting in known.values() if setting.section))


def _nearest(word: str, candidates: Iterable[str], form: str = "{}") -> str:
    matches = difflib.get_close_matches(word, list(candidates), 1, 0.6)
    return f"did you mean {form.format(matches[0])}?" if matches else ""


def _listed(names: Iterable[str], form: str = "{}", joint: str = ", ") -> str:
    return joint.join(form.format(name) for name in names)


def _converted(setting: Setting, value: object, origin: str) -> Any:
    try:
        # Within a table that comes as one text, numbers are texts too.
        return msgspec.convert(value, setting.type, strict=not isinstance(setting.default, dict))
    except msgspec.ValidationError as error:
        shown = "what stands there" if setting.secret else _shown(value)
        raise ConfigError(f"{origin}: {setting.key} must be {setting.expected}, not {shown}.") from error


def _read(setting: Setting, text: str) -> object:
    """The value a text stands for; the text itself when it stands for none, so that conversion refuses it."""
    kind = type(setting.default)
    try:
        if kind is bool:
            return _WORDS.get(text.strip().lower(), text)
        if kind in (int, float):
            return kind(text)
    except ValueError:
        return text
    if kind is tuple:
        return _items(text)
    if kind is dict:
        pairs = [part.partition("=") for part in text.split(";") if part.strip()]
        return {name.strip(): _items(rest) for name, _, rest in pairs}
    return text


def _items(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f'"{_short(_USER_IN_URL.sub("//***@", value))}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return _short("{" + ", ".join(f"{key} = {_shown(item)}" for key, item in value.items()) + "}")
    if isinstance(value, (list, tuple)):
        return _short(f"[{', '.join(_shown(item) for item in value)}]")
    return _short(str(value))


def _short(text: str, limit: int = 60) -> str:
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
