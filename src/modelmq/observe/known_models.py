"""Which model names may become metric labels, so that callers who ask for invented names cost no memory.

Pure. A model is known once a worker or gateway said that it exists; everything else is counted as `other`.
"""

from __future__ import annotations

OTHER = "other"


class KnownModels:
    """At most `most` pairs of model and version."""

    def __init__(self, most: int = 500) -> None:
        self._most = most
        self._versions: dict[str, set[str]] = {}
        self._count = 0

    def add(self, model: str, version: str) -> None:
        """This version exists; ignored when there are too many already."""
        versions = self._versions.get(model)
        if (versions is not None and version in versions) or self._count >= self._most:
            return
        self._versions.setdefault(model, set()).add(version)
        self._count += 1

    def labels(self, model: str, version: str) -> tuple[str, str]:
        """Model and version as labels; the version is empty where the request named none or one that is not there."""
        versions = self._versions.get(model)
        if versions is None:
            return OTHER, ""
        return model, version if version in versions else ""
