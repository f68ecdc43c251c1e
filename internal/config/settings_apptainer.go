package config

import "time"

// Apptainer is [runners.apptainer]: containers for who may not have an engine. None of its keys is one of GitLab Runner.
type Apptainer struct {
	Runtime    string `toml:"runtime" default:"apptainer" zero:"default" enum:"apptainer,singularity,charliecloud,bubblewrap" about:"What runs the containers."`
	Executable string `toml:"executable" about:"Path of the runtime's program; found in PATH by its usual name unless given."`

	Image               string        `toml:"image" about:"Image of jobs that name none; without it they run without a container."`
	ImageDir            string        `toml:"image_dir" example:"image_dir = \"/shared/images\"" about:"Directory of the images, which managers and nodes may share; one below the cache directory unless given."`
	ImageCacheDir       string        `toml:"image_cache_dir" about:"Directory of the layers that images are made of; in image_dir unless given."`
	ImageTmpDir         string        `toml:"image_tmp_dir" about:"Directory for images while they are made; in image_dir unless given."`
	ImageForm           string        `toml:"image_form" default:"auto" enum:"auto,directory,sif" about:"How images lie in image_dir: as directories, which need no FUSE, or as one file each, which suits parallel file systems."`
	ImageMaxAge         time.Duration `toml:"image_max_age" default:"720h" min:"0" about:"Time without use after which an image is removed; 0: never."`
	ImageMaxSize        string        `toml:"image_max_size" check:"memory" example:"image_max_size = \"200g\"" about:"Size of all images from which the ones used longest ago are removed; empty: no bound."`
	PullPolicy          []string      `toml:"pull_policy" default:"always" enum:"always,if-not-present,never" about:"When an image is pulled; further entries hold after a failure. always asks the registry for the digest and downloads what is not there."`
	AllowedPullPolicies []string      `toml:"allowed_pull_policies" enum:"always,if-not-present,never" about:"Policies that jobs may ask for; those of pull_policy unless given."`
	AllowedImages       []string      `toml:"allowed_images" check:"pattern" about:"Patterns of images that jobs may use; any unless given."`
	AllowedServices     []string      `toml:"allowed_services" check:"pattern" about:"Patterns of images that jobs may use as services; any unless given."`
	InsecureRegistries  []string      `toml:"insecure_registries" about:"Registries that are reached over HTTP, as host or host:port."`

	Mounts      []string      `toml:"mounts" check:"mount" example:"mounts = [\"/scratch:/scratch\"]" about:"What of the host is in the containers, as SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro. Variables of the job are replaced."`
	GPUNvidia   string        `toml:"gpu_nvidia" example:"gpu_nvidia = \"true\"" about:"true: containers have the host's NVIDIA GPUs. Variables of the job are replaced."`
	GPUAMD      string        `toml:"gpu_amd" about:"true: containers have the host's AMD GPUs. Variables of the job are replaced."`
	Network     string        `toml:"network" default:"host" enum:"host,job" about:"host: containers have the host's network. job: each job has one of its own, in which its services are reached at 127.0.0.1, and nothing else is."`
	Writable    bool          `toml:"writable" default:"true" about:"Jobs can write anywhere in their container; that is gone with it."`
	ShareTmp    bool          `toml:"share_tmp" about:"The host's /tmp is the containers'; otherwise each job has its own."`
	Options     []string      `toml:"options" about:"Further arguments of the runtime's exec command."`
	Environment []string      `toml:"environment" check:"pair" example:"environment = [\"LANG=C.UTF-8\"]" about:"NAME=VALUE for all containers."`
	Description string        `toml:"description" example:"description = \"Slurm job ${SLURM_JOB_ID:-?}\"" about:"Text for the job's log. Variables of the job and of the environment are replaced."`
	KillTimeout time.Duration `toml:"kill_timeout" default:"30s" zero:"default" min:"0" about:"How long a container gets to end."`

	Services                   []ApptainerService `toml:"services" about:"Services of all jobs."`
	ServicesLimit              int                `toml:"services_limit" default:"-1" min:"-1" about:"Most services of a job; -1: no limit."`
	WaitForServicesTimeout     time.Duration      `toml:"wait_for_services_timeout" unit:"s" default:"30" about:"How long services are waited for; below 0: not at all."`
	DisableEntrypointOverwrite bool               `toml:"disable_entrypoint_overwrite" about:"Jobs can't replace an image's entrypoint."`
}

// ApptainerService is one [[runners.apptainer.services]].
type ApptainerService struct {
	Name        string   `toml:"name" about:"Image of the service."`
	Alias       string   `toml:"alias" about:"Further names for it, with spaces or commas between them."`
	Entrypoint  []string `toml:"entrypoint" about:"In place of the image's."`
	Command     []string `toml:"command" about:"In place of the image's."`
	Environment []string `toml:"environment" check:"pair" example:"environment = [\"LANG=C.UTF-8\"]" about:"NAME=VALUE for the service."`
}
