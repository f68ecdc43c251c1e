package config

import (
	"fmt"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// viewChecker checks the sections of what is visible.
type viewChecker struct{ *checker }

// checkView checks [web], [history], [cost] and [tracing].
func checkView(d *checker, c *Config, root *node) {
	v := viewChecker{d}
	v.checkWeb(&c.Web, root)
	v.checkHistory(&c.History, root)
	v.checkCost(c, root)
	v.checkTracing(&c.Tracing, root)
}

// checkWeb checks what the keys of [web] mean together.
func (d viewChecker) checkWeb(w *Web, root *node) {
	const section = "web."
	at := func(key string) *node { return root.nearest("web", key) }
	for key, file := range map[string][2]string{"token": {w.Token.Reveal(), w.TokenFile}, "read_token": {w.ReadToken.Reveal(), w.ReadTokenFile}} {
		if file[0] != "" && file[1] != "" {
			d.report(Error, at(key+"_file"), section+key+"_file", "is given together with "+key, "Keep one of them.")
		}
	}
	if missing := map[[2]bool]string{{true, false}: "key_file", {false, true}: "cert_file"}[[2]bool{w.CertFile != "", w.KeyFile != ""}]; missing != "" {
		d.report(Error, root.nearest("web"), section+missing, "is missing", "Name both a certificate and its key, or none of them.")
	}
	if w.Address == "" {
		return
	}
	host, problem := hostOf(w.Address)
	if problem != "" {
		d.report(Error, at("address"), section+"address", problem, "Write 127.0.0.1:9253, or :9253 for loopback only.")
		return
	}
	if loopback(host) {
		return
	}
	if w.ReadToken == "" && w.ReadTokenFile == "" {
		d.report(Warning, at("address"), section+"address", "is reached from other hosts, and there is no read_token: anybody there can read names and logs of jobs", "Write a read_token or read_token_file, or an address on loopback.")
	}
	if w.CertFile == "" {
		d.report(Warning, at("address"), section+"address", "is reached from other hosts without TLS: tokens are sent as they are", "Write cert_file and key_file, or an address on loopback behind a proxy with TLS.")
	}
}

// hostOf returns the host of an address to listen on, or what is wrong with it.
func hostOf(address string) (host, problem string) {
	if strings.Contains(address, "://") {
		return "", "is an address with a scheme, not host:port"
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", "is not of the form host:port"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Sprintf("has the port %q, which is none", port)
	} else if strings.ContainsFunc(host, unicode.IsSpace) {
		return "", fmt.Sprintf("has a space in its host, before port %d", n)
	}
	return host, ""
}

// loopback tells whether only this host reaches a host to listen on. None is loopback, by definition of the key.
func loopback(host string) bool {
	if host == "" || host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// checkHistory checks what the keys of [history] mean together.
func (d viewChecker) checkHistory(h *History, root *node) {
	if h.KeepJobs > 0 && h.KeepLogs > h.KeepJobs {
		d.report(Warning, root.nearest("history", "keep_logs"), "history.keep_logs", "is longer than keep_jobs", "A log whose job is not known any more is not found: make keep_jobs as long.")
	}
	if n := root.find("history", "keep_jobs"); n != nil && h.KeepJobs > 0 && h.KeepJobs < time.Hour {
		d.report(Warning, n, "history.keep_jobs", "is less than an hour", "Costs, waits and charts of the day need what this forgets.")
	}
}

// maxPaid is the longest minimum or step: a machine that has gone has to be looked at for as long.
const maxPaid = 24 * time.Hour

// checkCost checks what the keys of [cost] mean together.
func (d viewChecker) checkCost(c *Config, root *node) {
	cost := &c.Cost
	if cur := cost.Currency; len(cur) > 12 || strings.ContainsFunc(cur, func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) }) {
		d.report(Error, root.nearest("cost", "currency"), "cost.currency", "is not the name of a currency", "Write a code or a sign, such as \"EUR\".")
	}
	for i, p := range cost.Prices {
		d.checkPrice(c, &p, entry(root, i, "cost", "price"))
	}
	for i, f := range cost.Factors {
		at := entry(root, i, "cost", "factor")
		d.checkPattern(c, f.Runner, at.nearest("runner"), "cost.factor.runner")
		d.checkAmount(f.Factor, at.nearest("factor"), "cost.factor.factor")
	}
}

func (d viewChecker) checkPrice(c *Config, p *Price, at *node) {
	const section = "cost.price."
	d.checkPattern(c, p.Runner, at.nearest("runner"), section+"runner")
	for key, value := range map[string]float64{"per_hour": p.PerHour, "per_second": p.PerSecond, "cpu_hour": p.CPUHour, "gpu_hour": p.GPUHour} {
		d.checkAmount(value, at.nearest(key), section+key)
	}
	if longer := map[bool]string{p.Step > maxPaid: "step", p.Minimum > maxPaid: "minimum"}[true]; longer != "" {
		d.report(Error, at.nearest(longer), section+longer, "is more than 24h", "Machines are paid by the hour or second here; write a price for that.")
	}
	ofMachines := p.PerHour > 0 || p.PerSecond > 0
	switch {
	case p.PerHour > 0 && p.PerSecond > 0:
		d.report(Error, at.nearest("per_second"), section+"per_second", "is given together with per_hour", "Keep one of them.")
	case ofMachines:
	case p.CPUHour == 0 && p.GPUHour == 0:
		d.report(Warning, at, section+"per_hour", "is missing, as is every other price: the entry has no effect", "Write per_hour, per_second, cpu_hour or gpu_hour, or remove it.")
	case p.Minimum > 0 || p.Step > 0 || p.Set != "":
		d.report(Warning, at, section+"per_hour", "is missing: minimum, step and set are for machines only", "Write per_hour or per_second, or remove them.")
	}
}

func (d viewChecker) checkAmount(value float64, at *node, key string) {
	if math.IsNaN(value) || math.IsInf(value, 0) || value > 1e6 {
		d.report(Error, at, key, "is not a sensible number", "Write a number from 0 to 1000000.")
	}
}

// checkPattern warns of a pattern that fits no runner.
func (d viewChecker) checkPattern(c *Config, pattern string, at *node, key string) {
	if pattern == "" || len(c.Runners) == 0 || strings.ContainsAny(pattern, "*?") {
		return
	}
	for _, r := range c.Runners {
		if r.Name == pattern || r.Token.Short() == pattern {
			return
		}
	}
	d.report(Warning, at, key, fmt.Sprintf("no runner is called %q", pattern), "Write the name or the short token of a runner; * and ? stand for any characters.")
}

// entry is the i-th table of a list of tables, or the nearest that there is.
func entry(root *node, i int, path ...string) *node {
	n := root.nearest(path...)
	if i < len(n.list) {
		return n.list[i]
	}
	return n
}

// checkTracing checks what the keys of [tracing] mean together.
func (d viewChecker) checkTracing(t *Tracing, root *node) {
	const section = "tracing."
	at := func(key string) *node { return root.nearest("tracing", key) }
	if u, err := url.Parse(t.Endpoint); t.Endpoint != "" && !isServer(t.Endpoint) {
		d.report(Error, at("endpoint"), section+"endpoint", "is no address of HTTP", "Write http://host:4318 or https://host:4318.")
	} else if err == nil && u.User != nil {
		d.report(Error, at("endpoint"), section+"endpoint", "holds a password", "Write it as a header, in [tracing.headers].")
	}
	if t.Sample > 1 || math.IsNaN(t.Sample) {
		d.report(Error, at("sample"), section+"sample", "is more than 1", "Write a share from 0 to 1, such as 0.1 for one job in ten.")
	}
	for name := range t.Headers {
		if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) || name == "" {
			d.report(Error, at("headers"), section+"headers", fmt.Sprintf("%q is no name of a header", name), "Write letters, digits and hyphens.")
		}
	}
}
