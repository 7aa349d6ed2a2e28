# fastreason on CPUs: docker build -f packaging/cpu.Dockerfile -t fastreason .
# It has not been run: no Docker was available where it was written.
FROM python:3.12-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN pip wheel --no-cache-dir --no-deps -w /wheels /src -Ccmake.define.FASTREASON_CUDA=OFF

FROM python:3.12-slim-bookworm
# torch's build without CUDA is a tenth of the other
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu "$(echo /wheels/*.whl)[parquet]"
RUN useradd --create-home user
USER user
WORKDIR /home/user
ENTRYPOINT ["fastreason"]
CMD ["info"]
