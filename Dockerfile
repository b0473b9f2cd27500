# The CPU build: `docker build -t distillscope .`; `docker run -v "$PWD/runs:/runs" distillscope` runs the quickstart into ./runs.
FROM python:3.12-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m pip install --no-cache-dir ".[onnx]" --extra-index-url https://download.pytorch.org/whl/cpu
ENV DISTILLSCOPE_CACHE=/runs/cache
WORKDIR /
VOLUME /runs
ENTRYPOINT ["distillscope"]
CMD ["run", "quickstart", "--resume", "--out", "/runs/quickstart"]
