#!/usr/bin/env bash
# One Slurm job: a Ray cluster over the machines of the allocation, and one command of crossdim on it.
#
#   sbatch --nodes=4 --gpus-per-node=4 deploy/slurm.sh python -m training pretrain --recipe cdssl-p3d --data s3://lab/ct \
#     --out s3://lab/runs/a --workers 4:16 --gpu
#
# Submit from a shell in which that Python environment is active, in a folder that every machine sees. The same line again goes
# on from the last checkpoint, with more or fewer machines if need be. Exit status: that of the command; 143 if the job was stopped.
#
#SBATCH --job-name=crossdim
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
# Losing a machine is the run's business, not the job's end.
#SBATCH --no-kill
#SBATCH --time=24:00:00
# Slurm tells this script two minutes before it ends the job.
#SBATCH --signal=B:TERM@120

set -euo pipefail

if (($# == 0)); then
    echo "usage: sbatch [options] $0 python -m training pretrain ..." >&2
    exit 1
fi

# The token is made for this job and lives in its environment, which srun hands on and other users cannot read.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

# A machine that falls silent is given up after about 20 s: ray_cluster.yaml says why. Read by the head alone.
export RAY_health_check_initial_delay_ms=5000 RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=5000 RAY_health_check_failure_threshold=3

mapfile -t machines < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# This script runs on the first machine. Its first address, not its name: many machines call themselves 127.0.1.1.
read -r address _ < <(hostname -I)
# From the job's number, below the range in which Ray and Linux look for free ports.
port=$((6400 + SLURM_JOB_ID % 3000))
ray_head=$address:$port

ray_processes=()
command_process=

# Ends what was started here and nothing else: `ray stop` would end the Ray of every other job of this user on the machine.
# The command first, so that it can take its leave of a cluster that still answers.
# shellcheck disable=SC2329  # called by the trap
stop_cluster() {
    if [[ -n $command_process ]]; then
        kill -TERM "$command_process" 2>/dev/null || true
        wait "$command_process" || true
    fi
    if ((${#ray_processes[@]})); then kill -TERM "${ray_processes[@]}" 2>/dev/null || true; fi
    wait
}
trap stop_cluster EXIT
trap 'echo "stopped; the same line goes on from the last checkpoint" >&2; exit 143' TERM INT

# All machines of a job end together, so a head kept free of work would protect nothing: this one computes too.
srun --nodes=1 --ntasks=1 --cpu-bind=none --nodelist="${machines[0]}" \
    ray start --head --node-ip-address="$address" --port="$port" --include-dashboard=false \
    --object-store-memory=2000000000 --block &
ray_processes+=($!)

until ray health-check --address "$ray_head" >/dev/null 2>&1; do
    if ! kill -0 "${ray_processes[0]}" 2>/dev/null; then
        echo "Ray did not start on ${machines[0]}" >&2
        exit 2
    fi
    sleep 1
done

if ((${#machines[@]} > 1)); then
    # A machine that fails takes no other with it: an elastic run goes on with the rest.
    srun --nodes=$((${#machines[@]} - 1)) --ntasks=$((${#machines[@]} - 1)) --cpu-bind=none --exclude="${machines[0]}" \
        --kill-on-bad-exit=0 ray start --address="$ray_head" --object-store-memory=2000000000 --block &
    ray_processes+=($!)
fi

# In the background, because a shell hears a signal only while it waits.
RAY_ADDRESS=$ray_head "$@" &
command_process=$!
status=0
wait "$command_process" || status=$?
command_process=
exit "$status"
