package main

import (
	"github.com/tranter-ci/tranter/internal/cache/remote"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/job"
)

// remoteCache returns what signs for a runner's distributed cache, or nil if it has none.
func remoteCache(c config.Cache) job.CacheSigner {
	switch {
	case c.Type == "s3" && c.S3.BucketName != "":
		return remote.New(remote.NewS3(s3Options(c.S3)))
	case c.Type == "gcs" && c.GCS.BucketName != "":
		return remote.New(remote.NewGCS(remote.GCSOptions{
			Bucket: c.GCS.BucketName, CredentialsFile: c.GCS.CredentialsFile, AccessID: c.GCS.AccessID, PrivateKey: c.GCS.PrivateKey, Universe: c.GCS.UniverseDomain,
		}))
	case c.Type == "azure" && c.Azure.ContainerName != "" && c.Azure.AccountName != "":
		return remote.New(remote.NewAzure(remote.AzureOptions{
			Account: c.Azure.AccountName, Key: c.Azure.AccountKey, Container: c.Azure.ContainerName, Domain: c.Azure.StorageDomain,
		}))
	default:
		return nil
	}
}

func s3Options(c config.CacheS3) remote.S3Options {
	o := remote.S3Options{
		Bucket: c.BucketName, Region: c.BucketLocation,
		Endpoint:    remote.S3Endpoint{Address: c.ServerAddress, Insecure: c.Insecure, DualStack: c.DualStack.Or(true), Accelerate: c.Accelerate},
		Credentials: remote.S3Credentials{Type: c.AuthenticationType, AccessKey: c.AccessKey, SecretKey: c.SecretKey, SessionToken: c.SessionToken},
		Encryption:  remote.S3Encryption{Type: c.ServerSideEncryption, Key: c.ServerSideEncryptionKey},
		Roles:       remote.S3Roles{ARN: c.RoleARN, UploadARN: c.UploadRoleARN, Concurrency: c.AssumeRoleMaxConcurrency, NoCaching: c.DisableRoleCaching},
	}
	if c.PathStyle.Set {
		o.Endpoint.PathStyle = remote.PathStyleOff
		if c.PathStyle.Or(false) {
			o.Endpoint.PathStyle = remote.PathStyleOn
		}
	}
	return o
}
