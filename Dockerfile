# syntax=docker/dockerfile:1
FROM python:3.11-slim-bookworm AS build
RUN python -m venv /opt/tripswitch
WORKDIR /src
COPY constraints.txt pyproject.toml README.md policy.toml ./
COPY schemas schemas
COPY detectors detectors
COPY responses responses
COPY streams streams
COPY sinks sinks
COPY gateways gateways
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/tripswitch/bin/pip install --quiet -c constraints.txt . './gateways[demo]'

FROM python:3.11-slim-bookworm
# The folders exist and belong to the user before volumes are mounted over them: new volumes take that over.
RUN useradd --uid 10001 --create-home --home-dir /var/lib/tripswitch tripswitch \
    && install -d -o tripswitch -g tripswitch -m 700 /var/lib/tripswitch/signing \
    && install -d -o tripswitch -g tripswitch -m 755 /var/lib/tripswitch/public /var/lib/tripswitch/certificates
COPY --from=build /opt/tripswitch /opt/tripswitch
COPY deploy/certificates.py deploy/worker_health.py /opt/tripswitch/
ENV PATH=/opt/tripswitch/bin:$PATH PYTHONUNBUFFERED=1
USER tripswitch
WORKDIR /var/lib/tripswitch
CMD ["tripswitch", "--help"]
