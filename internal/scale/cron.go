package scale

// Cron is a cron expression of 5, 6 (with a year) or 7 fields (with seconds, too), as GitLab Runner's periods have.
type Cron struct{}
