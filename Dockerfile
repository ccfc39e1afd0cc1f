# The worker, and every other command, from the locked versions. Only the first stage has what building takes.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/contact-sync
# The dependencies have a layer of their own: a change of the code does not install them anew.
COPY requirements.txt ./
RUN /opt/contact-sync/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY producers producers
COPY worker worker
RUN /opt/contact-sync/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin contact-sync
COPY --from=build /opt/contact-sync /opt/contact-sync
ENV PATH=/opt/contact-sync/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# By number: an orchestrator that demands non-root cannot look names up.
USER 10001:10001
ENTRYPOINT ["contact-sync"]
CMD ["worker"]
