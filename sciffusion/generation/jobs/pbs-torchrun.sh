# One torchrun per node; it gives its workers 30 seconds after the signal, and answers it with a traceback.
head=$(head -n 1 "$PBS_NODEFILE")
number=${PBS_JOBID%%[!0-9]*}
timeout --signal=USR1 {{until_warning}} mpiexec -n {{nodes}} "$python" -m torch.distributed.run \
  --nnodes={{nodes}} --nproc-per-node={{processes}} --rdzv-backend=c10d --rdzv-id="$PBS_JOBID.$restart" \
  --rdzv-endpoint="$head:$((20000 + number % 20000))" \
  --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 -m sciffusion {{command}}
status=$?
