package remote_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/cache/remote"
)

// tokenService is STS at the wire: it checks who asks, and gives out the keys ROLE-1, ROLE-2 and so on.
type tokenService struct {
	*amazon
	longest time.Duration // that roles grant
	hold    chan struct{} // answers wait for it; nil: they don't

	mu      sync.Mutex
	asked   []url.Values
	at, top int // requests under way
}

func newTokenService(t *testing.T) *tokenService {
	s := &tokenService{longest: time.Hour}
	s.amazon = newAmazon(t, "sts", s.assume)
	return s
}

func (s *tokenService) assume(w http.ResponseWriter, _ *http.Request, body string) {
	form, _ := url.ParseQuery(body)
	s.mu.Lock()
	s.at++
	s.top = max(s.top, s.at)
	s.asked = append(s.asked, form)
	n := len(s.asked)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.at--
		s.mu.Unlock()
	}()
	if s.hold != nil {
		<-s.hold
	}
	duration, _ := time.ParseDuration(form.Get("DurationSeconds") + "s")
	if duration > s.longest {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>ValidationError</Code><Message>The requested DurationSeconds exceeds the MaxSessionDuration set for this role.</Message></Error></ErrorResponse>`)
		return
	}
	fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials><AccessKeyId>ROLE-%d</AccessKeyId><SecretAccessKey>RS</SecretAccessKey><SessionToken>RT</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
		n, now.Add(duration).Format(time.RFC3339))
}

func (s *tokenService) forms() []url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

const role, uploadRole = "arn:aws:iam::1:role/cache", "arn:aws:iam::1:role/upload"

// withRoles returns options for a bucket at which those with a role's keys may sign.
func withRoles(t *testing.T, s *tokenService, roles remote.S3Roles) (remote.S3Options, *amazon) {
	server := newAmazon(t, "s3", s3Answer)
	for i := range 20 {
		server.secrets[fmt.Sprintf("ROLE-%d", i)] = "RS"
	}
	o := keys(server.host())
	o.Roles = roles
	o.Getenv = func(k string) string { return map[string]string{"AWS_ENDPOINT_URL_STS": s.URL}[k] }
	return o, server
}

type policyStatement struct {
	Effect   string
	Action   []string
	Resource string
}

func policyOf(t *testing.T, form url.Values) []policyStatement {
	t.Helper()
	var p struct {
		Version   string
		Statement []policyStatement
	}
	if err := json.Unmarshal([]byte(form.Get("Policy")), &p); err != nil || p.Version != "2012-10-17" {
		t.Fatalf("the policy %q: %v", form.Get("Policy"), err)
	}
	return p.Statement
}

func TestRolesAreLimitedToOneArchiveAndDirection(t *testing.T) {
	s := newTokenService(t)
	o, server := withRoles(t, s, remote.S3Roles{ARN: role})
	o.Encryption = remote.S3Encryption{Type: "KMS", Key: "arn:aws:kms:eu-west-1:1:key/k"}
	r, err := remote.NewS3(o).Sign(t.Context(), remote.Object{Name: "p/a*b?$", Key: "k", Download: true, Upload: true}, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	const resource = "arn:aws:s3:::bucket/p/a${*}b${?}${$}"
	want := map[string][]policyStatement{
		"s3:GetObject": {{"Allow", []string{"s3:GetObject"}, resource}, {"Allow", []string{"kms:Decrypt"}, o.Encryption.Key}},
		"s3:PutObject": {{"Allow", []string{"s3:PutObject", "s3:AbortMultipartUpload"}, resource}, {"Allow", []string{"kms:Decrypt", "kms:GenerateDataKey"}, o.Encryption.Key}},
	}
	for _, form := range s.forms() {
		got := policyOf(t, form)
		if action := got[0].Action[0]; fmt.Sprint(got) != fmt.Sprint(want[action]) {
			t.Errorf("the policy is %v, want %v", got, want[action])
		} else {
			delete(want, action)
		}
		if form.Get("RoleArn") != role || form.Get("DurationSeconds") != "3600" || form.Get("RoleSessionName") == "" {
			t.Errorf("asked for %v", form)
		}
	}
	if len(want) > 0 {
		t.Errorf("no role was assumed for %v", want)
	}
	for _, signed := range []string{r.Download.URL.Reveal(), r.Upload.Whole.URL.Reveal(), part(r.Upload.Parts, 2).URL.Reveal()} {
		if u, _ := url.Parse(signed); !strings.HasPrefix(u.Query().Get("X-Amz-Credential"), "ROLE-") || u.Query().Get("X-Amz-Security-Token") != "RT" {
			t.Errorf("not signed by the role: %s", signed)
		}
	}
	if code, _, body := send(t, part(r.Upload.Parts, 2), nil, nil); code != http.StatusOK {
		t.Errorf("a part gives %d: %s", code, body)
	}
	if len(server.requests()) != 2 {
		t.Errorf("%d requests", len(server.requests()))
	}
}

func TestWhichRoleIsForWhat(t *testing.T) {
	for _, c := range []struct {
		roles        remote.S3Roles
		read, upload string // who signs
	}{
		{remote.S3Roles{}, "", ""},
		{remote.S3Roles{ARN: role}, role, role},
		{remote.S3Roles{UploadARN: uploadRole}, "", uploadRole},
		{remote.S3Roles{ARN: role, UploadARN: uploadRole}, role, uploadRole},
	} {
		s := newTokenService(t)
		o, _ := withRoles(t, s, c.roles)
		if _, err := remote.NewS3(o).Sign(t.Context(), remote.Object{Name: "o", Key: "k", Download: true, Upload: true}, now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		read, upload := "", ""
		for _, form := range s.forms() {
			if policyOf(t, form)[0].Action[0] == "s3:GetObject" {
				read = form.Get("RoleArn")
			} else {
				upload = form.Get("RoleArn")
			}
		}
		if read != c.read || upload != c.upload {
			t.Errorf("%+v: %q reads, %q uploads", c.roles, read, upload)
		}
	}
}

func TestCredentialsOfRolesAreKeptWhileTheyHold(t *testing.T) {
	for _, c := range []struct {
		name    string
		caching bool
		later   time.Duration
		job     time.Duration
		asked   int
	}{
		{"short jobs", true, 0, 10 * time.Minute, 1},
		{"a short job later", true, 49 * time.Minute, 10 * time.Minute, 1},
		{"too late for the job", true, 51 * time.Minute, 10 * time.Minute, 2},
		{"a job without time left needs a minute", true, 59*time.Minute + 30*time.Second, 0, 2},
		{"jobs of an hour", true, 4 * time.Minute, time.Hour, 1},
		{"jobs of an hour, later", true, 6 * time.Minute, time.Hour, 2},
		{"turned off", false, 0, 10 * time.Minute, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newTokenService(t)
			o, _ := withRoles(t, s, remote.S3Roles{ARN: role, NoCaching: !c.caching})
			at := now
			o.Now = func() time.Time { return at }
			backend := remote.NewS3(o)
			for range 2 {
				if _, err := backend.Sign(t.Context(), remote.Object{Name: "o", Download: true}, at.Add(c.job)); err != nil {
					t.Fatal(err)
				}
				at = at.Add(c.later)
			}
			if n := len(s.forms()); n != c.asked {
				t.Errorf("asked %d times, want %d", n, c.asked)
			}
			if _, err := backend.Sign(t.Context(), remote.Object{Name: "other", Download: true}, at.Add(c.job)); err != nil || len(s.forms()) != c.asked+1 {
				t.Errorf("another archive was signed with the same credentials (%v)", err)
			}
		})
	}
}

func TestLongJobsGetWhatTheRoleGrants(t *testing.T) {
	for _, c := range []struct {
		longest time.Duration
		want    []string // durations, over two jobs
	}{
		{12 * time.Hour, []string{"10800", "10800"}},
		{time.Hour, []string{"10800", "3600", "3600"}},
	} {
		s := newTokenService(t)
		s.longest = c.longest
		o, _ := withRoles(t, s, remote.S3Roles{ARN: role, NoCaching: true})
		backend := remote.NewS3(o)
		for range 2 {
			if _, err := backend.Sign(t.Context(), remote.Object{Name: "o", Download: true}, now.Add(3*time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for _, form := range s.forms() {
			got = append(got, form.Get("DurationSeconds"))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("asked for %v, want %v", got, c.want)
		}
	}
}

func TestRolesAreAssumedAFewAtATime(t *testing.T) {
	for limit, want := range map[int]int{0: 5, 2: 2, -1: 8} {
		s := newTokenService(t)
		s.hold = make(chan struct{})
		o, _ := withRoles(t, s, remote.S3Roles{ARN: role, Concurrency: limit})
		var names []string
		for i := range 8 {
			names = append(names, fmt.Sprintf("key-%d", i))
		}
		p := phase("s3", names...)
		p.Steps = p.Steps[:1]
		done := make(chan error, 1)
		go func() { done <- remote.New(remote.NewS3(o)).Sign(t.Context(), p, now.Add(time.Hour)) }()
		for range names {
			select {
			case s.hold <- struct{}{}:
			case <-time.After(10 * time.Second):
				t.Fatalf("limit %d: the roles are not asked for", limit)
			}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if s.top > want || len(s.forms()) != len(names) {
			t.Errorf("limit %d: %d at the same time, %d in all", limit, s.top, len(s.forms()))
		}
	}
}

func TestARefusedRoleIsTold(t *testing.T) {
	s := newTokenService(t)
	s.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized to perform sts:AssumeRole</Message></Error></ErrorResponse>`)
	}
	o, _ := withRoles(t, s, remote.S3Roles{ARN: role})
	p := phase("s3", "a", "b")
	err := remote.New(remote.NewS3(o)).Sign(t.Context(), p, now.Add(time.Hour))
	if err == nil || !strings.Contains(err.Error(), "assume the role "+role+": AccessDenied: not authorized") || strings.Count(err.Error(), "AccessDenied") != 1 {
		t.Errorf("got %v", err)
	}
}
