// Package image keeps images of containers for runtimes without an engine: it resolves names at registries, downloads
// layers, and makes of them what such runtimes take, a directory or a file (hpc, sections 4.4 to 4.6).
//
// A store is a directory, which processes on several machines may share. All in it that has a meaning appears by one
// rename and is named by its digest, so that nobody sees half of it. Of all who want what is missing, one gets it: a lock
// is a directory with a sign of life in it, for locks on open files do not hold on all file systems that clusters have.
// Where it matters what time it is, the clock of the file system is asked, or signs of life are watched for changing.
//
//	images/DIGEST-FORM/   an image: image.json, whose time is that of the last use, and rootfs, layout or image.sif
//	refs/                 which digest a name was found to be, and when
//	blobs/                layers by digest, as the registry has them
//	use/DIGEST-FORM/      who uses an image
//	locks/, tmp/          work
//
// # Users
//
// Whoever can write to a store decides what others' jobs run. So a store belongs to one user: where the directory belongs to
// somebody else, or others may write to it, each user has a store of its own in user-UID below it, which only that user
// reads unless Options.Readable is set. With Options.Shared the members of the directory's group, who have to trust each
// other, share one: directories are 2775 then, and a directory that the world may write to, or that belongs to a stranger,
// is refused. What is shared is readable by all, images of private registries included.
//
// # What images may do
//
// Layers come from strangers. Nothing is read or written outside of the image's directory, whatever links say; owners,
// extended attributes, devices, setuid and setgid bits are left out; all bytes are counted and bounded; and the user can
// remove all that was unpacked.
package image
