package config

import (
	"time"

	"github.com/tranter-ci/tranter"
)

// Kubernetes is [runners.kubernetes]. GitLab Runner has more keys than are named here; the others are read as well and
// end up in More.
type Kubernetes struct {
	Host        string         `toml:"host" flag:"host" about:"Address of the API server; found out from the environment unless given."`
	Context     string         `toml:"context" flag:"context" env:"KUBECTL_CONTEXT" about:"Context of the kubectl configuration."`
	CertFile    string         `toml:"cert_file" flag:"cert-file" about:"Client certificate."`
	KeyFile     string         `toml:"key_file" flag:"key-file" about:"Key of the client certificate."`
	CAFile      string         `toml:"ca_file" flag:"ca-file" about:"Certificate authorities of the API server."`
	BearerToken tranter.Secret `toml:"bearer_token" flag:"bearer_token" about:"Token for the API server."`
	Image       string         `toml:"image" flag:"image" about:"Image of a job that names none."`

	Namespace                string `toml:"namespace" flag:"namespace" about:"Namespace of the pods."`
	NamespaceOverwrite       string `toml:"namespace_overwrite_allowed" flag:"namespace_overwrite_allowed" about:"Regular expression of namespaces that jobs may choose."`
	NamespacePerJob          bool   `toml:"namespace_per_job" flag:"namespace_per_job" about:"A namespace per job."`
	Privileged               bool   `toml:"privileged" flag:"privileged" about:"Run containers with all rights on the node."`
	AllowPrivilegeEscalation bool   `toml:"allow_privilege_escalation" flag:"allow-privilege-escalation" about:"Let processes gain rights."`
	RuntimeClassName         string `toml:"runtime_class_name" flag:"runtime-class-name" about:"Runtime class of the pods."`

	CPULimit                string `toml:"cpu_limit" flag:"cpu-limit" about:"Processor limit of the build container."`
	CPULimitMax             string `toml:"cpu_limit_overwrite_max_allowed" flag:"cpu-limit-overwrite-max-allowed" about:"Most that a job may ask for."`
	CPURequest              string `toml:"cpu_request" flag:"cpu-request" about:"Processors reserved for the build container."`
	CPURequestMax           string `toml:"cpu_request_overwrite_max_allowed" flag:"cpu-request-overwrite-max-allowed" about:"Most that a job may ask for."`
	MemoryLimit             string `toml:"memory_limit" flag:"memory-limit" about:"Memory limit of the build container."`
	MemoryLimitMax          string `toml:"memory_limit_overwrite_max_allowed" flag:"memory-limit-overwrite-max-allowed" about:"Most that a job may ask for."`
	MemoryRequest           string `toml:"memory_request" flag:"memory-request" about:"Memory reserved for the build container."`
	MemoryRequestMax        string `toml:"memory_request_overwrite_max_allowed" flag:"memory-request-overwrite-max-allowed" about:"Most that a job may ask for."`
	EphemeralStorageLimit   string `toml:"ephemeral_storage_limit" flag:"ephemeral-storage-limit" about:"Disk limit of the build container."`
	EphemeralStorageRequest string `toml:"ephemeral_storage_request" flag:"ephemeral-storage-request" about:"Disk reserved for the build container."`
	ServiceCPULimit         string `toml:"service_cpu_limit" flag:"service-cpu-limit" about:"Processor limit of service containers."`
	ServiceCPURequest       string `toml:"service_cpu_request" flag:"service-cpu-request" about:"Processors reserved for service containers."`
	ServiceMemoryLimit      string `toml:"service_memory_limit" flag:"service-memory-limit" about:"Memory limit of service containers."`
	ServiceMemoryRequest    string `toml:"service_memory_request" flag:"service-memory-request" about:"Memory reserved for service containers."`
	HelperCPULimit          string `toml:"helper_cpu_limit" flag:"helper-cpu-limit" about:"Processor limit of the helper container."`
	HelperCPURequest        string `toml:"helper_cpu_request" flag:"helper-cpu-request" about:"Processors reserved for the helper container."`
	HelperMemoryLimit       string `toml:"helper_memory_limit" flag:"helper-memory-limit" about:"Memory limit of the helper container."`
	HelperMemoryRequest     string `toml:"helper_memory_request" flag:"helper-memory-request" about:"Memory reserved for the helper container."`
	PodCPULimit             string `toml:"pod_cpu_limit" flag:"pod-cpu-limit" about:"Processor limit of the pod."`
	PodCPURequest           string `toml:"pod_cpu_request" flag:"pod-cpu-request" about:"Processors reserved for the pod."`
	PodMemoryLimit          string `toml:"pod_memory_limit" flag:"pod-memory-limit" about:"Memory limit of the pod."`
	PodMemoryRequest        string `toml:"pod_memory_request" flag:"pod-memory-request" about:"Memory reserved for the pod."`

	AllowedImages       []string  `toml:"allowed_images" flag:"allowed-images" about:"Patterns of images that jobs may use."`
	AllowedServices     []string  `toml:"allowed_services" flag:"allowed-services" about:"Patterns of services that jobs may use."`
	AllowedUsers        []string  `toml:"allowed_users" flag:"allowed-users" about:"Users that jobs may choose."`
	AllowedGroups       []string  `toml:"allowed_groups" flag:"allowed-groups" about:"Groups that jobs may choose."`
	AllowedPullPolicies []string  `toml:"allowed_pull_policies" flag:"allowed-pull-policies" about:"Pull policies that jobs may ask for."`
	PullPolicy          OneOrMany `toml:"pull_policy" flag:"pull-policy" about:"When images are pulled."`
	ImagePullSecrets    []string  `toml:"image_pull_secrets" flag:"image-pull-secrets" about:"Secrets for pulling images."`
	HelperImage         string    `toml:"helper_image" flag:"helper-image" about:"Image of the helper container."`
	HelperImageFlavor   string    `toml:"helper_image_flavor" flag:"helper-image-flavor" about:"Flavour of the bundled helper image."`
	HelperImageAutoset  bool      `toml:"helper_image_autoset_arch_and_os" flag:"helper-image-autoset-arch-and-os" about:"Choose the helper image for the node's system."`

	NodeSelector          map[string]string `toml:"node_selector" flag:"node-selector" about:"Labels of nodes that may run the pods."`
	NodeTolerations       map[string]string `toml:"node_tolerations" flag:"node-tolerations" about:"Taints that the pods tolerate."`
	Affinity              map[string]any    `toml:"affinity" about:"Affinity of the pods."`
	PodLabels             map[string]string `toml:"pod_labels" flag:"pod-labels" about:"Labels of the pods."`
	PodAnnotations        map[string]string `toml:"pod_annotations" flag:"pod-annotations" about:"Annotations of the pods."`
	ServiceAccount        string            `toml:"service_account" flag:"service-account" about:"Service account of the pods."`
	AutomountToken        Optional[bool]    `toml:"automount_service_account_token" about:"Mount the service account's token."`
	PriorityClassName     string            `toml:"priority_class_name" flag:"priority_class_name" about:"Priority class of the pods."`
	SchedulerName         string            `toml:"scheduler_name" flag:"scheduler-name" about:"Scheduler of the pods."`
	CapAdd                []string          `toml:"cap_add" flag:"cap-add" about:"Capabilities to add."`
	CapDrop               []string          `toml:"cap_drop" flag:"cap-drop" about:"Capabilities to drop."`
	DNSPolicy             string            `toml:"dns_policy" flag:"dns-policy" about:"DNS policy of the pods."`
	DNSConfig             map[string]any    `toml:"dns_config" about:"DNS settings of the pods."`
	PodSecurityContext    map[string]any    `toml:"pod_security_context" about:"Security context of the pods."`
	BuildSecurityContext  map[string]any    `toml:"build_container_security_context" about:"Security context of the build container."`
	HelperSecurityContext map[string]any    `toml:"helper_container_security_context" about:"Security context of the helper container."`
	ServiceSecurity       map[string]any    `toml:"service_container_security_context" about:"Security context of service containers."`
	Volumes               map[string]any    `toml:"volumes" about:"Volumes: host_path, pvc, config_map, secret, empty_dir, csi, nfs."`
	HostAliases           []map[string]any  `toml:"host_aliases" about:"Further host names."`
	Services              []Service         `toml:"services" strings:"name" about:"Services that every job gets."`
	ContainerLifecycle    map[string]any    `toml:"container_lifecycle" about:"Hooks of the containers."`
	PodSpec               []map[string]any  `toml:"pod_spec" about:"Patches of the pod's specification."`

	PollInterval        int            `toml:"poll_interval" flag:"poll-interval" default:"3" zero:"default" min:"0" about:"Seconds between two looks at a pod."`
	PollTimeout         int            `toml:"poll_timeout" flag:"poll-timeout" default:"180" zero:"default" min:"0" about:"Seconds that a pod may take to start."`
	CleanupGracePeriod  Optional[int]  `toml:"cleanup_grace_period_seconds" flag:"cleanup-grace-period-seconds" about:"Seconds that a pod gets to end."`
	PodTermination      Optional[int]  `toml:"pod_termination_grace_period_seconds" flag:"pod-termination-grace-period-seconds" about:"Seconds that processes of a pod get to end."`
	CleanupTimeout      time.Duration  `toml:"cleanup_resources_timeout" flag:"cleanup-resources-timeout" default:"5m" zero:"default" min:"0" about:"Longest removal of what was made for a job."`
	RetryLimit          int            `toml:"retry_limit" flag:"retry-limit" default:"5" zero:"default" min:"0" about:"Tries to reach the API server."`
	RetryBackoffMax     int            `toml:"retry_backoff_max" flag:"retry-backoff-max" default:"2000" zero:"default" min:"0" about:"Longest wait between them, in milliseconds."`
	RetryLimits         map[string]any `toml:"retry_limits" about:"Tries by text of the error."`
	LogsBaseDir         string         `toml:"logs_base_dir" flag:"logs-base-dir" about:"Directory for logs in the pod."`
	ScriptsBaseDir      string         `toml:"scripts_base_dir" flag:"scripts-base-dir" about:"Directory for scripts in the pod."`
	PrintWarningEvents  Optional[bool] `toml:"print_pod_warning_events" flag:"print-pod-warning-events" about:"Write warnings about the pod to the job's log; true unless given."`
	PodDisruptionBudget Optional[bool] `toml:"pod_disruption_budget" flag:"pod-disruption-budget" about:"Protect pods from voluntary eviction."`
	Autoscaler          map[string]any `toml:"autoscaler" about:"Pods that hold capacity free."`
	More                map[string]any `toml:",rest"`
}
