timeout --signal=USR1 {{until_warning}} "$python" -m sciffusion {{command}}
status=$?
