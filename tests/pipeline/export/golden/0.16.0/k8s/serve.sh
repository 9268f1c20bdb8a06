#!/usr/bin/env bash
# Serves llama-3.1-8b/fp8_tp2_h100:1 with Triton; run it in NVIDIA's Triton container.
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

wanted=0.16.0
ask='from importlib.metadata import version; print(version("tensorrt_llm"))'
found=$(python3 -c "$ask" 2>/dev/null) || found=none
[ "$found" = "$wanted" ] || refuse "the engine was built by TensorRT-LLM $wanted; this environment has $found"

gpus=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader) || refuse 'nvidia-smi finds no GPU'
count=$(wc -l <<<"$gpus")
[ "$count" -ge 2 ] || refuse "the engine has 2 ranks; GPUs here: $count"
[ "$(sort -u <<<"$gpus" | tr -d "[:space:]")" = 9.0 ] || refuse "the engine needs compute capability 9.0; here: $(sort -u <<<"$gpus" | xargs)"

for file in /deployment/engine/config.json /deployment/engine/tokenizer; do
  [ -e "$file" ] || refuse "$file is missing; put the export in its place, or export again with --root"
done

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
templates=${TEMPLATES:-/app/all_models/inflight_batcher_llm}
[ -d "$templates" ] || refuse "$templates is missing; it holds NVIDIA's Python models, name it in TEMPLATES"
for name in min_length random_seed; do
  grep -q "\"$name\"" "$templates/tensorrt_llm/config.pbtxt" || refuse "its models know no tensor $name"
done
repository=$scratch/repository
cp -R "$here/repository" "$repository"
chmod -R u+w "$repository"
for model in preprocessing postprocessing tensorrt_llm_bls; do
  cp -R "$templates/$model/1" "$repository/$model/"
done
for model in tensorrt_llm ensemble; do mkdir -p "$repository/$model/1"; done

serve mpirun --allow-run-as-root \
  -n 1 tritonserver \
    --model-repository="$repository" \
    --http-port=8000 \
    --grpc-port=8001 \
    --metrics-port=8002 \
    --disable-auto-complete-config \
    --backend-config=python,shm-region-prefix-name=prefix0_ : \
  -n 1 tritonserver \
    --model-repository="$repository" \
    --model-control-mode=explicit \
    --load-model=tensorrt_llm \
    --http-port=8000 \
    --grpc-port=8001 \
    --metrics-port=8002 \
    --disable-auto-complete-config \
    --backend-config=python,shm-region-prefix-name=prefix1_
