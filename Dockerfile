# Not built by this project's tests, which have no container daemon: hadolint alone has checked it.
#
#   docker build --tag stic-eval .                    torch as pip's default index has it: on Linux with CUDA's libraries
#   docker build --tag stic-eval --build-arg PIP_EXTRA_INDEX_URL=INDEX .    INDEX has torch for CPUs, or another CUDA
#   docker run --rm --gpus all --volume "$PWD:/work" --volume stic-eval:/cache stic-eval run --method stic
#
# Without a GPU leave out `--gpus all`. Results lie in the folder it is run in, models and finished parts in /cache.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS built
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL}
WORKDIR /source
COPY . .
RUN python -m venv /opt/stic-eval \
    && /opt/stic-eval/bin/pip install --no-cache-dir --no-compile --constraint constraints.txt '.[figures,xlsx]'

FROM python:${PYTHON}-slim
COPY --from=built /opt/stic-eval /opt/stic-eval
ENV PATH=/opt/stic-eval/bin:$PATH STIC_EVAL_CACHE=/cache/stic-eval HF_HOME=/cache/huggingface
RUN useradd --create-home --uid 1000 user && mkdir --mode=777 /cache /work
USER 1000
WORKDIR /work
VOLUME /cache
ENTRYPOINT ["stic-eval"]
CMD ["--help"]
