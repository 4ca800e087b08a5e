#!/bin/bash
# {{title}}
#
# Written by `sciffusion submit`; edit it as your centre needs, and submit it with: qsub {{script}}
#
# A preempted job is queued again by PBS (-r y). PBS does not warn before the time limit, so `timeout` sends USR1 in time:
# sciffusion finishes what is in flight and exits with 85, and this script submits itself again. What is complete stays
# complete, so that killing the job at any moment loses the items in flight and nothing else.
#PBS -N {{name}}
#PBS -A {{account}}
#PBS -q {{partition}}
#PBS -l walltime={{time}}
#PBS -l {{chunk}}
#PBS -J {{array}}
#PBS -r y
#PBS -j oe
#PBS -o {{log}}
#PBS {{directives}}

restarts={{restarts}}  # at most so many, preemptions not included
python={{python}}
cd {{folder}} || exit 1
module load {{modules}}
{{setup}}
export OMP_NUM_THREADS={{cpus}}

restart=${SCIFFUSION_RESTART:-0}
echo "$(date '+%F %T') job $PBS_JOBID starts on $(hostname), restart $restart"

{{launch}}

echo "$(date '+%F %T') job $PBS_JOBID ends with status $status"
case $status in
  85 | 124 | 137 | 138 | 143) # asked to stop (124: by timeout), or killed: KILL, USR1, TERM
    if [ "$restart" -lt "$restarts" ]; then
      # of an array this task alone: a range needs two ends, and a step of 2 leaves out the second
      again=${PBS_ARRAY_INDEX:+-J $PBS_ARRAY_INDEX-$((PBS_ARRAY_INDEX + 1)):2}
      # shellcheck disable=SC2086
      qsub $again -v SCIFFUSION_RESTART=$((restart + 1)) {{script}} && exit "$status"
    fi
    echo "not queued again: $restart restarts of at most $restarts" >&2
    ;;
esac
exit "$status"
