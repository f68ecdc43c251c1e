package tranter

// RemoteArchive is how an archive of a distributed cache is reached from a job's environment: requests that the manager
// has signed, good for the job's time and for this one archive. No credentials are in it, and the environment needs no
// library of the storage's vendor.
type RemoteArchive struct {
	Download *SignedRequest `json:"download,omitempty"` // GET; parts of it by Range; nil: not to be downloaded
	Upload   *RemoteUpload  `json:"upload,omitempty"`   // nil: not to be uploaded
}

// SignedRequest is an HTTP request that is complete but for its body. Its URL carries a signature: it is a secret.
type SignedRequest struct {
	Method string            `json:"method"`
	URL    Secret            `json:"url"`
	Header map[string]string `json:"header,omitempty"` // to be sent as they are
}

// RemoteUpload says in which ways an archive can be uploaded. At least one is set; Parts is better where both are.
type RemoteUpload struct {
	Whole      *SignedRequest `json:"whole,omitempty"`       // PUT with the archive's length
	WholeLimit int64          `json:"whole_limit,omitempty"` // bytes that Whole takes; 0: any
	Parts      *PartUpload    `json:"parts,omitempty"`
}

// The protocols of PartUpload.
const (
	// PartsS3 sends each part by PUT to Part, where {part} stands for its number, from 1 on, and {signature}, if there are
	// Signatures, for that of its number. The answers' ETag headers go into Complete's body, a CompleteMultipartUpload
	// document. What was begun is undone by Abort.
	PartsS3 = "s3"
	// PartsAzure sends each block by PUT to Part, where {block} stands for its id, base64 and percent-encoded; Complete
	// gets a BlockList document.
	PartsAzure = "azure"
	// PartsGCS begins a resumable upload by Part; its answer's Location header is where the parts go by PUT, in order, with
	// Content-Range. The last one completes it.
	PartsGCS = "gcs"
)

// PartUpload is an upload in parts, of which each can be repeated, and whose whole length need not be known before.
type PartUpload struct {
	Protocol   string        `json:"protocol"`
	PartBytes  int64         `json:"part_bytes"` // size of all parts but the last
	Part       SignedRequest `json:"part"`
	Signatures []string      `json:"signatures,omitempty"` // one for each part that can be sent
	// Complete and Abort are set as the protocol needs them.
	Complete *SignedRequest `json:"complete,omitempty"`
	Abort    *SignedRequest `json:"abort,omitempty"`
}
