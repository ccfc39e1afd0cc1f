# The worker, and every other command, from the locked versions. Only the stage `build` has what building takes.

# Pinned by tag and digest. The digest is that of the list of all platforms, as Docker's official-images project
# records it (docker-library/repo-info); the tag only tells people which one it is. Renew both together.
FROM python:3.11.16-slim-bookworm@sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b AS base

FROM base AS build
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Without a pip of its own: what runs needs none, and the base image's installs into it.
RUN python -m venv --without-pip /opt/contact-sync
# The dependencies have a layer of their own: a change of the code does not install them anew.
COPY requirements.txt ./
RUN pip --python /opt/contact-sync/bin/python install --require-hashes --requirement requirements.txt
# What builds our own package is pinned by hash too, and stays in this stage.
COPY deploy/requirements-build.txt ./
RUN pip install --require-hashes --requirement requirements-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY producers producers
COPY worker worker
COPY contact_sync_pytest.py ./
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/contact-sync/bin/python install --no-deps --no-index dist/*.whl

FROM base
RUN groupadd --gid 10001 contact-sync \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin contact-sync
COPY --from=build /opt/contact-sync /opt/contact-sync
ENV PATH=/opt/contact-sync/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# By number: an orchestrator that demands non-root cannot look names up. 10001 is free of any system user.
USER 10001:10001
# No HEALTHCHECK: the image runs every command, and `contact-sync health` answers for workers alone. It stands beside
# the worker in docker-compose.yml.
ENTRYPOINT ["contact-sync"]
CMD ["worker"]
