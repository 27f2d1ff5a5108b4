#!/bin/bash
#SBATCH --job-name=run_1.k3f9x2m1qa
#SBATCH --comment=hpcft:k3f9x2m1qa
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=a100:2
#SBATCH --mem=123392M
#SBATCH --time=1-12:00:00
#SBATCH --partition=gpu
#SBATCH --account=my-project
#SBATCH --qos=long
#SBATCH --constraint=nvlink
#SBATCH --chdir="/home/me/my results/run_1"
#SBATCH --output="/home/me/my results/run_1/job.log"
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR2@180
#SBATCH --export=HOME,USER,PATH,LANG
#SBATCH --exclude="node[7-9]"
#SBATCH --exclusive

# Run k3f9x2m1qa of hpcft. The directory below holds everything about it.
umask 077
run='/home/me/my results/run_1'
# The log is that of all starts; this line tells them apart.
echo "hpcft: start ${SLURM_RESTART_COUNT:-0} of job $SLURM_JOB_ID on $SLURM_JOB_NODELIST"

# A job does not inherit the functions of the shell that submitted it.
for init in "${LMOD_PKG:-}/init/bash" "${MODULESHOME:-}/init/bash" /etc/profile.d/lmod.sh /etc/profile.d/modules.sh; do
    if ! command -v module >/dev/null && [ -r "$init" ]; then
        # shellcheck source=/dev/null
        . "$init"
    fi
done
module load cuda/12.4 gcc

# From the cluster's profile.
ulimit -n 65536

export HF_DATASETS_OFFLINE=1
export HF_HOME='/scratch/hugging face'
export HF_HUB_OFFLINE=1
export NCCL_SOCKET_IFNAME=ib0
set -u
export PYTHONPATH='/home/me/my results/run_1/code'
export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
# srun does not take the batch job's --cpus-per-task over by itself.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
# Below 32768, where Linux begins to hand out ports to outgoing connections; another one at each start, since a
# port that was taken may still be.
export MASTER_PORT=$((20000 + (SLURM_JOB_ID + 61 * ${SLURM_RESTART_COUNT:-0}) % 12000))

# Slurm before 23.02 keeps the time limit's end to itself.
if [ -z "${SLURM_JOB_END_TIME:-}" ] && end=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%e) && [ -n "$end" ]; then
    SLURM_JOB_END_TIME=$(date --date="$end" +%s 2>/dev/null)
    export SLURM_JOB_END_TIME
fi

# The signals are for the ranks; this shell only has to outlive them.
trap : TERM USR2

# --export=ALL: without it srun would pass on the submission's list, not what was exported above.
# --wait: when one rank has ended, the others get a minute.
# -P: a datasets.py in the current folder is not the library.
srun --export=ALL --wait=60 --nodes=2 --ntasks-per-node=2 \
apptainer exec --nv --bind /scratch '/shared/my image.sif' \
    /opt/venv/bin/python -P -m hpcft.worker "$run"
code=$?

# 75: everything is saved and the same run is to go on. After another failure this tool is asked: some are the node's
# or the hour's, and another try may help. An interactive allocation cannot be queued again.
again=no
if [ -n "${HPCFT_FOREGROUND:-}" ] || [ "$code" -eq 0 ]; then
    :
elif [ "$code" -eq 75 ]; then
    again=yes
elif apptainer exec --nv --bind /scratch '/shared/my image.sif' /opt/venv/bin/python -P -m hpcft.cluster.retry "$run" "$code"; then
    again=yes
fi
if [ "$again" = yes ]; then
    # To the ranks scancel looks like a preemption or the time limit. Slurm knows which it was, and a job that
    # was cancelled stays cancelled.
    case $(scontrol show job "$SLURM_JOB_ID") in
        *Reason=TimeLimit* | *PreemptTime=2*) ;;
        *JobState=COMPLETING* | *JobState=CANCELLED*) again=no ;;
    esac
    # Twice more: a controller that restarts is away for a moment.
    for pause in 0 10 30; do
        [ "$again" = yes ] || break
        sleep "$pause"
        scontrol requeue "$SLURM_JOB_ID" && break
    done
fi
exit "$code"
