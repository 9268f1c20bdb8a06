#!/usr/bin/env bash
# Serves the checkpoint of llama-3.1-8b/fp8_tp2_h100:1 with vLLM.
# Written by `enginery export`; export again to change a value.
set -euo pipefail

refuse() { echo "error: $1" >&2; exit 4; }
serve() {  # runs the server, hands signals on to it, and ends as it ends
  "$@" & server=$!
  trap 'kill -TERM "$server"' TERM INT
  while true; do
    status=0; wait "$server" || status=$?
    kill -0 "$server" 2>/dev/null || exit "$status"
  done
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

for file in /models/export/checkpoint/config.json; do
  [ -e "$file" ] || refuse "$file is missing; put the export in its place, or export again with --root"
done

export VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1

serve vllm serve /models/export/checkpoint \
  --quantization modelopt \
  --kv-cache-dtype fp8 \
  --tensor-parallel-size 2 \
  --pipeline-parallel-size 1 \
  --max-model-len 8192 \
  --max-num-seqs 64 \
  --gpu-memory-utilization 0.9 \
  --served-model-name llama-3.1-8b/fp8_tp2_h100 \
  --host localhost \
  --port 8000
