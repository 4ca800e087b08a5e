# One torchrun per node. It answers any signal with a traceback (SignalException) and status 1, so this shell takes the
# warning, passes it on, and remembers it; and it gives its workers 30 seconds. (A preemption with a grace period goes to
# the processes alone: use srun there.)
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
asked=
trap 'asked=yes; kill -USR1 "$launched"' USR1
srun --cpus-per-task={{task_cpus}} --kill-on-bad-exit=1 "$python" -m torch.distributed.run \
  --nnodes={{nodes}} --nproc-per-node={{processes}} --rdzv-backend=c10d --rdzv-id="$job.$restart" \
  --rdzv-endpoint="$head:$((20000 + SLURM_JOB_ID % 20000))" \
  --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 -m sciffusion {{command}} &
launched=$!
wait "$launched"
status=$?
while kill -0 "$launched" 2>/dev/null; do
  wait "$launched"
  status=$?
done
[ -n "$asked" ] && [ "$status" -ne 0 ] && status=85
