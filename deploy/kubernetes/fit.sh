#!/bin/sh
# blip2-fit CONFIG RUN_FOLDER [options of blip2 fit]: what the launcher of fit.yaml runs. It trains on all workers, which the MPI operator
# lists for mpirun, and goes on from the newest checkpoint when Kubernetes starts it again.
set -eu
config=${1:?expected a config file: blip2-fit CONFIG RUN_FOLDER}
run=${2:?expected a run folder: blip2-fit CONFIG RUN_FOLDER}
shift 2
if [ -f "$run/config.yaml" ]; then set -- "$@" --resume; fi

# A process uses all cores of its pod, not one. When the pod must go, it has a minute to save a checkpoint.
exec mpirun --bind-to none --mca odls_base_sigkill_timeout 60 -x BLIP2_NUM_THREADS \
  blip2 fit "$config" --output "$run" "$@"
