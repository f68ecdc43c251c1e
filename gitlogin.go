package tranter

import "net/url"

// GitLogin is with what git logs in at a host.
type GitLogin struct {
	Host     string // scheme, host and port
	Username string
	Password Secret
}

// GitLogins returns the logins for the repository's host and for GitLab's own, which may differ when clone_url is set
// (runner contract, section 6.2).
func (p *Phase) GitLogins(s *SourcesStep) []GitLogin {
	var out []GitLogin
	if host := GitHost(s.RepoURL); host != "" && s.Password != "" {
		out = append(out, GitLogin{host, s.Username, s.Password})
	}
	if host := GitHost(p.Server.URL); host != "" && p.JobToken != "" && (len(out) == 0 || out[0].Host != host) {
		out = append(out, GitLogin{host, "gitlab-ci-token", p.JobToken})
	}
	return out
}

// GitHost returns scheme, host and port of a URL that git fetches by HTTP, else "".
func GitHost(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
