"""`python -m modelmq` is `modelmq`."""

from __future__ import annotations

from modelmq.cli import main

if __name__ == "__main__":
    main()
