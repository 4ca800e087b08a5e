# One process per GPU; they do not need each other.
timeout --signal=USR1 {{until_warning}} mpiexec -n {{all_processes}} "$python" -m sciffusion {{command}}
status=$?
