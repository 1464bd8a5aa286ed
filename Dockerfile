# Two images: `docker build --target cpu -t vinpaint .` and `docker build --target cuda -t vinpaint:cuda .`
#
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" vinpaint inpaint in.mp4 --mask mask.png -o out.mp4
#   docker run --rm -p 127.0.0.1:7860:7860 -e VINPAINT_WEB_PASSWORD=... vinpaint web --host 0.0.0.0
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/data" vinpaint:cuda inpaint in.mp4 --mask mask.png -o out.mp4

# PyTorch's default build brings gigabytes of CUDA libraries; for the cpu image pass the index of its CPU builds:
# `--build-arg TORCH_INDEX=...` (see pytorch.org, "Get started").

# The wheel with the C++ half alone.
FROM python:3.12-slim-bookworm AS build-cpu
ARG TORCH_INDEX=""
RUN apt-get update \
  && apt-get install --yes --no-install-recommends g++ \
  && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0 \
  && pip install --no-cache-dir scikit-build-core==1.1.2 pybind11==3.1.0 ninja==1.13.2 cmake
WORKDIR /source
COPY . .
RUN VINPAINT_CUDA=OFF pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm AS cpu
COPY --from=build-cpu /wheels /wheels
ARG TORCH_INDEX=""
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0 \
  && pip install --no-cache-dir "$(ls /wheels/*.whl)[web]" \
  && rm -rf /wheels
RUN useradd --create-home vinpaint
USER vinpaint
WORKDIR /data
EXPOSE 7860
ENTRYPOINT ["vinpaint"]
CMD ["--help"]

# The wheel with the CUDA kernels: nvcc, no GPU.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS build-cuda
RUN apt-get update \
  && apt-get install --yes --no-install-recommends python3-dev python3-venv g++ \
  && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /source
COPY . .
ARG ARCHITECTURES=""
ENV VINPAINT_CUDA=ON VINPAINT_CUDA_ARCHITECTURES=$ARCHITECTURES
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# CUDA's own libraries come with PyTorch, the driver from the host.
FROM ubuntu:24.04 AS cuda
RUN apt-get update \
  && apt-get install --yes --no-install-recommends python3 python3-venv \
  && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /venv
ENV PATH=/venv/bin:$PATH
COPY --from=build-cuda /wheels /wheels
RUN pip install --no-cache-dir torch==2.13.0 \
  && pip install --no-cache-dir "$(ls /wheels/*.whl)[web]" \
  && rm -rf /wheels
RUN useradd --create-home vinpaint
USER vinpaint
WORKDIR /data
EXPOSE 7860
ENTRYPOINT ["vinpaint"]
CMD ["--help"]
