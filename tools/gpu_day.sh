#!/bin/bash
# The GPU path on a bare, offline machine: bash tools/gpu_day.sh STEP [STEP ...] [-- options of python -m bench.gpu]
#
#   build       an environment in build/gpu/venv on top of python3's packages: the wheels that are missing, this project
#   smoke       every operation once, the sampler, decoding
#   tests       tests/kernels, and the audit of machine code
#   timings     every operation beside torch, torch.compile, Liger-Kernel and flash-attn
#   end-to-end  steps of training and of reinforcement learning, evaluations, with profiles
#   autotune    entries for kernels/launch.toml
#
# Each ends within ten minutes, writes a line of RESULTS/STEP.jsonl per item as it ends, and does only what is left when
# it is called again. `build` is done first where it is missing. Exit codes: python -m bench.gpu --help.
#   RESULTS  folder of the results (runs/gpu)      WHEELS  what `make gpu-bundle` collected (wheels)
#   REHEARSE=1  without a GPU: everything ends and says "rehearsed", no figure is written
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
RESULTS=${RESULTS:-runs/gpu}
VENV=build/gpu/venv
for folder in "${WHEELS:-}" wheels build/gpu-bundle/wheels; do [ -d "$folder" ] && WHEELS=$folder && break; done
export PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONFIG_FILE=/dev/null HF_HUB_OFFLINE=1
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$PWD/build/triton} CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
unset PIP_FIND_LINKS PIP_EXTRA_INDEX_URL PIP_INDEX_URL PIP_CONSTRAINT

# a .pth file takes in the packages of python3, which may be an environment itself; nothing of it is changed
make_environment() {
    "$PYTHON" -m venv --without-pip "$VENV" || return
    "$PYTHON" -c "import sys; print(*(p for p in sys.path if p.endswith('-packages')), sep='\n')" \
        > "$("$VENV/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")/outer.pth"
}

build() {
    [ -e build/gpu/built ] && return
    local start=$SECONDS arch
    mkdir -p build/gpu "$RESULTS"
    { make_environment && install; } > build/gpu/build.log 2>&1 \
        && arch=$(cat build/gpu/arch) && touch build/gpu/built && record ok "sm_$arch" \
        || { record failed "$(tail -n 5 build/gpu/build.log | tr '"\\\n\t' "'/  ")"; tail -n 20 build/gpu/build.log; return 1; }
}

install() {
    local python=$VENV/bin/python links=${WHEELS:+--find-links=$WHEELS} name
    # what is there already stays; what only some steps need may be absent
    "$python" -m pip install -q $links -r requirements-gpu.txt || return
    "$python" -m pip install -q --no-deps $links liger-kernel || echo "without Liger-Kernel"
    "$python" -c "import torch; print('%d%d' % torch.cuda.get_device_capability() if torch.cuda.is_available() else 90)" \
        > build/gpu/arch || return
    "$python" -m pip install -q --no-deps --no-build-isolation -Cbuild-dir=build/gpu-core \
        -Ccmake.define.pybind11_DIR="$("$python" -m pybind11 --cmakedir)" \
        -Ccmake.define.CMAKE_CUDA_ARCHITECTURES="$(cat build/gpu/arch)-real" -e .
}

record() {  # of `build`, whose Python may be what failed
    local status=$1
    [ "$status" = ok ] && [ -n "${REHEARSE:-}" ] && status=rehearsed
    printf '{"step": "build", "item": "build", "status": "%s", "seconds": %d, "rehearsed": %s, "commit": "%s", "notes": {"said": "%s"}, "measured": {}}\n' \
        "$status" $((SECONDS - start)) "$([ -n "${REHEARSE:-}" ] && echo true || echo false)" \
        "$(cat COMMIT 2> /dev/null || git rev-parse --short HEAD)" "$2" | tee -a "$RESULTS/build.jsonl"
}

steps=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do steps+=("$1"); shift; done
[ $# -gt 0 ] && shift
[ ${#steps[@]} -gt 0 ] || { sed -n '2,/^set/p' "$0" | grep '^#'; exit 2; }
worst=0
for step in "${steps[@]}"; do
    build || exit 1
    [ "$step" = build ] && continue
    "$VENV/bin/python" -m bench.gpu "$step" --results "$RESULTS" ${REHEARSE:+--rehearse} "$@"
    code=$?
    [ "$code" -gt "$worst" ] && worst=$code
done
exit "$worst"
