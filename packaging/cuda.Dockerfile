# fastreason with its CUDA sampler: docker build -f packaging/cuda.Dockerfile -t fastreason-cuda .
# docker run --gpus all fastreason-cuda info; not tested, neither by Docker nor on a GPU.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* && python3 -m venv /venv
COPY . /src
RUN /venv/bin/pip wheel --no-cache-dir --no-deps -w /wheels /src -Ccmake.define.FASTREASON_CUDA=ON

# the wheel has the CUDA runtime in it, torch brings its libraries, and Triton compiles with gcc
FROM ubuntu:24.04
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* && python3 -m venv /venv
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    /venv/bin/pip install --no-cache-dir "$(echo /wheels/*.whl)[parquet,triton]"
RUN useradd --create-home user
USER user
WORKDIR /home/user
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENTRYPOINT ["/venv/bin/fastreason"]
CMD ["info"]
