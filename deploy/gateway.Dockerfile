# The gateway alone: Triton runs in a container of its own (docker-compose.yml). Two stages, so that
# no compiler and no package cache is in the image; a user of its own, nothing writable but /data.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /venv
COPY requirements/runtime.txt requirements/
RUN /venv/bin/pip install --no-cache-dir -r requirements/runtime.txt setuptools wheel
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN /venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /venv/bin/pip uninstall --yes setuptools wheel pip

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 gateway && useradd --uid 10001 --gid 10001 --no-create-home gateway \
    && install -d -o gateway -g gateway /data /repository
COPY --from=build /venv /venv
USER 10001:10001
WORKDIR /data
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 DATA_DIR=/data MODEL_REPOSITORY=/repository
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:3000/livez', timeout=2)"]
CMD ["gateway", "serve"]
