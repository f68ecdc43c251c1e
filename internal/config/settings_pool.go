package config

import "time"

// OptionSet is one [[runners.machine.option_sets]]: a way to create a machine. Its options come after those of
// [runners.machine], and win.
type OptionSet struct {
	Name                   string   `toml:"name" example:"name = \"spot-a\"" about:"Name of the set, which machines and messages bear."`
	MachineOptions         []string `toml:"MachineOptions" example:"MachineOptions = [\"amazonec2-zone=a\"]" about:"Options of the set, as in [runners.machine], whose own come before them."`
	MachineOptionsWithName []string `toml:"MachineOptionsWithName" example:"MachineOptionsWithName = [\"amazonec2-tags=name,%s\"]" about:"The same, with %s for the machine's name."`
	PricePerHour           float64  `toml:"price_per_hour" min:"0" about:"Price of a machine of the set; that of [runners.machine] unless given."`
}

// MachineAPI is [runners.machine.api].
type MachineAPI struct {
	Account           string  `toml:"account" about:"Name of the account at the provider; runners that name the same one share one budget. The driver unless given."`
	RequestsPerSecond float64 `toml:"requests_per_second" min:"0" example:"requests_per_second = 2.0" about:"Operations of the provider per second; 0: no limit but the provider's own."`
	Burst             int     `toml:"burst" min:"0" about:"Operations that may be made at once after a pause; as requests_per_second unless given, at least 1."`
}

// MachineLogin is [runners.machine.login].
type MachineLogin struct {
	User         string `toml:"user" about:"User to log in as; root, or one that may use sudo without a password. As the provider says unless given."`
	Port         int    `toml:"port" min:"0" about:"Port of SSH; as the provider says unless given."`
	IdentityFile string `toml:"identity_file" about:"File of the private key; as the provider says unless given."`
	Jump         string `toml:"jump" check:"ssh" example:"jump = \"ssh://ci@bastion.example.com\"" about:"Host through which machines are reached, as ssh://USER@HOST:PORT; empty: none."`
}

// MachineEngine is [runners.machine.engine].
type MachineEngine struct {
	Access             string        `toml:"access" default:"ssh" enum:"ssh,tls" about:"How the engine is reached: ssh, through the machine's SSH server, or tls, at port 2376 with certificates that are made for the machine."`
	Install            bool          `toml:"install" default:"true" about:"Install an engine on a machine that has none."`
	InstallURL         string        `toml:"install_url" check:"url" example:"install_url = \"https://get.docker.com\"" about:"Address of a script that installs it; the packages of the machine's distribution unless given."`
	Socket             string        `toml:"socket" example:"socket = \"/run/docker.sock\"" about:"Socket of the engine on the machine; /var/run/docker.sock unless given."`
	RegistryMirrors    []string      `toml:"registry_mirrors" check:"url" example:"registry_mirrors = [\"https://mirror.example.com\"]" about:"Mirrors of the default registry."`
	InsecureRegistries []string      `toml:"insecure_registries" about:"Registries that are asked without TLS, or whose certificates are not checked."`
	StorageDriver      string        `toml:"storage_driver" about:"Storage driver of the engine; its own choice unless given."`
	Labels             []string      `toml:"labels" check:"pair" example:"labels = [\"site=berlin\"]" about:"Labels of the engine, as KEY=VALUE."`
	Options            []string      `toml:"options" example:"options = [\"log-level=warn\"]" about:"Further options of the engine, without the leading dashes."`
	Environment        []string      `toml:"environment" check:"pair" example:"environment = [\"GODEBUG=http2client=0\"]" about:"Environment of the engine, as KEY=VALUE."`
	PreloadImages      []string      `toml:"preload_images" example:"preload_images = [\"alpine:latest\"]" about:"Images that are copied from this host's engine to the engine of each new machine."`
	CertificateNames   []string      `toml:"certificate_names" about:"With tls: further names and addresses in the engine's certificate."`
	CertificateLife    time.Duration `toml:"certificate_life" default:"720h" zero:"default" min:"0" about:"With tls: how long the certificates of a machine are valid."`
}

// MachineProvision is [runners.machine.provision].
type MachineProvision struct {
	Before       string   `toml:"before" example:"before = \"/etc/tranter/before.sh\"" about:"File of a script that is run as root on a new machine before its engine is looked for."`
	After        string   `toml:"after" example:"after = \"/etc/tranter/after.sh\"" about:"The same, once the engine answers."`
	ReadyCommand string   `toml:"ready_command" example:"ready_command = \"test -e /run/ready\"" about:"Command that has to succeed on a machine before its first job; it is tried until boot_timeout is over."`
	GPUCheck     string   `toml:"gpu_check" example:"gpu_check = \"nvidia-smi\"" about:"Command that proves a machine's devices; where it fails, the machine is removed."`
	HTTPProxy    string   `toml:"http_proxy" about:"Proxy of the machines for HTTP."`
	HTTPSProxy   string   `toml:"https_proxy" about:"Proxy of the machines for HTTPS."`
	NoProxy      string   `toml:"no_proxy" about:"Hosts for which the machines use no proxy, with commas between them."`
	Notices      []string `toml:"notices" enum:"aws,gcp,azure,alibaba,none" example:"notices = [\"aws\"]" about:"Clouds whose notice that a machine is about to be taken away is watched for; none alone: no watch. The one that answers unless given."`
}

// MachineHost is one [[runners.machine.hosts]].
type MachineHost struct {
	Name         string `toml:"name" example:"name = \"builder-1\"" about:"Name of the machine; the host of its address unless given."`
	Address      string `toml:"address" check:"ssh" example:"address = \"ssh://ci@10.0.0.5\"" about:"Where it is, as ssh://USER@HOST:PORT; root and 22 unless given."`
	Capacity     int    `toml:"capacity" min:"0" about:"Jobs on it at the same time; that of [runners.machine] unless given."`
	IdentityFile string `toml:"identity_file" about:"File of the private key; that of [runners.machine.login] unless given."`
}

// MachineCommand is [runners.machine.command]. Each command is a program and its arguments.
type MachineCommand struct {
	Create      []string      `toml:"create" example:"create = [\"/etc/tranter/cloud.sh\", \"create\"]" about:"Program and arguments that create a machine; required."`
	List        []string      `toml:"list" example:"list = [\"/etc/tranter/cloud.sh\", \"list\"]" about:"The same to list the machines that there are; required."`
	Remove      []string      `toml:"remove" example:"remove = [\"/etc/tranter/cloud.sh\", \"remove\"]" about:"The same to remove a machine; required."`
	Status      []string      `toml:"status" example:"status = [\"/etc/tranter/cloud.sh\", \"status\"]" about:"The same to ask for one machine; list is used unless given."`
	Start       []string      `toml:"start" example:"start = [\"/etc/tranter/cloud.sh\", \"start\"]" about:"The same to switch a machine on; needs stop."`
	Stop        []string      `toml:"stop" example:"stop = [\"/etc/tranter/cloud.sh\", \"stop\"]" about:"The same to switch a machine off; needs start."`
	Timeout     time.Duration `toml:"timeout" default:"10m" zero:"default" min:"0" about:"Longest run of a program."`
	Environment []string      `toml:"environment" check:"pair" example:"environment = [\"REGION=eu-1\"]" about:"Further environment of the programs, as KEY=VALUE."`
}

// MachineContainer is [runners.machine.container].
type MachineContainer struct {
	Host    string `toml:"host" about:"Address of the engine on which the machines are; the environment or the default socket unless given."`
	Image   string `toml:"image" about:"Image of the machines: an init system, an SSH server and an engine. One is made from the host's Debian packages unless given."`
	Network string `toml:"network" about:"Network of the machines; one of their own unless given."`
	Subnet  string `toml:"subnet" check:"subnet" example:"subnet = \"172.31.0.0/24\"" about:"Addresses of the network that is made; the engine's choice unless given."`
	Memory  string `toml:"memory" check:"size" example:"memory = \"2g\"" about:"Memory of a machine; no limit unless given."`
	CPUs    string `toml:"cpus" check:"rational" example:"cpus = \"1.5\"" about:"Processors of a machine, as a string; no limit unless given."`
}
