"""Write requirements.lock and requirements-cluster.lock from the running environment: names, no addresses.

The CUDA libraries that torch brings exist for Linux only, so they carry a marker.
"""

import re
import subprocess
import sys
from pathlib import Path

LINUX_ONLY = re.compile(r"^(nvidia-|cuda-|triton==)")
CLUSTER = ("ray", "msgpack", "protobuf")
"""The extra [cluster]: Ray, and what nothing else here needs."""
HEADER = "# Made by `make lock` from requirements.in. torch and torchvision are a matching pair.\n"


def main() -> None:
    """Freeze, refuse anything that is not NAME==VERSION, add markers."""
    frozen = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--exclude-editable"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    odd = [line for line in frozen if not re.fullmatch(r"[A-Za-z0-9_.\-]+==[A-Za-z0-9_.!]+", line)]
    if odd:
        sys.exit(
            f"requirements.lock not written: '{odd[0]}' is not NAME==VERSION; install it from the registry."
        )
    marked = [f'{line} ; platform_system == "Linux"' if LINUX_ONLY.match(line) else line for line in frozen]
    extra = [line for line in marked if line.split("==")[0] in CLUSTER]
    for name, lines in (("", [line for line in marked if line not in extra]), ("-cluster", extra)):
        Path(f"requirements{name}.lock").write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")


main()
