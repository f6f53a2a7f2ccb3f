"""`python -m modelmq.demo DIR`: writes the demo models into DIR unless they are there already."""

from __future__ import annotations

import sys
from pathlib import Path

from modelmq.demo import folder
from modelmq.errors import ModelMQError


def main(arguments: list[str]) -> int:
    """The exit status: 0 when the models are there, 1 when they could not be written, 2 for a wrong call."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m modelmq.demo DIR", file=sys.stderr)  # noqa: T201 - this is the command's output
        return 2
    directory = Path(arguments[0])
    try:
        written = folder.write(directory)
    except (ModelMQError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - as above
        return 1
    what = f"wrote {', '.join(written)} to {directory}" if written else f"the demo models in {directory} are up to date"
    print(what)  # noqa: T201 - as above
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
