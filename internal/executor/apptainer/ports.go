package apptainer

import "github.com/tranter-ci/tranter/internal/executor/apptainer/image"

// exposed returns the ports that an image exposes, in order.
func exposed(image.Config) []int { return nil }
