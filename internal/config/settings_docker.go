package config

import "time"

// Docker is [runners.docker].
type Docker struct {
	Host        string `toml:"host" flag:"host" about:"Address of the engine; the environment or the default socket unless given."`
	TLSCertPath string `toml:"tls_cert_path" flag:"cert-path" about:"Directory with ca.pem, cert.pem and key.pem for the engine."`
	TLSVerify   bool   `toml:"tls_verify" flag:"tlsverify" env:"DOCKER_TLS_VERIFY" about:"Use TLS to the engine and check its certificate."`
	Image       string `toml:"image" flag:"image" example:"image = \"alpine:3.22\"" about:"Image of a job that names none."`
	Hostname    string `toml:"hostname" flag:"hostname" about:"Host name in the container; a unique one unless given."`
	Runtime     string `toml:"runtime" flag:"runtime" about:"Container runtime of the engine."`
	Isolation   string `toml:"isolation" flag:"isolation" about:"Isolation of Windows containers: default, hyperv, process."`

	Memory            string `toml:"memory" flag:"memory" check:"size" example:"memory = \"512m\"" about:"Memory limit of the build container."`
	MemorySwap        string `toml:"memory_swap" flag:"memory-swap" check:"size" about:"Limit of memory and swap together."`
	MemoryReservation string `toml:"memory_reservation" flag:"memory-reservation" check:"size" about:"Soft memory limit."`
	CgroupParent      string `toml:"cgroup_parent" flag:"cgroup-parent" about:"Parent control group."`
	CPUSetCPUs        string `toml:"cpuset_cpus" flag:"cpuset-cpus" about:"Processors that may be used, as 0-3 or 0,2."`
	CPUSetMems        string `toml:"cpuset_mems" flag:"cpuset-mems" about:"Memory nodes that may be used."`
	CPUs              string `toml:"cpus" flag:"cpus" check:"rational" example:"cpus = \"1.5\"" about:"Number of processors, as a string."`
	CPUShares         int64  `toml:"cpu_shares" flag:"cpu-shares" min:"0" about:"Weight against other containers."`
	OOMKillDisable    bool   `toml:"oom_kill_disable" flag:"oom-kill-disable" about:"Do not kill processes when memory runs out."`
	OOMScoreAdjust    int    `toml:"oom_score_adjust" flag:"oom-score-adjust" about:"Preference for being killed when memory runs out."`
	SHMSize           int64  `toml:"shm_size" flag:"shm-size" min:"0" about:"Size of /dev/shm, in bytes."`

	DNS         []string `toml:"dns" flag:"dns" check:"ip" about:"Name servers."`
	DNSSearch   []string `toml:"dns_search" flag:"dns-search" about:"Search domains."`
	ExtraHosts  []string `toml:"extra_hosts" flag:"extra-hosts" about:"Further hosts as NAME:ADDRESS."`
	Links       []string `toml:"links" flag:"links" about:"Containers that are linked in."`
	NetworkMode string   `toml:"network_mode" flag:"network-mode" about:"Network of the containers."`
	MACAddress  string   `toml:"mac_address" flag:"mac-address" about:"MAC address of the build container."`
	EnableIPv6  bool     `toml:"enable_ipv6" flag:"enable-ipv6" env:"-" about:"IPv6 in the network that is made for a job."`
	NetworkMTU  int      `toml:"network_mtu" flag:"network-mtu" env:"-" min:"0" about:"Packet size of the network that is made for a job; 0: the engine's."`

	Privileged                 bool              `toml:"privileged" flag:"privileged" about:"Run containers with all rights on the host."`
	ServicesPrivileged         Optional[bool]    `toml:"services_privileged" flag:"services_privileged" about:"The same for service containers; as privileged unless given."`
	AllowedPrivilegedImages    []string          `toml:"allowed_privileged_images" flag:"allowed-privileged-images" about:"Patterns of images that may be privileged; all unless given."`
	AllowedPrivilegedServices  []string          `toml:"allowed_privileged_services" flag:"allowed-privileged-services" about:"Patterns of services that may be privileged; all unless given."`
	DisableEntrypointOverwrite bool              `toml:"disable_entrypoint_overwrite" flag:"disable-entrypoint-overwrite" about:"Ignore the entrypoint that a job asks for."`
	User                       string            `toml:"user" flag:"user" about:"User of the build container, whatever the job says."`
	AllowedUsers               []string          `toml:"allowed_users" flag:"allowed_users" about:"Users that a job may choose; all unless given, or only user if that is."`
	GroupAdd                   []string          `toml:"group_add" flag:"group-add" about:"Further groups of the user."`
	UsernsMode                 string            `toml:"userns_mode" flag:"userns" env:"DOCKER_USERNS_MODE" about:"User namespace."`
	PIDMode                    string            `toml:"pid_mode" flag:"pid-mode" about:"Process namespace."`
	IPCMode                    string            `toml:"ipcmode" flag:"ipcmode" env:"DOCKER_IPC_MODE" about:"IPC namespace."`
	CapAdd                     []string          `toml:"cap_add" flag:"cap-add" about:"Capabilities to add."`
	CapDrop                    []string          `toml:"cap_drop" flag:"cap-drop" about:"Capabilities to drop."`
	SecurityOpt                []string          `toml:"security_opt" flag:"security-opt" about:"Security options of the build container."`
	ServicesCapAdd             []string          `toml:"services_cap_add" about:"Capabilities to add to service containers. Not a key of GitLab Runner."`
	ServicesCapDrop            []string          `toml:"services_cap_drop" about:"Capabilities to drop from service containers. Not a key of GitLab Runner."`
	ServicesSecurityOpt        []string          `toml:"services_security_opt" flag:"services-security-opt" about:"Security options of service containers."`
	Sysctls                    map[string]string `toml:"sysctls" flag:"sysctls" about:"Kernel parameters."`
	Ulimit                     map[string]string `toml:"ulimit" flag:"ulimit" check:"ulimit" example:"ulimit = { nofile = \"1024:4096\" }" about:"Resource limits as SOFT or SOFT:HARD."`

	Devices           []string            `toml:"devices" flag:"devices" check:"device" example:"devices = [\"/dev/kvm\"]" about:"Devices as HOST, HOST:CONTAINER or HOST:CONTAINER:PERMISSIONS."`
	DeviceCgroupRules []string            `toml:"device_cgroup_rules" flag:"device-cgroup-rules" about:"Rules of the devices control group."`
	GPUs              string              `toml:"gpus" flag:"gpus" about:"GPUs, as docker run takes them."`
	ServiceGPUs       string              `toml:"service_gpus" flag:"service_gpus" about:"GPUs of service containers."`
	ServicesDevices   map[string][]string `toml:"services_devices" flag:"services_devices" check:"device" example:"services_devices = { \"nvidia/*\" = [\"/dev/nvidia0\"] }" about:"Devices of services, by pattern of the image."`

	ServicesDeviceCgroupRules []string `toml:"services_device_cgroup_rules" about:"Rules of the devices control group of service containers. Not a key of GitLab Runner."`

	DisableCache    bool              `toml:"disable_cache" flag:"disable-cache" about:"Make no cache volumes."`
	Volumes         []string          `toml:"volumes" flag:"volumes" check:"volume" example:"volumes = [\"/cache\"]" about:"Volumes as PATH or HOST:PATH, with options."`
	VolumeKeep      bool              `toml:"volume_keep" flag:"volume-keep" about:"Keep a job's volumes."`
	VolumeDriver    string            `toml:"volume_driver" flag:"volume-driver" about:"Volume driver."`
	VolumeDriverOps map[string]string `toml:"volume_driver_ops" flag:"volume-driver-ops" about:"Options of the volume driver."`
	VolumesFrom     []string          `toml:"volumes_from" flag:"volumes-from" about:"Containers whose volumes are taken over."`
	CacheDir        string            `toml:"cache_dir" flag:"cache-dir" about:"Directory on the host for cache volumes."`
	Tmpfs           map[string]string `toml:"tmpfs" flag:"tmpfs" about:"Memory file systems: path and options."`
	ServicesTmpfs   map[string]string `toml:"services_tmpfs" flag:"services-tmpfs" about:"Memory file systems of service containers."`
	ContainerLabels map[string]string `toml:"container_labels" flag:"container-labels" env:"-" about:"Labels of all containers; variables are put in."`
	LogOptions      map[string]string `toml:"log_options" flag:"log-options" about:"Options of the json-file log driver: env and labels."`

	Services                  []Service     `toml:"services" strings:"name" about:"Services that every job gets."`
	ServicesLimit             Optional[int] `toml:"services_limit" flag:"services-limit" min:"-1" about:"Most services of a job, those of the configuration included; 0: none, -1: unlimited, as unless given."`
	ServiceMemory             string        `toml:"service_memory" flag:"service-memory" check:"size" about:"Memory limit of service containers."`
	ServiceMemorySwap         string        `toml:"service_memory_swap" flag:"service-memory-swap" check:"size" about:"Limit of memory and swap of service containers."`
	ServiceMemoryReservation  string        `toml:"service_memory_reservation" flag:"service-memory-reservation" check:"size" about:"Soft memory limit of service containers."`
	ServiceCgroupParent       string        `toml:"service_cgroup_parent" flag:"service-cgroup-parent" about:"Parent control group of service containers."`
	ServiceSlotCgroupTemplate string        `toml:"service_slot_cgroup_template" flag:"service-slot-cgroup-template" built:"no" about:"Name of a slot's control group for services."`
	ServiceCPUSetCPUs         string        `toml:"service_cpuset_cpus" flag:"service-cpuset-cpus" about:"Processors for service containers."`
	ServiceCPUs               string        `toml:"service_cpus" flag:"service-cpus" check:"rational" about:"Number of processors for service containers."`
	ServiceCPUShares          int64         `toml:"service_cpu_shares" flag:"service-cpu-shares" min:"0" about:"Weight of service containers."`
	WaitForServicesTimeout    time.Duration `toml:"wait_for_services_timeout" flag:"wait-for-services-timeout" unit:"s" default:"30" zero:"default" about:"Wait for services to answer; negative: none."`

	AllowedImages       []string  `toml:"allowed_images" flag:"allowed-images" about:"Patterns of images that jobs may use; all unless given."`
	AllowedServices     []string  `toml:"allowed_services" flag:"allowed-services" about:"Patterns of services that jobs may use; all unless given."`
	PullPolicy          OneOrMany `toml:"pull_policy" flag:"pull-policy" default:"always" enum:"always,if-not-present,never" about:"When images are pulled; a list is tried in order."`
	AllowedPullPolicies []string  `toml:"allowed_pull_policies" flag:"allowed-pull-policies" enum:"always,if-not-present,never" about:"Policies that a job may ask for; pull_policy unless given."`
	HelperImage         string    `toml:"helper_image" flag:"helper-image" about:"Image of the container that fetches sources and moves archives."`
	HelperImageFlavor   string    `toml:"helper_image_flavor" flag:"helper-image-flavor" default:"alpine" about:"Flavour of the bundled helper image."`
	HelperImageAutoset  bool      `toml:"helper_image_autoset_arch_and_os" built:"no" about:"Documented by GitLab Runner for docker; it has an effect for kubernetes only."`

	DisableHelper        bool          `toml:"disable_helper" about:"Make no helper container: sources, caches and artifacts are handled in the job's own container, whose image must have git. Not a key of GitLab Runner."`
	RegistryMirror       string        `toml:"registry_mirror" check:"mirror" example:"registry_mirror = \"start\"" about:"Pull images of the default registry through a mirror: its address, or start to have one run beside the jobs; empty: none. Not a key of GitLab Runner."`
	RegistryMirrorImage  string        `toml:"registry_mirror_image" default:"registry:2" about:"Image of the mirror that is started. Not a key of GitLab Runner."`
	RegistryMirrorRemote string        `toml:"registry_mirror_remote" default:"https://registry-1.docker.io" about:"Registry that the started mirror keeps copies of. Not a key of GitLab Runner."`
	ReconnectTimeout     time.Duration `toml:"reconnect_timeout" unit:"s" default:"300" zero:"default" min:"0" about:"How long a job waits for an engine that does not answer, such as one that restarts. Not a key of GitLab Runner."`
	EntrypointTimeout    time.Duration `toml:"entrypoint_timeout" unit:"s" default:"180" zero:"default" min:"0" about:"How long the entrypoint of a job's image may take until it starts the job. Not a key of GitLab Runner."`
}

// Service is one [[runners.docker.services]].
type Service struct {
	Name            string   `toml:"name" example:"name = \"postgres:17\"" about:"Image of the service."`
	Alias           string   `toml:"alias" about:"Host names under which jobs reach it."`
	Command         []string `toml:"command" about:"Command in place of the image's."`
	Entrypoint      []string `toml:"entrypoint" about:"Entrypoint in place of the image's."`
	Environment     []string `toml:"environment" about:"Variables of the service as KEY=VALUE."`
	SuspendDataPath string   `toml:"suspend_data_path" built:"no" about:"Directory that is kept while a job is suspended."`
}
