package dockermachine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/tranter-ci/tranter"
)

const (
	// templateSuffix is what the names of files end with that are templates.
	templateSuffix = ".tmpl"
	// maxTemplate is far more than any provider takes.
	maxTemplate = 1 << 20
)

// takesUserData says whether an option names a file that the machine gets when it boots. Names are all there is to tell
// that by (docker-machine, section 6).
func takesUserData(option string) bool {
	for _, part := range []string{"user-data", "userdata", "custom-data", "cloud-config", "cloudinit", "metadata-from-file"} {
		if strings.Contains(option, part) {
			return true
		}
	}
	return false
}

// fillTemplates replaces files of user data that are templates by what becomes of them for a machine. The result lies in
// the machine's folder, since drivers read it as late as in Create.
func fillTemplates(values map[string]any, folder string, spec tranter.MachineSpec) error {
	var wrong []error
	for option, value := range values {
		if !takesUserData(option) {
			continue
		}
		switch v := value.(type) {
		case string:
			filled, err := fillTemplate(v, filepath.Join(folder, option), spec)
			values[option], wrong = filled, append(wrong, err)
		case []string:
			list := make([]string, len(v))
			for i, element := range v {
				name, path, named := strings.Cut(element, "=") // NAME=FILE
				filled, err := fillTemplate(path, filepath.Join(folder, fmt.Sprintf("%s-%d", option, i)), spec)
				list[i], wrong = element, append(wrong, err)
				if named {
					list[i] = name + "=" + filled
				}
			}
			values[option] = list
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return fmt.Errorf("%w: %w", tranter.ErrRejected, err)
	}
	return nil
}

// fillTemplate returns the path of a file that is no template, else that of what becomes of it.
func fillTemplate(path, to string, spec tranter.MachineSpec) (string, error) {
	if !strings.HasSuffix(path, templateSuffix) || strings.ContainsRune(path, '\n') {
		return path, nil
	}
	text, err := readBounded(path)
	if err != nil {
		return "", fmt.Errorf("read the template of user data: %w", err)
	}
	t, err := template.New(filepath.Base(path)).Option("missingkey=error").Funcs(template.FuncMap{"env": os.Getenv}).Parse(text)
	if err != nil {
		return "", fmt.Errorf("template of user data %s: %w", path, err)
	}
	var filled strings.Builder
	if err := t.Execute(&filled, map[string]string{"Name": spec.Name, "Owner": spec.Mark.Owner, "Pool": spec.Mark.Pool}); err != nil {
		return "", fmt.Errorf("template of user data %s: %w", path, err)
	}
	if err := os.WriteFile(to, []byte(filled.String()), fileMode); err != nil {
		return "", fmt.Errorf("write user data: %w", err)
	}
	return to, nil
}

func readBounded(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxTemplate+1))
	if err == nil && len(data) > maxTemplate {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxTemplate)
	}
	return string(data), err
}
