package engine

import "slices"

// hints returns what to do about messages of engines; the first that fits is taken.
func hints() []hint {
	return slices.Concat(hintsOfEngine(), hintsOfSettings(), hintsOfPrograms())
}

// hintsOfEngine is about the engine and its machine.
func hintsOfEngine() []hint {
	disk := "the disk of the engine is full: remove what is not needed there (tranter docker prune; docker system df shows what takes the room)"
	pools := "all of the engine's addresses for networks are in use: remove networks that nobody uses (docker network prune), or give the engine more with default-address-pools in /etc/docker/daemon.json"
	return []hint{
		{[]string{"no space left on device"}, disk},
		{[]string{"disk quota exceeded"}, disk},
		{[]string{"non-overlapping ipv4 address pool"}, pools},
		{[]string{"non-overlapping ipv6 address pool"}, "the engine has no IPv6 addresses for networks: give it some with default-address-pools in /etc/docker/daemon.json, or remove enable_ipv6 from [runners.docker]"},
		{[]string{"address pools have been fully subnetted"}, pools},
		{[]string{"client version", "too old"}, "the engine is too new for the version of the API in use: unset DOCKER_API_VERSION, or update this program"},
		{[]string{"client version", "too new"}, "the engine is older than the version of the API in use: unset DOCKER_API_VERSION, or update the engine"},
		{[]string{"http request to an https server"}, "the engine speaks TLS: set tls_verify = true and tls_cert_path in [runners.docker] (DOCKER_TLS_VERIFY, DOCKER_CERT_PATH)"},
		{[]string{"malformed http response"}, "what listens there may speak TLS: set tls_verify = true and tls_cert_path in [runners.docker] (DOCKER_TLS_VERIFY, DOCKER_CERT_PATH)"},
		{[]string{"too many open files"}, "the engine has no more files to open: raise its limit (LimitNOFILE of its service), or run fewer jobs at a time"},
		{[]string{"resource temporarily unavailable"}, "the engine's machine has no more room for processes: raise its limits (TasksMax, pids), or run fewer jobs at a time"},
	}
}

// hintsOfSettings is about settings that the engine does not take.
func hintsOfSettings() []hint {
	port := "the port is in use on the engine's machine: publish another, or none"
	runtime := "the engine has no such runtime: check runtime of [runners.docker], and runtimes in /etc/docker/daemon.json there"
	mount := "check volumes of [runners.docker] (source:/absolute/target[:options]); a path must exist on the engine's machine"
	return []hint{
		{[]string{"port is already allocated"}, port},
		{[]string{"address already in use"}, port},
		{[]string{"unknown or invalid runtime"}, runtime},
		{[]string{"unknown runtime"}, runtime},
		{[]string{"minimum memory limit"}, "memory of [runners.docker] is too small; the message says the least that is possible"},
		{[]string{"minimum memoryswap limit"}, "memory_swap of [runners.docker] must be larger than memory"},
		{[]string{"range of cpus is from"}, "cpus of [runners.docker] is more than the engine's machine has; the message says how many there are"},
		{[]string{"isolation"}, "the engine does not know this isolation; use isolation = \"default\" in [runners.docker]"},
		{[]string{"invalid mount config"}, mount},
		{[]string{"bind source path does not exist"}, mount},
		{[]string{"invalid volume spec"}, mount},
		{[]string{"invalid mount"}, mount},
		{[]string{"duplicate mount point"}, "two volumes of [runners.docker] have the same target; remove one"},
		{[]string{"mount path must be absolute"}, mount},
		{[]string{"could not select device driver"}, "the engine has no driver for that device: install it there (for NVIDIA GPUs, the NVIDIA container toolkit), or remove gpus"},
		{[]string{"unknown capability"}, "check cap_add and cap_drop of [runners.docker]: the engine knows no such capability (man 7 capabilities)"},
		{[]string{"volume plugin", "not found"}, "check volume_driver of [runners.docker]: the engine has no such driver (docker plugin ls)"},
		{[]string{"gathering device information"}, "check devices of [runners.docker]: there is no such device on the engine's machine"},
		{[]string{"storage-opt"}, "the storage of the engine has no limits of size; remove storage_opt of [runners.docker], or use overlay2 on XFS mounted with pquota"},
		{[]string{"sysctl"}, "the engine does not allow this sysctl; check sysctls of [runners.docker]: only those that each container has of its own can be set"},
		{[]string{"apparmor"}, "check apparmor in security_opt of [runners.docker]: the profile must be loaded on the engine's machine"},
		{[]string{"seccomp"}, "check seccomp in security_opt of [runners.docker]"},
		{[]string{"network", "not found"}, "check network_mode of [runners.docker]: the engine has no such network (docker network ls)"},
	}
}

// hintsOfPrograms is about containers that do not start.
func hintsOfPrograms() []hint {
	missing := "the image does not have the program that is to be started, or not the interpreter or the libraries that it needs: check entrypoint of the job's image"
	rights := "the engine itself lacks rights for that: it cannot give privileged or these capabilities; remove privileged, cap_add and devices from [runners.docker], or run the engine with more rights"
	return []hint{
		{[]string{"exec format error"}, "the image is for another architecture than the engine's machine: use an image for that one, or install emulation there (binfmt, qemu-user-static)"},
		{[]string{"executable file not found"}, missing},
		{[]string{"exec:", "no such file or directory"}, missing},
		{[]string{"exec:", "permission denied"}, "the program that is to be started cannot be executed by the container's user: check entrypoint and user of the job's image"},
		{[]string{"unable to apply caps"}, rights},
		{[]string{"oci runtime", "operation not permitted"}, rights},
		{[]string{"unable to find user"}, "the image has no such user: check user of [runners.docker] and of the job's image"},
		{[]string{"no matching entries in passwd file"}, "the image has no such user: check user of [runners.docker] and of the job's image"},
		{[]string{"are you trying to mount a directory onto a file"}, "check volumes of [runners.docker]: one side is a directory and the other a file"},
	}
}
