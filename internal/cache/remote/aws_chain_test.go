package remote_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cache/remote"
)

// metadataService gives credentials as a container service and as a machine do.
func metadataService(t *testing.T) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := ""
		switch {
		case r.URL.Path == "/container" && r.Header.Get("Authorization") == "token":
			key = "CONTAINER"
		case r.URL.Path == "/latest/api/token" && r.Method == http.MethodPut:
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
			_, _ = w.Write([]byte("imds-token"))
			return
		case r.Header.Get("X-Aws-Ec2-Metadata-Token") != "imds-token":
			http.Error(w, "no token", http.StatusUnauthorized)
			return
		case strings.HasSuffix(r.URL.Path, "/security-credentials/"):
			_, _ = w.Write([]byte("role"))
			return
		case strings.HasSuffix(r.URL.Path, "/security-credentials/role"):
			key = "MACHINE"
		}
		fmt.Fprintf(w, `{"Code":"Success","AccessKeyId":%q,"SecretAccessKey":"s","Token":"t","Expiration":%q}`, key, time.Now().Add(6*time.Hour).UTC().Format(time.RFC3339))
	}))
	t.Cleanup(server.Close)
	return server
}

// whoSigns returns the access key with which a bucket's requests are signed in an environment with files.
func whoSigns(t *testing.T, env, files map[string]string) (string, error) {
	t.Helper()
	return whoSignsBy(t, nil, env, files)
}

func whoSignsBy(t *testing.T, client *http.Client, env, files map[string]string) (string, error) {
	t.Helper()
	o := keys("")
	o.Endpoint = remote.S3Endpoint{}
	o.Credentials = remote.S3Credentials{}
	o.Client = client
	o.Getenv = func(k string) string { return env[k] }
	o.Read = func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, os.ErrNotExist
	}
	r, err := remote.NewS3(o).Sign(t.Context(), remote.Object{Name: "o", Download: true}, now.Add(time.Hour))
	if err != nil {
		return "", err
	}
	u, err := url.Parse(r.Download.URL.Reveal())
	key, _, _ := strings.Cut(u.Query().Get("X-Amz-Credential"), "/")
	return key, err
}

const credentialsFile = `# of all
[default]
aws_access_key_id = DEFAULT
aws_secret_access_key = s

[other]
aws_access_key_id=OTHER
aws_secret_access_key=s # with a comment
`

const configFile = `[default]
region = eu-west-1
s3 =
  aws_access_key_id = NESTED
[profile cross]
role_arn = arn:aws:iam::1:role/cross
source_profile = other
[profile process]
credential_process = echo '{"Version":1,"AccessKeyId":"PROCESS","SecretAccessKey":"s"}'
[profile named]
role_arn = arn:aws:iam::1:role/named
credential_source = Environment
[profile sso]
sso_session = x
[profile loop]
role_arn = arn:aws:iam::1:role/loop
source_profile = pool
[profile pool]
role_arn = arn:aws:iam::1:role/pool
source_profile = loop
[not-a-profile]
aws_access_key_id = WRONG
`

func TestCredentialsAreFoundWhereAmazonsProgramsFindThem(t *testing.T) {
	service := metadataService(t)
	var asked url.Values
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		asked = r.PostForm
		kind := "AssumeRole"
		if asked.Get("WebIdentityToken") == "jwt" {
			kind = "AssumeRoleWithWebIdentity"
		}
		if asked.Get("Action") != kind || (kind == "AssumeRole") != (r.Header.Get("Authorization") != "") {
			t.Errorf("%s with %q", asked.Get("Action"), r.Header.Get("Authorization"))
		}
		by := strings.TrimPrefix(between(r.Header.Get("Authorization"), "Credential=", "/"), "AWS4")
		fmt.Fprintf(w, `<%[1]sResponse><%[1]sResult><Credentials><AccessKeyId>%[2]s-BY-%[3]s</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%[4]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
			kind, asked.Get("RoleArn")[len("arn:aws:iam::1:role/"):], by, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	t.Cleanup(sts.Close)
	both := map[string]string{"/home/ci/.aws/credentials": credentialsFile, "/home/ci/.aws/config": configFile, "/jwt": "jwt\n", "/auth": "token\n"}
	env := func(pairs ...string) map[string]string {
		m := map[string]string{"HOME": "/home/ci", "AWS_ENDPOINT_URL_STS": sts.URL, "AWS_EC2_METADATA_SERVICE_ENDPOINT": service.URL}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	for _, c := range []struct {
		name  string
		env   map[string]string
		files map[string]string
		want  string
	}{
		{"environment", env("AWS_ACCESS_KEY_ID", "ENV", "AWS_SECRET_ACCESS_KEY", "s", "AWS_WEB_IDENTITY_TOKEN_FILE", "/jwt"), both, "ENV"},
		{"web identity", env("AWS_WEB_IDENTITY_TOKEN_FILE", "/jwt", "AWS_ROLE_ARN", "arn:aws:iam::1:role/pod"), both, "pod-BY-"},
		{"default profile", env(), both, "DEFAULT"},
		{"another profile", env("AWS_PROFILE", "other"), both, "OTHER"},
		{"other files", env("AWS_SHARED_CREDENTIALS_FILE", "/etc/c"), map[string]string{"/etc/c": "[default]\naws_access_key_id=ETC\naws_secret_access_key=s\n"}, "ETC"},
		{"a role by another profile", env("AWS_PROFILE", "cross"), both, "cross-BY-OTHER"},
		{"a program", env("AWS_PROFILE", "process"), both, "PROCESS"},
		{"container", env("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.URL+"/container", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "token"), nil, "CONTAINER"},
		{"container with its token in a file", env("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.URL+"/container", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/auth"), map[string]string{"/auth": "token\n"}, "CONTAINER"},
		{"machine", env(), nil, "MACHINE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := whoSigns(t, c.env, c.files); err != nil || got != c.want {
				t.Errorf("signed by %q, want %q (%v)", got, c.want, err)
			}
		})
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"nobody", map[string]string{"AWS_EC2_METADATA_DISABLED": "true"}, "there are none in the environment"},
		{"a profile that is not there", env("AWS_PROFILE", "none"), `the profile "none"`},
		{"a profile for people", env("AWS_PROFILE", "sso"), "needs somebody to log in"},
		{"profiles in a ring", env("AWS_PROFILE", "loop"), "without end"},
		{"a named source that is empty", env("AWS_PROFILE", "named"), "the environment has no credentials"},
		{"a container service on the network", env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/x"), "must be https"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := both
			if strings.Contains(c.name, "container") {
				files = nil
			}
			if got, err := whoSigns(t, c.env, files); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("signed by %q, error %v, want %q", got, err, c.want)
			}
		})
	}
}

// Nobody has said where the bucket is, and who may ask for that is found out by a role.
func TestCredentialsOfARoleWithoutARegion(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprint(w, "<LocationConstraint>eu-north-1</LocationConstraint>")
			return
		}
		fmt.Fprintf(w, `<R><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>POD</AccessKeyId><SecretAccessKey>s</SecretAccessKey><Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult></R>`,
			time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	t.Cleanup(service.Close)
	o := keys(strings.TrimPrefix(service.URL, "http://"))
	o.Region, o.Credentials = "", remote.S3Credentials{Type: "iam"}
	env := map[string]string{"AWS_ENDPOINT_URL_STS": service.URL, "AWS_WEB_IDENTITY_TOKEN_FILE": "/jwt", "AWS_ROLE_ARN": "arn:aws:iam::1:role/pod"}
	o.Getenv = func(k string) string { return env[k] }
	o.Read = func(string) ([]byte, error) { return []byte("jwt"), nil }
	if u := downloadURL(t, o, "o"); !strings.Contains(u.Query().Get("X-Amz-Credential"), "/eu-north-1/") || !strings.HasPrefix(u.Query().Get("X-Amz-Credential"), "POD/") {
		t.Errorf("signed by %s", u.Query().Get("X-Amz-Credential"))
	}
}

// A file of any content gives credentials or an error, and a program is run only if the file names one.
func FuzzProfiles(f *testing.F) {
	f.Add(credentialsFile, configFile)
	f.Add("[", "]\n=\n[profile ]\n x=1")
	f.Fuzz(func(t *testing.T, credentials, config string) {
		if strings.Contains(strings.ToLower(credentials+config), "credential_process") {
			return
		}
		offline := &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, context.Canceled })}
		env := map[string]string{"HOME": "/h", "AWS_EC2_METADATA_DISABLED": "true"}
		key, err := whoSignsBy(t, offline, env, map[string]string{"/h/.aws/credentials": credentials, "/h/.aws/config": config})
		if err == nil && !strings.Contains(credentials+config, key) {
			t.Errorf("the key %q is in no file", key)
		}
	})
}

// Whose keys are used when the configuration does not say how to authenticate.
func TestKeysOfTheConfiguration(t *testing.T) {
	for _, c := range []struct{ kind, address, access, secret, want string }{
		{"", "minio.example.com", "AK", "SK", "AK"},
		{"", "", "AK", "SK", "ENV"},
		{"", "minio.example.com", "", "SK", "ENV"},
		{"", "minio.example.com", "AK", "", "ENV"},
		{"access-key", "", "AK", "SK", "AK"},
		{"Access-Key", "", "AK", "SK", "AK"},
		{"iam", "minio.example.com", "AK", "SK", "ENV"},
		{"IAM", "", "", "", "ENV"},
	} {
		o := keys(c.address)
		o.Credentials = remote.S3Credentials{Type: c.kind, AccessKey: tranter.Secret(c.access), SecretKey: tranter.Secret(c.secret)}
		o.Getenv = func(k string) string {
			return map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s"}[k]
		}
		if u := downloadURL(t, o, "o"); !strings.HasPrefix(u.Query().Get("X-Amz-Credential"), c.want+"/") {
			t.Errorf("%+v: signed by %s", c, u.Query().Get("X-Amz-Credential"))
		}
	}
}
