"""What the package says of itself, what its sdist holds, and when the CUDA module is built. `make wheel` and
`make try-wheel-cpu` go through the rest, which takes minutes."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import metadata, requires, version
from pathlib import Path

import pytest
from scikit_build_core.build import build_sdist, get_requires_for_build_wheel

import fastreason
from fastreason import _core
from fastreason.runtime.trackers import TRACKERS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_is_that_of_pyproject():
    assert fastreason.__version__ == _core.__version__ == version("fastreason") == PROJECT["project"]["version"]
    assert re.search(rf"^## {re.escape(fastreason.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)


def test_dependencies_are_ranges():
    needs = [need for need in requires("fastreason") or [] if "extra ==" not in need]
    assert any(need.startswith("torch>=") for need in needs)
    assert not [need for need in needs if "==" in need or "<" in need]


def test_pythons_are_stated_where_they_are_built():
    classifiers = metadata("fastreason").get_all("Classifier")
    stated = {c.rsplit(" ", 1)[1] for c in classifiers if re.search(r"Python :: 3\.\d", c)}
    assert stated == {"3.11", "3.12", "3.13", "3.14"}
    assert PROJECT["tool"]["cibuildwheel"]["build"] == "cp31{1,2,3,4}-manylinux_*"
    assert "Operating System :: POSIX :: Linux" in classifiers


def test_import_loads_no_torch(record_property):
    code = "import time; a = time.perf_counter(); import fastreason, sys; print(time.perf_counter() - a, *sys.modules)"
    time_s, *modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    print(f"import fastreason: {1000 * float(time_s):.1f} ms")
    record_property("import_ms", round(1000 * float(time_s), 1))
    assert not {"torch", "numpy", "fastreason._core", "fastreason._cuda"} & set(modules)


def test_the_sdist_holds_the_sources_and_no_junk(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with tarfile.open(tmp_path / build_sdist(str(tmp_path))) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames()}
    for folder, kinds in (("csrc", "h cpp cu pyi"), ("fastreason", "py toml html typed safetensors json md"),
                          ("kernels", "py toml"), ("bench", "py toml"), ("tests", "py txt json"),
                          ("docs", "md")):  # fmt: skip
        wanted = {str(p.relative_to(ROOT)) for kind in kinds.split() for p in (ROOT / folder).rglob(f"*.{kind}")}
        wanted |= {f"{folder}/{kind}" for kind in ["py.typed"] if (ROOT / folder / kind).exists()}
        assert wanted and wanted <= held, sorted(wanted - held)
    assert {"pyproject.toml", "CMakeLists.txt", "Makefile", "LICENSE", "README.md", "CHANGELOG.md", "PKG-INFO"} <= held
    junk = [n for n in held if re.search(r"(^|/)(\.git|\.venv|build|dist|runs|__pycache__|corpus)(/|$)|\.(so|pyc)$", n)]
    assert not junk


@pytest.mark.parametrize("version, asked", [("3.25.1", ["cmake>=3.26"]), ("3.26.4", []), ("4.1.3", [])])
def test_pip_brings_a_newer_cmake_where_the_system_has_an_old_one(tmp_path, monkeypatch, version, asked):
    """Debian 12 has 3.25, which knows no C++20 of nvcc 13."""
    for name, answer in (("cmake", f'{{"version": {{"string": "{version}"}}}}'), ("ninja", "1.13.2")):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\necho '{answer}'\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(ROOT)
    # the CMake of this environment is not to be found
    monkeypatch.setitem(sys.modules, "cmake", None)
    assert [need for need in get_requires_for_build_wheel() if need.startswith("cmake")] == asked


def test_each_library_that_a_message_names_is_an_extra():
    extras = set(PROJECT["project"]["optional-dependencies"])
    sources = [*(ROOT / "fastreason").rglob("*.py"), *(ROOT / "docs").glob("*.md"), *(ROOT / "packaging").glob("*file")]
    named = {name for path in sources for name in re.findall(r"fastreason\[([\w-]+)\]", path.read_text("utf-8"))}
    assert named and named <= extras
    assert set(TRACKERS) <= extras


def test_the_conda_recipe_is_of_this_version():
    recipe = (ROOT / "packaging" / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    assert f'version: "{PROJECT["project"]["version"]}"' in recipe
    run = re.findall(r"^ +- ([\w-]+) (>=\S+)$", recipe.partition("  run:\n")[2].partition("\ntests:")[0], flags=re.M)
    wanted = {re.sub("^torch", "pytorch", need).replace(">=", " >=") for need in PROJECT["project"]["dependencies"]}
    assert {" ".join(need) for need in run} == wanted | {f"python {PROJECT['project']['requires-python']}"}
    variants = (ROOT / "packaging" / "conda" / "variants.yaml").read_text(encoding="utf-8")
    assert re.findall(r"^  - (3\.\d+)\.\*$", variants, flags=re.M) == ["3.11", "3.12", "3.13", "3.14"]
    assert re.search("^c_stdlib:", variants, flags=re.M) and 'stdlib("c")' in recipe
    host = PROJECT["build-system"]["requires"]
    assert all(need.replace(">=", " >=") in recipe for need in host)


def configure(tmp_path, *flags):
    """What CMake says where nvcc cannot be found."""
    hidden = ";".join({str(Path(nvcc).parent) for nvcc in all_nvcc()})
    definitions = ["SKBUILD_PROJECT_NAME=fastreason", "SKBUILD_PROJECT_VERSION=0", f"CMAKE_IGNORE_PATH={hidden}"]
    definitions.append("pybind11_DIR=" + subprocess.check_output(
        [sys.executable, "-m", "pybind11", "--cmakedir"], text=True).strip())  # fmt: skip
    command = [Path(sys.executable).with_name("cmake"), "-G", "Ninja", "-S", ROOT, "-B", tmp_path]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    return subprocess.run(
        [*command, *(f"-D{d}" for d in [*definitions, *flags])], capture_output=True, text=True, env=environment
    )


def all_nvcc():
    found = [shutil.which("nvcc"), *(f"{place}/bin/nvcc" for place in ("/usr/local/cuda", "/usr/local", "/usr"))]
    return [path for path in found if path and Path(path).exists()]


@pytest.mark.parametrize(
    "flags, status, text",
    [
        (["FASTREASON_CUDA=ON"], 1, "FASTREASON_CUDA=ON needs nvcc, which is neither on PATH"),
        ([], 0, "fastreason._cuda: not built, no nvcc was found"),
        (["FASTREASON_CUDA=maybe"], 1, "FASTREASON_CUDA must be ON, OFF or AUTO, got maybe"),
    ],
    ids=["on", "auto", "neither"],
)
def test_the_cuda_module_is_built_where_nvcc_is(tmp_path, flags, status, text):
    done = configure(tmp_path, *flags)
    assert (done.returncode != 0) == bool(status), done.stderr
    assert text in re.sub(r"\s+", " ", done.stdout + done.stderr)
