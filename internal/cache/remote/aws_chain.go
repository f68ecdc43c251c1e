package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

// chain finds credentials where Amazon's programs do, in the same order: environment, web identity, profile, container,
// machine. It is put together from the parts of the SDK that are light; a profile with SSO, which needs a person to log
// in, is not among them.
type chain struct {
	getenv func(string) string
	read   func(string) ([]byte, error)
	sts    *sts
}

const chainSession = "tranter"

// Retrieve implements aws.CredentialsProvider.
func (c *chain) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if creds := c.fromEnvironment(); creds.HasKeys() {
		return creds, nil
	}
	if file := c.getenv("AWS_WEB_IDENTITY_TOKEN_FILE"); file != "" {
		return c.webIdentity(ctx, file, c.getenv("AWS_ROLE_ARN"), c.getenv("AWS_ROLE_SESSION_NAME"))
	}
	name := cmp.Or(c.getenv("AWS_PROFILE"), c.getenv("AWS_DEFAULT_PROFILE"))
	profiles := c.profiles()
	if _, ok := profiles[name]; name != "" && !ok {
		return aws.Credentials{}, fmt.Errorf("the profile %q that AWS_PROFILE names is in no file", name)
	}
	return c.fromProfile(ctx, profiles, cmp.Or(name, "default"), 0)
}

func (c *chain) fromEnvironment() aws.Credentials {
	return aws.Credentials{
		AccessKeyID: cmp.Or(c.getenv("AWS_ACCESS_KEY_ID"), c.getenv("AWS_ACCESS_KEY")), SecretAccessKey: cmp.Or(c.getenv("AWS_SECRET_ACCESS_KEY"), c.getenv("AWS_SECRET_KEY")),
		SessionToken: c.getenv("AWS_SESSION_TOKEN"), Source: "environment",
	}
}

func (c *chain) webIdentity(ctx context.Context, file, role, session string) (aws.Credentials, error) {
	token, err := c.read(file)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("read the web identity: %w", err)
	}
	return c.sts.assume(ctx, aws.Credentials{}, assumeRole{role: role, session: cmp.Or(session, chainSession), webToken: strings.TrimSpace(string(token)), duration: roleDuration})
}

// profile is a section of Amazon's configuration files.
type profile map[string]string

// profiles reads both files; what the credentials file says wins.
func (c *chain) profiles() map[string]profile {
	home := cmp.Or(c.getenv("HOME"), c.getenv("USERPROFILE"))
	out := map[string]profile{}
	for _, f := range []struct {
		path   string
		config bool
	}{
		{cmp.Or(c.getenv("AWS_CONFIG_FILE"), filepath.Join(home, ".aws", "config")), true},
		{cmp.Or(c.getenv("AWS_SHARED_CREDENTIALS_FILE"), filepath.Join(home, ".aws", "credentials")), false},
	} {
		if data, err := c.read(f.path); err == nil { // there need not be one
			parseProfiles(out, string(data), f.config)
		}
	}
	return out
}

// parseProfiles adds the sections of a file. In the config file all but "default" are called "profile NAME".
func parseProfiles(out map[string]profile, text string, config bool) {
	var current profile // nil: of no interest
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
			continue
		}
		if trimmed[0] == '[' {
			current = nil
			if name, ok := profileName(trimmed, config); ok {
				if out[name] == nil {
					out[name] = profile{}
				}
				current = out[name]
			}
			continue
		}
		if key, value, ok := strings.Cut(trimmed, "="); ok && current != nil && line[0] == trimmed[0] { // else of a nested section
			value, _, _ = strings.Cut(value, " #")
			current[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
		}
	}
}

// profileName returns the name in a section's headline, if it is that of a profile.
func profileName(line string, config bool) (string, bool) {
	name, _, _ := strings.Cut(line[1:], "]")
	name = strings.TrimSpace(name)
	after, prefixed := strings.CutPrefix(name, "profile ")
	return strings.Trim(strings.TrimSpace(after), `"'`), !config || prefixed || name == "default"
}

// maxProfiles bounds how many profiles refer to each other.
const maxProfiles = 5

func (c *chain) fromProfile(ctx context.Context, all map[string]profile, name string, depth int) (aws.Credentials, error) {
	p := all[name]
	role := p["role_arn"]
	if file := p["web_identity_token_file"]; file != "" {
		return c.webIdentity(ctx, file, role, p["role_session_name"])
	}
	var base aws.Credentials
	var err error
	if source := p["source_profile"]; role != "" && source != "" && source != name {
		if depth == maxProfiles {
			return base, errors.New("the profiles refer to each other without end")
		}
		base, err = c.fromProfile(ctx, all, source, depth+1)
	} else {
		base, err = c.ofProfile(ctx, p, name)
	}
	if err != nil || role == "" {
		return base, err
	}
	return c.sts.assume(ctx, base, assumeRole{role: role, session: cmp.Or(p["role_session_name"], chainSession), externalID: p["external_id"], duration: roleDuration})
}

// ofProfile returns a profile's own credentials, before a role is assumed with them.
func (c *chain) ofProfile(ctx context.Context, p profile, name string) (aws.Credentials, error) {
	switch {
	case p["credential_source"] != "":
		return c.fromSource(ctx, p["credential_source"])
	case p["aws_access_key_id"] != "":
		return aws.Credentials{AccessKeyID: p["aws_access_key_id"], SecretAccessKey: p["aws_secret_access_key"], SessionToken: p["aws_session_token"], Source: "profile"}, nil
	case p["sso_account_id"]+p["sso_session"]+p["login_session"] != "":
		return aws.Credentials{}, fmt.Errorf("the profile %q needs somebody to log in; give the runner keys or a role", name)
	case p["credential_process"] != "":
		return processcreds.NewProvider(p["credential_process"]).Retrieve(ctx)
	default:
		return c.fromPlace(ctx)
	}
}

// fromSource takes the one place that a profile names.
func (c *chain) fromSource(ctx context.Context, source string) (aws.Credentials, error) {
	if source == "Environment" {
		if creds := c.fromEnvironment(); creds.HasKeys() {
			return creds, nil
		}
		return aws.Credentials{}, errors.New("the environment has no credentials")
	}
	return c.fromPlace(ctx)
}

// fromPlace asks the container service or the machine that this runs on.
func (c *chain) fromPlace(ctx context.Context) (aws.Credentials, error) {
	endpoint := c.getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
	if relative := c.getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"); relative != "" {
		endpoint = "http://169.254.170.2" + relative
	}
	if endpoint == "" {
		return c.fromMachine(ctx)
	}
	if err := checkContainerHost(endpoint); err != nil {
		return aws.Credentials{}, err
	}
	token := c.getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")
	if file := c.getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); file != "" {
		data, err := c.read(file)
		if err != nil {
			return aws.Credentials{}, fmt.Errorf("read the token for the container's credentials: %w", err)
		}
		token = strings.TrimSpace(string(data))
	}
	return endpointcreds.New(endpoint, func(o *endpointcreds.Options) { o.AuthorizationToken = token }).Retrieve(ctx)
}

// checkContainerHost keeps a token from being sent over the network in clear.
func checkContainerHost(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return errors.New("AWS_CONTAINER_CREDENTIALS_FULL_URI is not an address")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "https" || u.Hostname() == "localhost" || ip != nil && (ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.Equal(net.ParseIP("fd00:ec2::23"))) {
		return nil
	}
	return errors.New("AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or an address of this machine")
}

func (c *chain) fromMachine(ctx context.Context) (aws.Credentials, error) {
	if strings.EqualFold(c.getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		return aws.Credentials{}, errors.New("there are none in the environment and in files, and the machine's are turned off")
	}
	client := imds.New(imds.Options{Endpoint: c.getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT")})
	creds, err := ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = client }).Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, errors.New("there are none in the environment and in files, and this machine has no role")
	}
	return creds, nil
}
