"""Hatchling's build hook: compiles the C extension into the wheel, or into the tree for an editable install.

Where that fails (no compiler, no Python headers) the wheel is a pure one, the package runs on its plain Python twin, and both say so.
"""

from __future__ import annotations

import runpy
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

EXTENSION = "tunstack/wire/_native.abi3.so"


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the extension into a wheel under its stable-ABI tag."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before the wheel is put together; `version` is "standard" or "editable"."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        if version == "editable":
            target = root / EXTENSION
        else:
            self._work = tempfile.TemporaryDirectory()
            target = Path(self._work.name, Path(EXTENSION).name)
        try:
            runpy.run_path(str(root / "native" / "build.py"))["build"](target)
        except (ImportError, OSError, RuntimeError) as error:
            self.app.display_warning(f"tunstack: the C extension was not built, its plain Python twin will stand in for it: {error}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform}"
        if version != "editable":
            build_data["force_include"][str(target)] = EXTENSION

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled once it is in the wheel."""
        if hasattr(self, "_work"):
            self._work.cleanup()
