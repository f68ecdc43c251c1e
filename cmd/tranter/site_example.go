package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/site"
)

func newSiteExample(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "example [FILE]",
		Short: "Print a site file that explains itself, or write it to FILE",
		Long:  `Print a site file with all that can be in one, explained, or write it to a file that is not there yet.`,
		Example: `  tranter site example
  tranter site example site.toml`,
		Args: cobra.MaximumNArgs(1),
	}
	path := cmd.Flags().StringP("output", "o", "", "file to write, the same as FILE")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			if *path != "" && *path != args[0] {
				return errors.New("FILE and --output name two files: give one of them")
			}
			*path = args[0]
		}
		if *path == "" {
			_, err := s.out.Write(site.Example())
			return err
		}
		if err := createFile(*path, site.Example()); err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%s is written: put in your server, token and runners, then \"tranter site check %s\".\n", *path, shellWord(*path))
		return nil
	}
	return cmd
}

// createFile writes a file that is not there yet. It will hold a token, so that it is nobody else's to read.
func createFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and is left as it is: name another file", path)
	}
	if err != nil {
		return fmt.Errorf("write the site file: %w", err)
	}
	if _, err := f.Write(data); err != nil {
		_ = f.Close()
		return fmt.Errorf("write the site file: %w", err)
	}
	return f.Close()
}
