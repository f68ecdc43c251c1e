package config

import (
	"encoding/base64"
	"slices"
	"strings"
)

// checkS3 checks what the keys of [runners.cache.s3] mean together.
func (d *checker) checkS3(s *CacheS3, n *node) {
	const section = "runners.cache.s3."
	d.checkS3Keys(s, n)
	d.checkS3Encryption(s, n)
	for key, value := range map[string]string{"RoleARN": s.RoleARN, "UploadRoleARN": s.UploadRoleARN} {
		if value != "" && !strings.HasPrefix(value, "arn:") {
			d.report(Error, n.nearest(key), section+key, "is not an ARN", "Write arn:aws:iam::ACCOUNT:role/NAME.")
		}
	}
	amazon := s.ServerAddress == "" || s.ServerAddress == "s3.amazonaws.com"
	switch {
	case s.Accelerate && !amazon:
		d.report(Warning, n.nearest("Accelerate"), section+"Accelerate", "has no effect with a ServerAddress", "Remove one of them.")
	case s.Accelerate && s.PathStyle.Or(false):
		d.report(Warning, n.nearest("Accelerate"), section+"Accelerate", "has no effect with PathStyle", "The accelerated endpoint takes the bucket in the host's name only.")
	}
	if strings.Contains(s.ServerAddress, "://") {
		d.report(Warning, n.nearest("ServerAddress"), section+"ServerAddress", "names a protocol", "GitLab Runner wants a host, perhaps with a port; Insecure = true stands for http.")
	}
}

// checkS3Encryption checks that the kind of encryption and its key go together.
func (d *checker) checkS3Encryption(s *CacheS3, n *node) {
	const key = "runners.cache.s3.ServerSideEncryptionKeyID"
	kms := slices.Contains([]string{"KMS", "AWS:KMS", "DSSE-KMS", "AWS:KMS:DSSE"}, strings.ToUpper(s.ServerSideEncryption))
	switch {
	case kms && s.ServerSideEncryptionKey == "":
		d.report(Warning, n.nearest("ServerSideEncryption"), key, "is missing", "Amazon's own key aws/s3 is used; name yours to use it.")
	case !kms && s.ServerSideEncryptionKey != "":
		d.report(Warning, n.nearest("ServerSideEncryptionKeyID"), key, "has no effect without encryption of kind KMS or DSSE-KMS", "Write ServerSideEncryption = \"KMS\", or remove it.")
	case kms && s.RoleARN+s.UploadRoleARN != "" && !strings.HasPrefix(s.ServerSideEncryptionKey, "arn:"):
		d.report(Error, n.nearest("ServerSideEncryptionKeyID"), key, "is not an ARN", "With a role it has to be: the role's policy names it.")
	}
}

// checkS3Keys checks that the way to authenticate and the keys go together (contract 7.8).
func (d *checker) checkS3Keys(s *CacheS3, n *node) {
	const way = "runners.cache.s3.AuthenticationType"
	both, one := s.AccessKey != "" && s.SecretKey != "", s.AccessKey+s.SecretKey != ""
	switch strings.ToLower(s.AuthenticationType) {
	case "access-key":
		if !both {
			d.report(Error, n.nearest("AuthenticationType"), way, "access-key needs AccessKey and SecretKey", "Write both, or AuthenticationType = \"iam\".")
		}
	case "iam":
		if one {
			d.report(Warning, n.nearest("AuthenticationType"), way, "with iam, AccessKey and SecretKey have no effect", "Remove them, or write AuthenticationType = \"access-key\".")
		}
	case "":
		if both && s.ServerAddress == "" {
			d.report(Warning, n.nearest("AccessKey"), way, "is missing, and without ServerAddress that means iam: AccessKey and SecretKey have no effect", "Write AuthenticationType = \"access-key\".")
		} else if one && !both {
			d.report(Warning, n.nearest("AccessKey"), "runners.cache.s3.AccessKey", "AccessKey and SecretKey count only together", "Write both, or none to use the machine's role.")
		}
	}
}

// checkGCS checks what the keys of [runners.cache.gcs] mean together.
func (d *checker) checkGCS(g *CacheGCS, n *node) {
	const section = "runners.cache.gcs."
	switch {
	case g.CredentialsFile != "" && (g.AccessID != "" || g.PrivateKey != ""):
		d.report(Warning, n.nearest("CredentialsFile"), section+"CredentialsFile", "wins over AccessID and PrivateKey", "Remove one of them.")
	case (g.AccessID == "") != (g.PrivateKey == ""):
		d.report(Warning, n.nearest("AccessID"), section+"AccessID", "AccessID and PrivateKey count only together", "Write both, or name a CredentialsFile.")
	}
	if g.PrivateKey != "" && !strings.Contains(g.PrivateKey.Reveal(), "-----BEGIN") {
		d.report(Error, n.nearest("PrivateKey"), section+"PrivateKey", "is not a key in PEM form", "Copy private_key of the service account's JSON file, with its BEGIN and END lines.")
	}
}

// checkAzure checks what the keys of [runners.cache.azure] mean together.
func (d *checker) checkAzure(a *CacheAzure, n *node) {
	const section = "runners.cache.azure."
	if a.AccountName == "" {
		d.report(Warning, n, section+"AccountName", "is missing", "Without it, nothing is cached.")
	}
	if _, err := base64.StdEncoding.DecodeString(a.AccountKey.Reveal()); err != nil {
		d.report(Error, n.nearest("AccountKey"), section+"AccountKey", "is not in base64", "Copy it from the account's access keys.")
	}
	if strings.Contains(a.StorageDomain, "://") {
		d.report(Error, n.nearest("StorageDomain"), section+"StorageDomain", "names a protocol", "Write the domain only, as \"blob.core.windows.net\".")
	}
}

// checkCacheServer checks what the keys of [cache_server] mean together.
func (d *checker) checkCacheServer(c *CacheServer, root *node) {
	const section = "cache_server."
	at := func(key string) *node { return root.nearest("cache_server", key) }
	if dir := c.Directory; dir != "" && !strings.HasPrefix(dir, "/") && !strings.Contains(dir, ":\\") {
		d.report(Error, at("directory"), section+"directory", "is not an absolute path", "Write the whole path.")
	}
	if missing := map[[2]bool]string{{true, false}: "tls_key_file", {false, true}: "tls_cert_file"}[[2]bool{c.TLSCertFile != "", c.TLSKeyFile != ""}]; missing != "" {
		d.report(Error, root.nearest("cache_server"), section+missing, "is missing", "Name both a certificate and its key, or none of them.")
	}
	if c.URL != "" && !strings.HasPrefix(c.URL, "http://") && !strings.HasPrefix(c.URL, "https://") {
		d.report(Error, at("url"), section+"url", "is no address of HTTP", "Write http://host:port or https://host:port.")
	}
	if strings.Contains(c.ListenAddress, "://") || c.ListenAddress != "" && !strings.Contains(c.ListenAddress, ":") {
		d.report(Error, at("listen_address"), section+"listen_address", "is not of the form host:port", "Write 0.0.0.0:9253 to listen on all of this machine's addresses.")
	}
}
