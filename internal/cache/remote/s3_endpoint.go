package remote

import (
	"net"
	"net/url"
	"strings"
)

// PathStyle says where a bucket's name stands in an address.
type PathStyle int

// The styles.
const (
	PathStyleAuto PathStyle = iota // in the host's name with Amazon and Google, in the path elsewhere
	PathStyleOn
	PathStyleOff
)

// S3Endpoint says at which address a bucket is (runner contract, section 7.8).
type S3Endpoint struct {
	Address    string // host, perhaps with a port; empty or s3.amazonaws.com: Amazon's own
	Insecure   bool   // http
	PathStyle  PathStyle
	DualStack  bool // these two count at Amazon's own address only
	Accelerate bool
}

// custom returns the host that the address names, with its port, unless it is Amazon's own.
func (e S3Endpoint) custom() string {
	host := strings.TrimSuffix(e.Address, "/")
	for _, scheme := range []string{"https://", "http://"} {
		host = strings.TrimPrefix(host, scheme)
	}
	if host == "s3.amazonaws.com" {
		return ""
	}
	return host
}

// bucketURL returns the address of a bucket.
func (e S3Endpoint) bucketURL(bucket, region string) url.URL {
	u := url.URL{Scheme: "https", Path: "/"}
	if e.Insecure || strings.HasPrefix(e.Address, "http://") {
		u.Scheme = "http"
	}
	u.Host = e.custom()
	own := u.Host == ""
	inHost := e.PathStyle == PathStyleOff || e.PathStyle == PathStyleAuto && (own || supportsBucketHosts(u.Host))
	// A certificate for *.host covers no further dots.
	inHost = inHost && hostName(bucket) && (u.Scheme == "http" || !strings.Contains(bucket, "."))
	if own {
		u.Host = e.amazonHost(region, inHost)
	}
	if inHost {
		u.Host = bucket + "." + u.Host
	} else {
		u.Path = "/" + bucket
	}
	return u
}

// amazonHost returns the host of Amazon's service in a region.
func (e S3Endpoint) amazonHost(region string, inHost bool) string {
	domain := awsDomain(region)
	if e.Accelerate && inHost {
		if e.DualStack {
			return "s3-accelerate.dualstack." + domain
		}
		return "s3-accelerate." + domain
	}
	if e.DualStack {
		return "s3.dualstack." + region + "." + domain
	}
	return "s3." + region + "." + domain
}

// awsDomain returns the domain of Amazon's services in a region's part of the cloud.
func awsDomain(region string) string {
	for prefix, domain := range map[string]string{
		"cn-": "amazonaws.com.cn", "us-iso-": "c2s.ic.gov", "us-isob-": "sc2s.sgov.gov", "eu-isoe-": "cloud.adc-e.uk", "us-isof-": "csp.hci.ic.gov", "eusc-": "amazonaws.eu",
	} {
		if strings.HasPrefix(region, prefix) {
			return domain
		}
	}
	return "amazonaws.com"
}

// supportsBucketHosts says whether a host is one that takes a bucket's name in front of it.
func supportsBucketHosts(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	for _, domain := range []string{"amazonaws.com", "amazonaws.com.cn", "storage.googleapis.com"} {
		if host == domain || strings.HasSuffix(host, "."+domain) {
			return true
		}
	}
	return false
}

// hostName says whether a bucket's name can be part of a host's.
func hostName(bucket string) bool {
	if len(bucket) < 3 || len(bucket) > 63 || net.ParseIP(bucket) != nil || strings.Contains(bucket, "..") {
		return false
	}
	for _, c := range bucket {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return strings.Trim(bucket, "-.") == bucket
}
