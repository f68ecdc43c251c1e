package config

import (
	"time"

	"github.com/tranter-ci/tranter"
)

// Batch is [runners.batch]: the runner's jobs run in batch jobs of a cluster, there with the section's executor. None of its
// keys is one of GitLab Runner.
type Batch struct {
	Scheduler string `toml:"scheduler" enum:",slurm,pbs,lsf,flux" example:"scheduler = \"slurm\"" about:"Batch system whose jobs the runner's jobs run in; without it they run here."`
	Order     string `toml:"order" default:"allocate-first" enum:"allocate-first,take-first" about:"allocate-first: a job is taken from GitLab once a place for it runs, so that its timeout does not run while it waits in the queue. take-first: a job is taken, then a batch job of its own size and time is made for it."`

	Directory      string   `toml:"directory" example:"directory = \"/shared/tranter\"" about:"Directory that this host and the nodes share, for what the two tell each other and, without listen, jobs' logs; one below the state directory unless given."`
	Listen         string   `toml:"listen" example:"listen = \"10.0.0.5:0\"" about:"Address of this host that the nodes can reach: jobs' logs are streamed to it over TLS and lie on the nodes, not in directory. Empty: all goes over directory."`
	LocalDirectory string   `toml:"local_directory" about:"Directory of a node for jobs' files if their logs are streamed; TMPDIR or /tmp unless given."`
	Program        string   `toml:"program" about:"Path of tranter on the nodes; a copy of this program in directory unless given."`
	Prefix         string   `toml:"prefix" default:"tranter" zero:"default" about:"Beginning of the batch jobs' names. It must tell managers apart that share an account; a part of its own is added for each."`
	Before         string   `toml:"before" example:"before = \"module load git\"" about:"Lines of shell that each batch job begins with."`
	Environment    []string `toml:"environment" check:"pair" example:"environment = [\"LANG=C.UTF-8\"]" about:"NAME=VALUE for all that runs in the batch jobs."`

	CommandPrefix  []string      `toml:"command_prefix" example:"command_prefix = [\"ssh\", \"login1\"]" about:"Program and arguments before each of the scheduler's commands."`
	Bin            string        `toml:"bin" about:"Directory of the scheduler's commands; PATH unless given."`
	CommandTimeout time.Duration `toml:"command_timeout" default:"1m" zero:"default" min:"0" about:"How long one of the scheduler's commands may take."`
	PollInterval   time.Duration `toml:"poll_interval" default:"5s" zero:"default" min:"0" about:"Time between two questions to the scheduler, each about all batch jobs."`

	Partition   string        `toml:"partition" about:"Partition, or queue, of batch jobs; the scheduler's default unless given."`
	Account     string        `toml:"account" about:"Account that pays."`
	QOS         string        `toml:"qos" about:"Quality of service."`
	Constraint  string        `toml:"constraint" about:"Features that nodes must have, as the scheduler writes it."`
	Reservation string        `toml:"reservation" about:"Reservation to use."`
	Nodes       int           `toml:"nodes" min:"0" about:"Nodes for each job; 0: as the scheduler has it."`
	CPUs        int           `toml:"cpus" min:"0" about:"Processors for each job; 0: as the scheduler has it."`
	Memory      string        `toml:"memory" check:"memory" example:"memory = \"4g\"" about:"Memory for each job, such as 512m or 4g; empty: as the scheduler has it."`
	GPUs        int           `toml:"gpus" min:"0" about:"GPUs for each job."`
	GPUType     string        `toml:"gpu_type" about:"Type of the GPUs, if it matters."`
	Walltime    time.Duration `toml:"walltime" min:"0" example:"walltime = \"2h\"" about:"Longest run of a batch job. allocate-first needs it: an allocation is there before its job's timeout is known. take-first: jobs get what their timeout needs, at most this; 0: no bound."`
	Exclusive   bool          `toml:"exclusive" about:"Nodes are not shared with other batch jobs."`
	Options     []string      `toml:"options" about:"Further arguments of the scheduler's submit command."`

	Places         int           `toml:"places" default:"1" zero:"default" min:"0" about:"Most jobs of one project and user side by side in one batch job, which is made so much larger."`
	PackWindow     time.Duration `toml:"pack_window" default:"2s" min:"0" about:"How long a job waits for others to share a batch job with, if places is more than 1."`
	Linger         time.Duration `toml:"linger" min:"0" example:"linger = \"5m\"" about:"How long a batch job stays after its last job, for the next one of the same project and user."`
	TakeTimeout    time.Duration `toml:"take_timeout" default:"2m" zero:"default" min:"0" about:"How long a batch job that runs waits for its first job."`
	MaxUses        int           `toml:"max_uses" min:"0" about:"Jobs after which a batch job takes no more; 0: no limit."`
	Margin         time.Duration `toml:"margin" default:"5m" min:"0" about:"Walltime besides a job's timeout, for what comes before and after its script."`
	Attempts       int           `toml:"attempts" default:"3" zero:"default" min:"0" about:"Batch jobs that are made for one job if they die before its script has begun."`
	LostAfter      time.Duration `toml:"lost_after" default:"2m" zero:"default" min:"0" about:"Time without a sign of life after which what runs in a batch job is given up, and ends itself."`
	MaxQueued      int           `toml:"max_queued" min:"0" about:"Most batch jobs that wait; 0: no limit."`
	MaxAllocations int           `toml:"max_allocations" min:"0" about:"Most batch jobs; 0: no limit."`
	MaxPerUser     int           `toml:"max_per_user" min:"0" about:"Most batch jobs of one user, or without users of one project; 0: no limit."`
	SubmitRate     float64       `toml:"submit_rate" default:"5" min:"0" about:"Batch jobs that are submitted in a second; 0: no limit."`
	SubmitBurst    int           `toml:"submit_burst" default:"20" zero:"default" min:"0" about:"Batch jobs that are submitted at once."`

	Allow   BatchAllow   `toml:"allow" shown:"given" about:"What jobs may ask for by variables. What is not in it they can't."`
	Tags    []BatchTag   `toml:"tags" about:"What a job asks for by having a tag."`
	Pending BatchPending `toml:"pending" shown:"given" about:"How jobs that wait are seen, for order allocate-first."`
	Users   BatchUsers   `toml:"users" shown:"given" about:"As whom jobs run, for a manager that runs as root."`
}

// BatchAllow is [runners.batch.allow].
type BatchAllow struct {
	Nodes        string   `toml:"nodes" check:"range" example:"nodes = \"1-4\"" about:"Numbers of nodes, as FROM-TO or one number."`
	CPUs         string   `toml:"cpus" check:"range" example:"cpus = \"1-16\"" about:"Numbers of processors."`
	Memory       string   `toml:"memory" check:"memory_range" example:"memory = \"512m-64g\"" about:"Amounts of memory."`
	GPUs         string   `toml:"gpus" check:"range" example:"gpus = \"0-4\"" about:"Numbers of GPUs."`
	Walltime     string   `toml:"walltime" check:"duration_range" example:"walltime = \"1m-4h\"" about:"Lengths of batch jobs."`
	GPUTypes     []string `toml:"gpu_types" about:"Types of GPUs; * stands for any text, here and below."`
	Partitions   []string `toml:"partitions" about:"Partitions or queues."`
	Accounts     []string `toml:"accounts" about:"Accounts that pay."`
	QOS          []string `toml:"qos" about:"Qualities of service."`
	Constraints  []string `toml:"constraints" about:"Features of nodes."`
	Reservations []string `toml:"reservations" about:"Reservations."`
	Exclusive    bool     `toml:"exclusive" about:"Nodes without other batch jobs."`
	Options      []string `toml:"options" example:"options = [\"--hint=*\", \"--licenses=*\"]" about:"Further arguments of the submit command."`
}

// BatchTag is one [[runners.batch.tags]]: what is not zero or empty holds for jobs with the tag.
type BatchTag struct {
	Tag        string        `toml:"tag" about:"The tag."`
	Nodes      int           `toml:"nodes" min:"0" about:"As in [runners.batch]."`
	CPUs       int           `toml:"cpus" min:"0" about:"As in [runners.batch]."`
	Memory     string        `toml:"memory" check:"memory" about:"As in [runners.batch]."`
	GPUs       int           `toml:"gpus" min:"0" about:"As in [runners.batch]."`
	GPUType    string        `toml:"gpu_type" about:"As in [runners.batch]."`
	Walltime   time.Duration `toml:"walltime" min:"0" about:"As in [runners.batch]."`
	Partition  string        `toml:"partition" about:"As in [runners.batch]."`
	Account    string        `toml:"account" about:"As in [runners.batch]."`
	QOS        string        `toml:"qos" about:"As in [runners.batch]."`
	Constraint string        `toml:"constraint" about:"As in [runners.batch]."`
	Options    []string      `toml:"options" about:"As in [runners.batch]."`
}

// BatchPending is [runners.batch.pending].
type BatchPending struct {
	Token    tranter.Secret `toml:"token" about:"Token of a user that may read the projects' jobs (read_api)."`
	Projects []string       `toml:"projects" example:"projects = [\"group/project\"]" about:"Paths of the projects."`
	Groups   []string       `toml:"groups" about:"Paths of groups, for all projects in them and below."`
	Interval time.Duration  `toml:"interval" default:"10s" zero:"default" min:"0" about:"Time between two looks at each project."`
}

// BatchUsers is [runners.batch.users].
type BatchUsers struct {
	Table   map[string]string `toml:"table" example:"table = { alice = \"asmith\" }" about:"System users by GitLab user names."`
	Command []string          `toml:"command" example:"command = [\"/usr/local/bin/map-user\"]" about:"Program that prints the system user for a GitLab user: it gets the user's name, and as TRANTER_USER_ID and TRANTER_PROJECT more about the job. Nothing printed: none."`
	Same    bool              `toml:"same" about:"A GitLab user runs as the system user of the same name, if there is one."`
	Minimum int               `toml:"minimum_uid" default:"1000" min:"0" about:"Least user id that jobs may run as."`
}
