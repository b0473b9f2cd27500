"""Who made these numbers: versions, commit, hardware, command."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import distillscope


def provenance(command: str | None, conditions: Mapping[str, Any], device: str, threads: int) -> dict[str, Any]:
    """Who made these numbers: versions, commit, hardware, command."""
    packages = ("torch", "torchvision", "timm", "open_clip_torch", "numpy", "scipy", "scikit-learn", "accelerate",
                "datasets", "pandas", "plotly", "pillow")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"distillscope": distillscope.__version__, "versions": versions, "commit": _commit(), "device": device,
            "threads": threads, "hardware": hardware(), "command": command or " ".join(sys.argv),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"), "seconds": 0.0, "conditions": dict(conditions)}


def hardware() -> str:
    """Processor, cores, memory and accelerators in one line; accelerators only where torch, which would use them, is loaded."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        model = names[0] if names else model
    memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB" if hasattr(os, "sysconf") else ""
    return f"{model}, {os.cpu_count()} cores{memory}{_accelerators()}"


def _accelerators() -> str:
    torch = sys.modules.get("torch")
    if torch is None:
        return ""
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return f", {', '.join(names) or 'no GPU'}"


def _commit() -> str | None:
    """The commit of the source checkout that runs, if it is one."""
    folder = Path(__file__).resolve().parent
    try:
        head = subprocess.run(["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
                              capture_output=True, text=True, timeout=5)
        own = subprocess.run(["git", "-C", str(folder), "ls-files", "--error-unmatch", __file__],
                             capture_output=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() if head.returncode == 0 and own.returncode == 0 else None
