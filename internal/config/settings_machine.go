package config

import (
	"cmp"
	"time"

	"github.com/tranter-ci/tranter"
)

// Machine is [runners.machine].
type Machine struct {
	IdleCount              int           `toml:"IdleCount" flag:"idle-nodes" env:"MACHINE_IDLE_COUNT" min:"0" about:"Machines that wait for jobs; with IdleScaleFactor, the most of them."`
	IdleScaleFactor        float64       `toml:"IdleScaleFactor" flag:"idle-scale-factor" min:"0" about:"Waiting machines as a multiple of those in use; 0: always IdleCount."`
	IdleCountMin           int           `toml:"IdleCountMin" flag:"idle-count-min" min:"0" about:"Fewest waiting machines under IdleScaleFactor."`
	IdleTime               time.Duration `toml:"IdleTime" flag:"idle-time" unit:"s" min:"0" about:"Time that a machine waits for a job before it may be removed."`
	MaxBuilds              int           `toml:"MaxBuilds" flag:"max-builds" min:"0" about:"Jobs after which a machine is removed; 0: no limit."`
	MaxGrowthRate          int           `toml:"MaxGrowthRate" flag:"max-growth-rate" min:"0" about:"Machines that are created at the same time; 0: no limit."`
	MachineDriver          string        `toml:"MachineDriver" flag:"machine-driver" env:"MACHINE_DRIVER" example:"MachineDriver = \"openstack\"" about:"Docker Machine driver that creates the machines."`
	MachineName            string        `toml:"MachineName" flag:"machine-name" env:"MACHINE_NAME" example:"MachineName = \"ci-%s\"" about:"Name of the machines; %s stands for a unique part. Required for provider docker-machine, machine-%s unless given for others."`
	MachineOptions         []string      `toml:"MachineOptions" flag:"machine-options" env:"MACHINE_OPTIONS" about:"Options of the driver, without the leading dashes."`
	MachineOptionsWithName []string      `toml:"MachineOptionsWithName" flag:"machine-options-with-name" env:"MACHINE_OPTIONS_WITH_NAME" about:"Options in which %s stands for the machine's name."`
	MaxRemovalAttempts     int           `toml:"MaxRemovalAttempts" flag:"max-removal-attempts" default:"30" zero:"default" min:"0" about:"Tries to remove a machine in GitLab Runner, which gives it up then. Here it is tried until the machine is gone."`
	Autoscaling            []Autoscaling `toml:"autoscaling" about:"Other idle settings by time of day; the last matching entry holds, with all its values."`

	Provider          string           `toml:"provider" default:"docker-machine" enum:"docker-machine,static,command,container" about:"What makes the machines: a Docker Machine driver, your own command, or a local container engine; static: nothing does, they are a list of hosts. Not a key of GitLab Runner."`
	Capacity          int              `toml:"capacity" default:"1" zero:"default" min:"0" about:"Jobs on one machine at the same time. Not a key of GitLab Runner."`
	MaxAge            time.Duration    `toml:"max_age" min:"0" example:"max_age = \"24h\"" about:"Age from which a machine takes no more jobs and is removed; 0: no limit. Not a key of GitLab Runner."`
	StoppedCount      int              `toml:"stopped_count" min:"0" about:"Machines that are kept switched off, to be started when they are needed, if the provider can do that; 0: none. Not a key of GitLab Runner."`
	StoppedTime       time.Duration    `toml:"stopped_time" min:"0" example:"stopped_time = \"72h\"" about:"Time after which a machine that is switched off is removed; 0: never. Not a key of GitLab Runner."`
	PricePerHour      float64          `toml:"price_per_hour" min:"0" example:"price_per_hour = 0.12" about:"Price of a machine, in any currency, from which its cost is worked out; 0: unknown. Not a key of GitLab Runner."`
	CreateTimeout     time.Duration    `toml:"create_timeout" default:"20m" zero:"default" min:"0" about:"How long the provider may take to create a machine. Not a key of GitLab Runner."`
	BootTimeout       time.Duration    `toml:"boot_timeout" default:"10m" zero:"default" min:"0" about:"How long a machine may take from its creation until it is ready for jobs. Not a key of GitLab Runner."`
	DrainTimeout      time.Duration    `toml:"drain_timeout" min:"0" example:"drain_timeout = \"1h\"" about:"How long the jobs of a machine may still run that is drained or removed by hand, or whose runner is gone; 0: as long as they take. Not a key of GitLab Runner."`
	LostAfter         time.Duration    `toml:"lost_after" default:"2m" zero:"default" min:"0" about:"Time without a sign of life after which a machine is given up. Not a key of GitLab Runner."`
	SelfDestructAfter time.Duration    `toml:"self_destruct_after" default:"2h" min:"0" about:"Time without a manager after which a machine switches itself off; 0: never. Those of provider static never do. Not a key of GitLab Runner."`
	RestartLostJobs   bool             `toml:"restart_lost_jobs" about:"Start a job whose machine was lost again on another one; otherwise it fails. Not a key of GitLab Runner."`
	StoragePath       string           `toml:"storage_path" about:"Directory in which drivers keep files of machines, such as keys, laid out as docker-machine's store; one below the state directory unless given. Not a key of GitLab Runner."`
	OptionSets        []OptionSet      `toml:"option_sets" about:"Ways to create a machine, such as types, zones or spot, in the order in which they are tried. Not a key of GitLab Runner."`
	API               MachineAPI       `toml:"api" shown:"given" about:"How often the provider is asked. Not a section of GitLab Runner."`
	Login             MachineLogin     `toml:"login" shown:"given" about:"How machines are logged in to, where that is not as the provider says. Not a section of GitLab Runner."`
	Engine            MachineEngine    `toml:"engine" about:"The container engine of the machines. Not a section of GitLab Runner."`
	Provision         MachineProvision `toml:"provision" shown:"given" about:"What is done on a machine before its first job. Not a section of GitLab Runner."`
	Hosts             []MachineHost    `toml:"hosts" about:"The machines of provider static. Not a section of GitLab Runner."`
	Command           MachineCommand   `toml:"command" shown:"given" about:"The programs of provider command. Not a section of GitLab Runner."`
	Container         MachineContainer `toml:"container" shown:"given" about:"The machines of provider container, which are containers. Not a section of GitLab Runner."`

	OffPeakPeriods   []string      `toml:"OffPeakPeriods" check:"period" gone:"write [[runners.machine.autoscaling]] with Periods" about:"Without effect since GitLab Runner 14."`
	OffPeakTimezone  string        `toml:"OffPeakTimezone" gone:"write [[runners.machine.autoscaling]] with Timezone" about:"Without effect since GitLab Runner 14."`
	OffPeakIdleCount int           `toml:"OffPeakIdleCount" gone:"write [[runners.machine.autoscaling]] with IdleCount" about:"Without effect since GitLab Runner 14."`
	OffPeakIdleTime  time.Duration `toml:"OffPeakIdleTime" unit:"s" gone:"write [[runners.machine.autoscaling]] with IdleTime" about:"Without effect since GitLab Runner 14."`
}

// NamePattern is MachineName, or what stands for it with providers that need none.
func (m *Machine) NamePattern() string { return cmp.Or(m.MachineName, "machine-%s") }

// Autoscaling is one [[runners.machine.autoscaling]].
type Autoscaling struct {
	Periods         []string      `toml:"Periods" check:"period" example:"Periods = [\"* * 9-17 * * mon-fri *\"]" about:"Cron expressions (second, minute, hour, day, month, weekday, year) of the times in which the entry holds."`
	Timezone        string        `toml:"Timezone" default:"Local" check:"zone" about:"Time zone of the periods."`
	IdleCount       int           `toml:"IdleCount" min:"0" about:"As in [runners.machine]."`
	IdleScaleFactor float64       `toml:"IdleScaleFactor" min:"0" about:"As in [runners.machine]."`
	IdleCountMin    int           `toml:"IdleCountMin" min:"0" about:"As in [runners.machine]."`
	IdleTime        time.Duration `toml:"IdleTime" unit:"s" min:"0" about:"As in [runners.machine]; 0 unless given."`
}

// Autoscaler is [runners.autoscaler].
type Autoscaler struct {
	Plugin                    string         `toml:"plugin" example:"plugin = \"aws\"" about:"Fleeting plugin, by name or reference."`
	PluginConfig              map[string]any `toml:"plugin_config" about:"Configuration of the plugin, passed on as it is."`
	CapacityPerInstance       int            `toml:"capacity_per_instance" min:"0" about:"Jobs at the same time on one instance."`
	MaxUseCount               int            `toml:"max_use_count" min:"0" about:"Jobs after which an instance is removed; 0: no limit."`
	MaxInstances              int            `toml:"max_instances" min:"0" about:"Most instances; 0: no limit."`
	ConnectorConfig           Connector      `toml:"connector_config" about:"How instances are reached, where the plugin does not say."`
	Policy                    []Policy       `toml:"policy" about:"Idle settings by time of day; the last matching entry holds."`
	InstanceReadyCommand      string         `toml:"instance_ready_command" about:"Command on a new instance; if it fails the instance is removed."`
	InstanceAcquireTimeout    time.Duration  `toml:"instance_acquire_timeout" default:"15m" zero:"default" min:"0" about:"Longest wait of a job for an instance."`
	UpdateInterval            time.Duration  `toml:"update_interval" default:"1m" zero:"default" min:"0" about:"Time between two looks at the instances."`
	UpdateIntervalExpecting   time.Duration  `toml:"update_interval_when_expecting" default:"2s" zero:"default" min:"0" about:"The same while a change is expected."`
	DeletionRetryInterval     time.Duration  `toml:"deletion_retry_interval" default:"1m" zero:"default" min:"0" about:"Wait before an instance is removed again."`
	ShutdownDeletionInterval  time.Duration  `toml:"shutdown_deletion_interval" default:"10s" zero:"default" min:"0" about:"The same while the manager ends."`
	ShutdownDeletionRetries   int            `toml:"shutdown_deletion_retries" default:"3" zero:"default" min:"0" about:"Tries to remove an instance while the manager ends."`
	FailureThreshold          int            `toml:"failure_threshold" default:"3" zero:"default" min:"0" about:"Failures in a row after which an instance is replaced."`
	ScaleThrottle             ScaleThrottle  `toml:"scale_throttle" about:"How fast instances are added."`
	ReservationThrottling     bool           `toml:"reservation_throttling" default:"true" about:"Hold back requests for jobs for which no capacity is ready."`
	LogInternalIP             bool           `toml:"log_internal_ip" about:"Write instances' internal addresses to jobs' logs."`
	LogExternalIP             bool           `toml:"log_external_ip" about:"Write instances' external addresses to jobs' logs."`
	DeleteInstancesOnShutdown bool           `toml:"delete_instances_on_shutdown" about:"Remove all instances when the manager ends."`
	StateStorage              StateStorage   `toml:"state_storage" about:"Memory of instances over restarts."`
	VMIsolation               VMIsolation    `toml:"vm_isolation" about:"A virtual machine per job on each instance."`
	OperationTimeBuckets      []float64      `toml:"instance_operation_time_buckets" about:"Histogram buckets, in seconds."`
	CreationTimeBuckets       []float64      `toml:"instance_creation_time_buckets" about:"Histogram buckets, in seconds."`
	IsRunningTimeBuckets      []float64      `toml:"instance_is_running_time_buckets" about:"Histogram buckets, in seconds."`
	DeletionTimeBuckets       []float64      `toml:"instance_deletion_time_buckets" about:"Histogram buckets, in seconds."`
	ReadinessTimeBuckets      []float64      `toml:"instance_readiness_time_buckets" about:"Histogram buckets, in seconds."`
	LifeDurationBuckets       []float64      `toml:"instance_life_duration_buckets" about:"Histogram buckets, in seconds."`
}

// Connector is [runners.autoscaler.connector_config].
type Connector struct {
	OS                   string         `toml:"os" about:"Operating system of the instances."`
	Arch                 string         `toml:"arch" about:"Architecture of the instances."`
	Protocol             string         `toml:"protocol" enum:",ssh,winrm,winrm+https" about:"ssh, winrm or winrm+https."`
	ProtocolPort         int            `toml:"protocol_port" min:"0" about:"Port; 22, 5985 or 5986 unless given."`
	Username             string         `toml:"username" about:"User to log in as."`
	Password             tranter.Secret `toml:"password" about:"Password of the user."`
	KeyPath              string         `toml:"key_path" about:"File of the private key."`
	UseStaticCredentials bool           `toml:"use_static_credentials" about:"Use these credentials, not those of the plugin."`
	Keepalive            time.Duration  `toml:"keepalive" min:"0" about:"Time between two signs of life."`
	Timeout              time.Duration  `toml:"timeout" min:"0" about:"Longest wait for a connection."`
	UseExternalAddr      bool           `toml:"use_external_addr" about:"Connect to the external address."`
}

// Policy is one [[runners.autoscaler.policy]].
type Policy struct {
	Periods          []string       `toml:"periods" default:"* * * * *" check:"period" about:"Cron expressions of the times in which the entry holds."`
	Timezone         string         `toml:"timezone" about:"Time zone of the periods; the manager's unless given."`
	IdleCount        int            `toml:"idle_count" min:"0" about:"Capacity that waits for jobs."`
	IdleTime         time.Duration  `toml:"idle_time" min:"0" about:"Time that an instance waits before it may be removed."`
	ScaleFactor      float64        `toml:"scale_factor" min:"0" about:"Waiting capacity as a multiple of what is in use, on top of idle_count."`
	ScaleFactorLimit int            `toml:"scale_factor_limit" min:"0" about:"Most capacity through scale_factor."`
	PreemptiveMode   Optional[bool] `toml:"preemptive_mode" about:"Ask for jobs only when capacity is ready; true if idle_count is above 0 unless given."`
}

// ScaleThrottle is [runners.autoscaler.scale_throttle].
type ScaleThrottle struct {
	Limit int `toml:"limit" default:"100" zero:"default" about:"New instances per second; -1: no limit."`
	Burst int `toml:"burst" min:"0" about:"New instances at once; max_instances or limit unless given."`
}

// StateStorage is [runners.autoscaler.state_storage].
type StateStorage struct {
	Enabled                      bool   `toml:"enabled" about:"Remember instances; otherwise all that exist are removed at start."`
	Dir                          string `toml:"dir" about:"Directory; .taskscaler beside the configuration unless given."`
	KeepInstanceWithAcquisitions bool   `toml:"keep_instance_with_acquisitions" about:"Keep instances on which jobs were running."`
}

// VMIsolation is [runners.autoscaler.vm_isolation].
type VMIsolation struct {
	Enabled         bool           `toml:"enabled" about:"Use nested virtual machines."`
	NestingHost     string         `toml:"nesting_host" about:"Address of the nesting daemon."`
	NestingConfig   map[string]any `toml:"nesting_config" about:"Configuration of the nesting daemon, passed on as it is."`
	Image           string         `toml:"image" about:"Image of the virtual machines."`
	ConnectorConfig Connector      `toml:"connector_config" about:"How the virtual machines are reached."`
}

// Instance is [runners.instance].
type Instance struct {
	AllowedImages     []string `toml:"allowed_images" about:"Patterns of virtual machine images that jobs may use."`
	UseCommonBuildDir bool     `toml:"use_common_build_dir" about:"Let the jobs on an instance share one builds directory."`
}
