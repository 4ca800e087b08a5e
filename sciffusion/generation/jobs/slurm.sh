#!/bin/bash
# {{title}}
#
# Written by `sciffusion submit`; edit it as your centre needs, and submit it with: sbatch {{script}}
#
# A preempted job is queued again by SLURM (--requeue). Before the time limit SLURM sends USR1 (--signal), which may come
# up to a minute early: sciffusion finishes what is in flight and exits with 85, and this script queues the job again.
# What is complete stays complete, so that killing the job at any moment loses the items in flight and nothing else.
#SBATCH --job-name={{name}}
#SBATCH --account={{account}}
#SBATCH --partition={{partition}}
#SBATCH --time={{time}}
#SBATCH --nodes={{nodes}}
#SBATCH --ntasks-per-node={{tasks}}
#SBATCH --cpus-per-task={{task_cpus}}
#SBATCH --gpus-per-node={{gpus}}
#SBATCH --mem={{memory}}
#SBATCH --array={{array}}
#SBATCH --chdir={{folder}}
#SBATCH --output={{log}}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal={{whom}}USR1@{{warning}}
#SBATCH {{directives}}

restarts={{restarts}}  # at most so many, preemptions included
python={{python}}
module load {{modules}}
{{setup}}
export OMP_NUM_THREADS={{cpus}}

# The name by which scontrol knows this job: SLURM_JOB_ID would be another one in an array.
job=$SLURM_JOB_ID
[ -n "${SLURM_ARRAY_TASK_ID:-}" ] && job=${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}
restart=${SLURM_RESTART_COUNT:-0}
echo "$(date '+%F %T') job $job starts on ${SLURM_JOB_NODELIST:-?}, restart $restart"

{{launch}}

echo "$(date '+%F %T') job $job ends with status $status"
case $status in
  85 | 137 | 138 | 143) # asked to stop, or killed: KILL, USR1, TERM
    if [ "$restart" -lt "$restarts" ]; then
      scontrol requeue "$job" && exit "$status"
    fi
    echo "not queued again: $restart restarts of at most $restarts" >&2
    ;;
esac
exit "$status"
