#!/bin/sh
# blip2-worker: what the workers of fit.yaml run, so that mpirun can start processes in them. It needs no root: the MPI operator mounts
# one key for all pods of the job, which is the host key here as well.
set -eu
exec /usr/sbin/sshd -D -e -f /dev/null -p 2222 -h "$HOME/.ssh/id_rsa" -o PidFile=none -o StrictModes=no
