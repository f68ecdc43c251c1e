package config

import "github.com/tranter-ci/tranter"

// Cache is [runners.cache].
type Cache struct {
	Type                   string         `toml:"Type" flag:"type" enum:",directory,builtin,s3,gcs,azure" about:"Kind of the shared cache: directory and builtin (our own), s3, gcs, azure; empty: caches stay where the job ran."`
	Path                   string         `toml:"Path" flag:"path" about:"Prefix of all objects in the shared cache."`
	Shared                 bool           `toml:"Shared" flag:"shared" about:"Let all runners share the objects, not only those with this token."`
	MaxUploadedArchiveSize int64          `toml:"MaxUploadedArchiveSize" flag:"max_uploaded_archive_size" env:"CACHE_MAXIMUM_UPLOADED_ARCHIVE_SIZE" min:"0" about:"Largest archive that is uploaded, in bytes; 0: no limit."`
	Directory              CacheDirectory `toml:"directory" prefix:"directory" about:"Cache in a directory that machines share, such as an NFS mount. Not a section of GitLab Runner."`
	S3                     CacheS3        `toml:"s3" prefix:"s3" about:"Cache in an S3 bucket."`
	GCS                    CacheGCS       `toml:"gcs" prefix:"gcs" about:"Cache in a Google Cloud Storage bucket."`
	Azure                  CacheAzure     `toml:"azure" prefix:"azure" about:"Cache in an Azure blob container."`
}

// CacheDirectory is [runners.cache.directory].
type CacheDirectory struct {
	Path string `toml:"Path" flag:"path" example:"Path = \"/srv/cache\"" about:"The directory; absolute."`
}

// CacheS3 is [runners.cache.s3].
type CacheS3 struct {
	ServerAddress            string         `toml:"ServerAddress" flag:"server-address" about:"Host and port of the service; Amazon's unless given."`
	AccessKey                tranter.Secret `toml:"AccessKey" flag:"access-key" about:"Access key id."`
	SecretKey                tranter.Secret `toml:"SecretKey" flag:"secret-key" about:"Secret access key."`
	SessionToken             tranter.Secret `toml:"SessionToken" flag:"session-token" about:"Session token of temporary credentials."`
	BucketName               string         `toml:"BucketName" flag:"bucket-name" about:"The bucket."`
	BucketLocation           string         `toml:"BucketLocation" flag:"bucket-location" about:"Region of the bucket; asked for unless given."`
	Insecure                 bool           `toml:"Insecure" flag:"insecure" about:"Use http."`
	AuthenticationType       string         `toml:"AuthenticationType" flag:"authentication_type" enum:",iam,access-key" case:"any" about:"access-key: the keys given here; iam: those of the environment, of Amazon's files or of the machine. Unless given, it is access-key if ServerAddress, AccessKey and SecretKey are all there."`
	ServerSideEncryption     string         `toml:"ServerSideEncryption" flag:"server-side-encryption" enum:",S3,AES256,KMS,aws:kms,DSSE-KMS,aws:kms:dsse" case:"any" about:"Encryption of stored objects: S3 (the same as AES256), KMS or DSSE-KMS."`
	ServerSideEncryptionKey  string         `toml:"ServerSideEncryptionKeyID" flag:"server-side-encryption-key-id" about:"Key of KMS encryption."`
	DualStack                Optional[bool] `toml:"DualStack" flag:"dual-stack" about:"Use the endpoint that answers on IPv6 too; true unless given."`
	PathStyle                Optional[bool] `toml:"PathStyle" flag:"path-style" about:"Put the bucket into the path of the address; found out from the host unless given."`
	Accelerate               bool           `toml:"Accelerate" flag:"accelerate" about:"Use the accelerated endpoint."`
	RoleARN                  string         `toml:"RoleARN" flag:"role-arn" about:"Role that is assumed to sign for each archive, with a policy for this archive only."`
	UploadRoleARN            string         `toml:"UploadRoleARN" flag:"upload-role-arn" about:"Role that is assumed to sign for uploads; it wins over RoleARN."`
	AssumeRoleMaxConcurrency int            `toml:"AssumeRoleMaxConcurrency" flag:"assume-role-max-concurrency" default:"5" zero:"default" about:"Requests for a role at the same time; negative: no limit."`
	DisableRoleCaching       bool           `toml:"DisableAssumeRoleCredentialsCaching" flag:"disable-assume-role-credentials-caching" about:"Ask for a role's credentials anew each time."`
}

// CacheGCS is [runners.cache.gcs].
type CacheGCS struct {
	CredentialsFile string         `toml:"CredentialsFile" flag:"credentials-file" env:"GOOGLE_APPLICATION_CREDENTIALS" about:"JSON file of a service account; without this and the next two, the machine's service account is used."`
	AccessID        string         `toml:"AccessID" flag:"access-id" about:"Service account, with PrivateKey."`
	PrivateKey      tranter.Secret `toml:"PrivateKey" flag:"private-key" about:"Key of the service account."`
	BucketName      string         `toml:"BucketName" flag:"bucket-name" about:"The bucket."`
	UniverseDomain  string         `toml:"UniverseDomain" flag:"universe-domain" about:"Domain of the cloud, where it is not Google's public one."`
}

// CacheAzure is [runners.cache.azure].
type CacheAzure struct {
	AccountName   string         `toml:"AccountName" flag:"account-name" about:"Storage account."`
	AccountKey    tranter.Secret `toml:"AccountKey" flag:"account-key" about:"Key of the account; the machine's identity is used unless given."`
	ContainerName string         `toml:"ContainerName" flag:"container-name" about:"The blob container."`
	StorageDomain string         `toml:"StorageDomain" flag:"storage-domain" default:"blob.core.windows.net" about:"Domain of the service."`
}

// CacheServer is [cache_server].
type CacheServer struct {
	Directory     string `toml:"directory" example:"directory = \"/srv/tranter-cache\"" about:"Where the archives are kept; absolute. Unless given, cache in the state directory."`
	MaxSizeMiB    int    `toml:"max_size_mib" default:"10240" min:"0" about:"MiB that the archives take at most; what was not used for longest goes. 0: no limit."`
	ListenAddress string `toml:"listen_address" example:"listen_address = \"0.0.0.0:9253\"" about:"Address to listen on. Unless given, a free port of 127.0.0.1, which stays the same over restarts."`
	URL           string `toml:"url" example:"url = \"https://ci-host.example.com:9253\"" about:"Address at which jobs reach it; the listen address unless given. Needed where jobs run on other machines or in containers."`
	TLSCertFile   string `toml:"tls_cert_file" about:"Certificate, with that of its issuer, as PEM; with tls_key_file, it is served by https."`
	TLSKeyFile    string `toml:"tls_key_file" about:"Key of the certificate, as PEM."`
}
