"""Writes docs/settings.md out of the settings' own records, so that the page cannot disagree with the program.

    python tools/settings_page.py           prints the page
    python tools/settings_page.py --write   writes it

Stands outside the package: it is needed where the documentation is made, not where ModelMQ runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from modelmq.settings import CATALOG
from modelmq.settings_source import Setting

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"

HEAD = """\
# Settings

Made by `python tools/settings_page.py --write` out of `src/modelmq/settings.py`.

Each setting can be given in three ways. The earlier wins:

| where | how | example |
|---|---|---|
| flag | `--set KEY=VALUE` on every command; the most used ones have flags of their own (`--port`, `--models`) | \
`modelmq up --set gateway.port=9000` |
| environment | `MODELMQ_` and the key in capitals, with `_` for the dot | `MODELMQ_GATEWAY_PORT=9000` |
| file | `--config FILE`, else `$MODELMQ_CONFIG`, else `modelmq.toml` in the current folder | \
`port = 9000` under `[gateway]` |

In a flag or variable, items of a list are separated by commas (`a,b`), and a table is written `name=a,b;other=c`.
Switches are `true` or `false`. Where nobody set the broker's or the gateway's address, a private RabbitMQ or a gateway
that runs from the state folder fills it in ([cli.md](cli.md)).

A mistake is answered with one sentence and exit status 2:

```text
modelmq.toml, line 2: unknown key "prt" in [gateway]; did you mean "port"?
modelmq.toml, line 3: gateway.port must be a port number from 0 to 65535, where 0 means any free port, not "http".
```

A password is better kept in a file: what only its owner may read shows up neither in `ps` nor in the environment, and
is read again at every connection, so it can be changed without a restart.
"""

TITLES = {
    "": "At the top of the file",
    "broker": "`[broker]`: where RabbitMQ is, and who connects",
    "gateway": "`[gateway]`: the HTTP side",
    "worker": "`[worker]`: the side that runs models",
    "topology": "`[topology]`: what is created on the broker",
    "log": "`[log]`: what is written to standard error",
}


def page() -> str:
    """The whole page."""
    sections = dict.fromkeys(setting.section for setting in CATALOG.values())
    return HEAD + "".join(_section(name) for name in sorted(sections, key=list(TITLES).index))


def _section(name: str) -> str:
    rows = "".join(_row(setting) for setting in CATALOG.values() if setting.section == name)
    return f"\n## {TITLES[name]}\n| key | default | expected | meaning |\n|---|---|---|---|\n{rows}"


def _row(setting: Setting) -> str:
    cells = (f"`{setting.name}`", _toml(setting.default), setting.expected, setting.meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _toml(value: object) -> str:
    """As it would stand in the file; nothing for an empty text, which means unset."""
    if value == "":
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    if isinstance(value, dict):
        return "`{" + ", ".join(f"{key} = {item}" for key, item in value.items()) + "}`"
    return f"`{value:_}`" if isinstance(value, int) and value >= 10_000 else f"`{value:.15g}`"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(), "utf-8")
    else:
        sys.stdout.write(page())
