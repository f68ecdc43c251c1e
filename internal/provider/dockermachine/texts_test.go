package dockermachine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provider/dockermachine/plugin"
)

func kind(err error) string {
	switch _, throttled := errors.AsType[*tranter.ThrottledError](err); {
	case throttled:
		return "throttled"
	case errors.Is(err, tranter.ErrNoCapacity):
		return "capacity"
	case errors.Is(err, tranter.ErrRejected):
		return "rejected"
	}
	return "passing"
}

func TestErrorsOfDriversAreToldApartByTheirTexts(t *testing.T) {
	for _, c := range []struct{ driver, want, text string }{
		{"amazonec2", "throttled", "RequestLimitExceeded: Request limit exceeded.\n\tstatus code: 503, request id: 5c0a4290-1"},
		{"amazonec2", "throttled", "Throttling: Rate exceeded\n\tstatus code: 400, request id: 1"},
		{"amazonec2", "capacity", "Error launching instance: InsufficientInstanceCapacity: We currently do not have sufficient m5.large capacity in the Availability Zone you requested (us-east-1a).\n\tstatus code: 500"},
		{"amazonec2", "capacity", "InstanceLimitExceeded: You have requested more instances (21) than your current instance limit of 20 allows\n\tstatus code: 400"},
		{"amazonec2", "capacity", "VcpuLimitExceeded: You have requested more vCPU capacity than your current vCPU limit of 32 allows"},
		{"amazonec2", "capacity", "MaxSpotInstanceCountExceeded: Max spot instance count exceeded"},
		{"amazonec2", "capacity", "InsufficientFreeAddressesInSubnet: There are not enough free addresses in subnet 'subnet-1'"},
		{"amazonec2", "rejected", "InvalidAMIID.NotFound: The image id '[ami-1]' does not exist\n\tstatus code: 400"},
		{"amazonec2", "rejected", "AuthFailure: AWS was not able to validate the provided access credentials\n\tstatus code: 401"},
		{"amazonec2", "rejected", "UnauthorizedOperation: You are not authorized to perform this operation.\n\tstatus code: 403"},
		{"amazonec2", "rejected", "InvalidParameterValue: Invalid availability zone: [eu-west-1z]"},
		{"amazonec2", "passing", "InvalidInstanceID.NotFound: The instance ID 'i-0a' does not exist\n\tstatus code: 400"},
		{"amazonec2", "passing", "RequestError: send request failed\ncaused by: Post https://ec2.amazonaws.com/: dial tcp: lookup ec2.amazonaws.com: no such host"},
		{"google", "capacity", "googleapi: Error 403: Quota 'CPUS' exceeded.  Limit: 24.0 in region us-central1., quotaExceeded"},
		{"google", "capacity", "Operation error: {ZONE_RESOURCE_POOL_EXHAUSTED  The zone 'projects/p/zones/us-east1-b' does not have enough resources available to fulfill the request.}"},
		{"google", "throttled", "googleapi: Error 403: Rate Limit Exceeded, rateLimitExceeded"},
		{"google", "throttled", "googleapi: Error 403: Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service 'compute.googleapis.com', rateLimitExceeded"},
		{"google", "rejected", "googleapi: Error 404: The resource 'projects/p/global/images/x' was not found, notFound"},
		{"google", "rejected", "google: could not find default credentials. See https://developers.google.com/accounts/docs/application-default-credentials"},
		{"google", "rejected", "googleapi: Error 403: Required 'compute.instances.create' permission for 'projects/p', forbidden"},
		{"google", "passing", "googleapi: Error 503: Backend Error, backendError"},
		{"azure", "capacity", "compute.VirtualMachinesClient#CreateOrUpdate: Failure: StatusCode=409 -- Code=\"OperationNotAllowed\" Message=\"Operation could not be completed as it results in exceeding approved Total Regional Cores quota.\""},
		{"azure", "capacity", "Code=\"AllocationFailed\" Message=\"Allocation failed. We do not have sufficient capacity for the requested VM size in this region.\""},
		{"azure", "capacity", "Code=\"SkuNotAvailable\" Message=\"The requested size is currently not available in location 'westeurope'\""},
		{"azure", "throttled", "StatusCode=429 -- Code=\"TooManyRequests\" Message=\"The request is being throttled. Retry after 17 seconds.\""},
		{"azure", "rejected", "StatusCode=401 -- Original Error: Code=\"InvalidAuthenticationToken\""},
		{"digitalocean", "capacity", "POST https://api.digitalocean.com/v2/droplets: 422 (request \"x\") creating this/these droplet(s) will exceed your droplet limit"},
		{"digitalocean", "throttled", "POST https://api.digitalocean.com/v2/droplets: 429 (request \"x\") Too many requests"},
		{"digitalocean", "rejected", "POST https://api.digitalocean.com/v2/droplets: 422 You specified an invalid image for Droplet creation."},
		{"digitalocean", "rejected", "GET https://api.digitalocean.com/v2/regions: 401 Unable to authenticate you"},
		{"digitalocean", "rejected", "digitalocean driver requires the --digitalocean-access-token option"},
		{"hetzner", "capacity", "error during placement (resource_unavailable)"},
		{"hetzner", "capacity", "could not create server: server limit reached (resource_limit_exceeded)"},
		{"hetzner", "throttled", "limit of 3600 requests per hour reached (rate_limit_exceeded)"},
		{"hetzner", "rejected", "could not get server type: unable to authenticate (unauthorized)"},
		{"hetzner", "rejected", "could not create server: unsupported location for server type (invalid_input)"},
		{"hetzner", "rejected", "image debian-4 not found"},
		{"linode", "throttled", "[429] Too many requests"},
		{"linode", "capacity", "[400] Account Limit reached. Please open a support ticket."},
		{"linode", "rejected", "[401] Invalid Token"},
		{"linode", "rejected", "[400] [image] image is not valid"},
		{"openstack", "capacity", "Quota exceeded for cores, instances: Requested 4, 1, but already used 20, 10 of 20 cores, 10 instances"},
		{"openstack", "capacity", "No valid host was found. There are not enough hosts available."},
		{"openstack", "throttled", "Expected HTTP response code [200 203] when accessing [GET https://x/v2], but got 429 instead"},
		{"openstack", "rejected", "Image ID or Image name must be specified using the CLI option --openstack-image-id or --openstack-image-name"},
		{"openstack", "rejected", "Authentication failed"},
		{"otc", "capacity", "Ecs.0319: the flavor s3.large.2 is sold out in the AZ"},
		{"vultr", "capacity", "unable to create server: Server add failed: You have reached the maximum monthly fee limit for this account"},
		{"vultr", "rejected", "Invalid API token."},
		{"exoscale", "rejected", "unknown template or not found"},
		{"any", "passing", "Post \"https://api/v1/servers\": net/http: TLS handshake timeout"},
		{"any", "passing", "Maximum number of retries (60) exceeded"},
		{"any", "passing", "error 500: internal server error"},
		{"any", "passing", "something that nobody has met yet"},
		{"any", "passing", "created 10.4.29.429"},
		{"any", "passing", ""},
	} {
		err := classify(&plugin.DriverError{Driver: c.driver, Method: "Create", Text: c.text})
		if got := kind(err); got != c.want {
			t.Errorf("%s: %q is %s, want %s", c.driver, c.text, got, c.want)
		}
		if !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: the text is lost: %v", c.driver, err)
		}
	}
	other := errors.New("quota")
	if got := classify(other); kind(got) != "passing" || !errors.Is(got, other) {
		t.Errorf("an error of ours becomes %v", got)
	}
}

func TestThrottlingSaysForHowLong(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"retry after 17 seconds.": 17 * time.Second,
		"retry-after: 30":         30 * time.Second,
		"try again, retry in 2m":  2 * time.Minute,
		"retry after 500ms":       500 * time.Millisecond,
		"too many requests":       0,
		"retry after 99999999999": 0,
	} {
		if got := retryAfter(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestTheAbsenceOfAMachineIsToldFromThatOfSomethingElse(t *testing.T) {
	for text, want := range map[string]bool{
		"googleapi: Error 404: The resource 'projects/p/zones/z/instances/m' was not found, notFound": true,
		"error 404: No such container: lab-1":                               true,
		"InvalidInstanceID.NotFound: The instance ID 'i-0a' does not exist": true,
		"server not found (not_found)":                                      true,
		"[404] Not found":                                                   true,
		"machine does not exist":                                            true,
		"Resource not found":                                                true,
		"unable to delete server: Invalid server. {\"error\":\"not found\",\"status\":404}": true,
		"exec: \"VBoxManage\": executable file not found in $PATH":                          false,
		"dial tcp: lookup api.hetzner.cloud: no such host":                                  false,
		"InvalidKeyPair.NotFound: The key pair 'm' does not exist":                          false,
		"project 'p' not found":  false,
		"ssh key 'x' not found":  false,
		"unable to authenticate": false,
		"internal server error":  false,
	} {
		if got := absent(&plugin.DriverError{Text: text}); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	if absent(errors.New("not found")) || absent(nil) {
		t.Error("an error of ours speaks of a machine")
	}
}

func TestDockerMachinesOwnOptionsAreSplitOff(t *testing.T) {
	driver, engine := Split([]string{
		"hetzner-image=debian-12", "engine-opt=a=b", "--engine-opt=live-restore", "engine-env=K=V", "engine-label=l=1",
		"engine-registry-mirror=https://m", "engine-insecure-registry=r", "engine-storage-driver=overlay2",
		"engine-install-url=https://i", "tls-san=n1", "tls-san=n2", "swarm", "swarm-master", "engine-opt", "hetzner-use-private-network",
	})
	want := Engine{
		Options: []string{"a=b", "live-restore"}, Environment: []string{"K=V"}, Labels: []string{"l=1"}, Mirrors: []string{"https://m"},
		Insecure: []string{"r"}, StorageDriver: "overlay2", InstallURL: "https://i", Names: []string{"n1", "n2"}, Swarm: []string{"swarm", "swarm-master"},
	}
	if !reflect.DeepEqual(engine, want) {
		t.Errorf("engine %+v, want %+v", engine, want)
	}
	left := []string{"hetzner-image=debian-12", "engine-install-url=https://i", "swarm-master", "engine-opt", "hetzner-use-private-network"}
	if !slices.Equal(driver, left) {
		t.Errorf("driver %q, want %q", driver, left)
	}
}

func flags() []plugin.Flag {
	return []plugin.Flag{
		{Name: "x-text", EnvVar: "X_TEXT", Default: "old"},
		{Name: "x-number", EnvVar: "X_N,X_NUMBER", Default: 3},
		{Name: "x-list", EnvVar: "X_LIST", Default: []string{"d"}},
		{Name: "x-switch", EnvVar: "X_SWITCH", Default: false},
	}
}

func TestOptionsComeBeforeVariablesAndTheseBeforeDefaults(t *testing.T) {
	for what, c := range map[string]struct {
		options   []string
		variables map[string]string
		want      map[string]any
	}{
		"defaults":  {nil, nil, map[string]any{"x-text": "old", "x-number": 3, "x-list": []string{"d"}, "x-switch": false}},
		"variables": {nil, map[string]string{"X_TEXT": "v", "X_NUMBER": "0x10", "X_LIST": "a, b", "X_SWITCH": "1"}, map[string]any{"x-text": "v", "x-number": 16, "x-list": []string{"a", "b"}, "x-switch": true}},
		"options": {
			[]string{"x-text=a=b", "--x-number=1", "x-list=a,b", "x-list=c", "x-switch", "x-number=2"},
			map[string]string{"X_TEXT": "v", "X_LIST": "z"},
			map[string]any{"x-text": "a=b", "x-number": 2, "x-list": []string{"a,b", "c"}, "x-switch": true},
		},
		"switched off": {[]string{"x-switch=false", "x-text="}, map[string]string{"X_SWITCH": "true"}, map[string]any{"x-text": "", "x-number": 3, "x-list": []string{"d"}, "x-switch": false}},
	} {
		got, err := resolve("x", flags(), c.options, func(name string) string { return c.variables[name] })
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v, %v, want %v", what, got, err, c.want)
		}
	}
	_, err := resolve("x", flags(), nil, func(string) string { return "text" })
	if err == nil || !strings.Contains(err.Error(), "variable X_N: expected a whole number") || !strings.Contains(err.Error(), "variable X_SWITCH: expected true or false") {
		t.Errorf("wrong variables: %v", err)
	}
}

func TestTheNearestOptionIsNamed(t *testing.T) {
	for given, want := range map[string]string{
		"x-txt": "x-text", "x-numbr": "x-number", "list": "x-list", "x_switch": "x-switch", "qqqqqqqq": "", strings.Repeat("x", 1000): "",
	} {
		err := unknown("x", given, flags())
		if got := strings.Contains(err.Error(), "nearest"); got != (want != "") || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", given, err, want)
		}
	}
}

func TestEditsAreADistance(t *testing.T) {
	word := rapid.StringMatching(`[abc]{0,8}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := word.Draw(t, "a"), word.Draw(t, "b"), word.Draw(t, "c")
		if ab, ba := edits(a, b), edits(b, a); ab != ba || (ab == 0) != (a == b) || ab > max(len(a), len(b)) {
			t.Fatalf("edits %q %q: %d and %d", a, b, ab, ba)
		}
		if edits(a, c) > edits(a, b)+edits(b, c) {
			t.Fatalf("the way over %q is shorter than the direct one from %q to %q", b, a, c)
		}
	})
}

func TestAnIDIsFoundInTheStatesOfDrivers(t *testing.T) {
	for _, c := range []struct {
		driver, before, now, id string
		named                   bool
	}{
		{"amazonec2", `{"InstanceId":""}`, `{"InstanceId":"","SecurityGroupIds":["sg-1"],"KeyName":"m"}`, "", false},
		{"amazonec2", `{"InstanceId":""}`, `{"InstanceId":"i-1"}`, "i-1", true},
		{"digitalocean", `{"DropletID":0}`, `{"DropletID":0,"SSHKeyID":7}`, "0", false},
		{"digitalocean", `{"DropletID":0}`, `{"DropletID":12345678901234567}`, "12345678901234567", true},
		{"/opt/docker-machine-driver-hetzner", `{"ServerID":0,"KeyID":0}`, `{"ServerID":0,"KeyID":5}`, "0", false},
		{"hetzner", `{"ServerID":0}`, `{"ServerID":5}`, "5", true},
		{"google", `{}`, `{}`, "", true},
		{"other", `{"VMID":"","KeyPairId":""}`, `{"VMID":"","KeyPairId":"k"}`, "", false},
		{"other", `{"VMID":"","KeyPairId":""}`, `{"VMID":"v","KeyPairId":"k"}`, "v", true},
		{"other", `{"InstanceID":{"Value":"","Managed":false}}`, `{"InstanceID":{"Value":"u","Managed":true}}`, "", true},
		{"other", `{"IPAddress":"","id":""}`, `{"IPAddress":"10.0.0.1","id":""}`, "", true},
		{"other", `{"SSHKeyPath":"","Name":"n"}`, `{"SSHKeyPath":"/k","Name":"n"}`, "", false},
		{"other", `{"Domain":""}`, `{"Domain":"d"}`, "", true},
		{"other", `{broken`, `{broken`, "", false},
	} {
		if got := named(c.driver, []byte(c.before), []byte(c.now)); got != c.named {
			t.Errorf("%s: from %s to %s: named %v, want %v", c.driver, c.before, c.now, got, c.named)
		}
		if got := machineID(c.driver, []byte(c.now)); c.id != "" && got != c.id {
			t.Errorf("%s: %s: id %q, want %q", c.driver, c.now, got, c.id)
		}
	}
}

func TestMarksAreWrittenAsDriversWantThem(t *testing.T) {
	values := map[string]any{
		"amazonec2-tags": "Name,x", "digitalocean-tags": "", "hetzner-server-label": []string{"a=b"}, "google-label": []string{}, "other": "x",
	}
	putMark(values, tranter.Mark{Owner: "00ff", Pool: "Ab/c"})
	want := map[string]any{
		"amazonec2-tags": "Name,x,tranter-owner,00ff,tranter-pool,ab-c", "digitalocean-tags": "tranter-owner-00ff,tranter-pool-ab-c",
		"hetzner-server-label": []string{"a=b", "tranter-owner=00ff", "tranter-pool=ab-c"},
		"google-label":         []string{"tranter-owner:00ff", "tranter-pool:ab-c"}, "other": "x",
	}
	if !reflect.DeepEqual(values, want) {
		t.Errorf("got %v, want %v", values, want)
	}
	before := fmt.Sprint(values)
	if putMark(values, tranter.Mark{}); fmt.Sprint(values) != before {
		t.Errorf("no mark changes the options: %v", values)
	}
}

func TestTemplatesAreTakenWhereFilesOfUserDataAre(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.tmpl")
	if err := os.WriteFile(file, []byte("{{.Pool}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	values := map[string]any{
		"google-metadata-from-file": []string{"user-data=" + file, "other=/b", "plain"}, "hetzner-user-data": "text\nx.tmpl",
		"otc-user-data-file": file, "hetzner-image": "x.tmpl", "amazonec2-userdata": "",
	}
	if err := fillTemplates(values, dir, tranter.MachineSpec{Mark: tranter.Mark{Pool: "p"}}); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"google-metadata-from-file": []string{"user-data=" + filepath.Join(dir, "google-metadata-from-file-0"), "other=/b", "plain"},
		"hetzner-user-data":         "text\nx.tmpl", "otc-user-data-file": filepath.Join(dir, "otc-user-data-file"),
		"hetzner-image": "x.tmpl", "amazonec2-userdata": "",
	}
	if !reflect.DeepEqual(values, want) {
		t.Errorf("got %v, want %v", values, want)
	}
}

func TestSecretsAreFoundByTheirNames(t *testing.T) {
	got := secretsIn([]byte(`{"AccessToken":"abcd","SSHKeyPath":"/key","Deep":{"api_key":"efgh"},"Password":"abc","Name":"name","TokenFile":"/t"}`))
	slices.Sort(got)
	if want := []string{"abcd", "efgh"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	got = secretValues(map[string]any{"x-api-token": "abcd", "x-secret-access-key": "efgh", "x-name": "name", "x-token": 5})
	slices.Sort(got)
	if want := []string{"abcd", "efgh"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTheBetterReferenceWins(t *testing.T) {
	p, err := New(Options{Driver: "x", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	intent, id := []byte(`{"driver":"x","config":{"a":1},"changed":false}`), []byte(`{"driver":"x","config":{"a":2},"changed":true}`)
	for what, c := range map[string]struct {
		kept, given []byte
		want        string
		wrong       bool
	}{
		"nothing":              {nil, nil, "", false},
		"only the folder":      {id, nil, `{"a":2}`, false},
		"only the caller":      {nil, intent, `{"a":1}`, false},
		"the folder is newer":  {id, intent, `{"a":2}`, false},
		"the caller is newer":  {intent, id, `{"a":2}`, false},
		"the caller's is lost": {id, []byte("x"), `{"a":2}`, false},
		"both are lost":        {[]byte("x"), []byte("x"), "", true},
		"the folder's is lost": {[]byte("x"), nil, "", true},
		"the caller has it":    {[]byte("x"), id, `{"a":2}`, false},
	} {
		name := strings.ReplaceAll(strings.ReplaceAll(what, " ", "-"), "'", "")
		if c.kept != nil {
			if err := p.folder.keep(name, c.kept); err != nil {
				t.Fatal(err)
			}
		}
		r, found, err := p.folder.latest(name, c.given)
		if string(r.Config) != c.want || (err != nil) != c.wrong || found != (c.want != "") {
			t.Errorf("%s: got %s, %v, %v", what, r.Config, found, err)
		}
	}
}

func FuzzAnyStateOfADriverIsRead(f *testing.F) {
	f.Add("hetzner", []byte(`{"ServerID":5,"Token":"much-secret","a":[{"b":{"c":{"d":{"e":1}}}}]}`))
	f.Fuzz(func(t *testing.T, driver string, raw []byte) {
		named(driver, []byte(`{}`), raw)
		machineID(driver, raw)
		secretsIn(raw)
		if r, err := parseRef(raw); err == nil {
			if _, err := r.raw(); err != nil {
				t.Fatalf("a reference that is read can't be written: %v", err)
			}
		}
	})
}
