#!/usr/bin/env bash
# Serves llama-3.1-8b/fp8_torch:1 with trtllm-serve.
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

wanted=1.1.0
ask='from importlib.metadata import version; print(version("tensorrt_llm"))'
found=$(python3 -c "$ask" 2>/dev/null) || found=none
[ "$found" = "$wanted" ] || refuse "the engine was built by TensorRT-LLM $wanted; this environment has $found"

gpus=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader) || refuse 'nvidia-smi finds no GPU'
count=$(wc -l <<<"$gpus")
[ "$count" -ge 2 ] || refuse "the engine has 2 ranks; GPUs here: $count"
[ "$(sort -u <<<"$gpus" | tr -d "[:space:]")" = 9.0 ] || refuse "the engine needs compute capability 9.0; here: $(sort -u <<<"$gpus" | xargs)"

for file in /deployment/checkpoint /deployment/options.yaml; do
  [ -e "$file" ] || refuse "$file is missing; put the export in its place, or export again with --root"
done

export TRTLLM_NO_USAGE_STATS=1
mkdir "$scratch/tuning"
cp /deployment/tuning/autotuner_cache.json "$scratch/tuning/"
chmod -R u+w "$scratch/tuning"
export TLLM_AUTOTUNER_CACHE_PATH="$scratch/tuning/autotuner_cache.json"

serve trtllm-serve /deployment/checkpoint \
  --backend pytorch \
  --host 0.0.0.0 \
  --port 8000 \
  --tp_size 2 \
  --pp_size 1 \
  --max_batch_size 64 \
  --max_seq_len 8192 \
  --max_num_tokens 8192 \
  --extra_llm_api_options /deployment/options.yaml
