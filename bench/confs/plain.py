"""gunicorn as it is: only what the machine asks for, and the same keep-alive for all."""

worker_tmp_dir = "/dev/shm"  # gunicorn's heartbeat file, unlinked at once
control_socket_disable = True
keepalive = 5
