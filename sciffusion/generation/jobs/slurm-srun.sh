# One process per GPU. Those that train need each other: where one has ended, the others get two minutes (--wait).
srun --cpus-per-task={{task_cpus}} --kill-on-bad-exit=0 --wait={{wait}} "$python" -m sciffusion {{command}}
status=$?
