package diskspace

import (
	"fmt"

	"golang.org/x/sys/windows"
)

func room(path string) (Room, error) {
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return Room{}, fmt.Errorf("look for room on the disk of %s: %w", path, err)
	}
	var r Room
	if err := windows.GetDiskFreeSpaceEx(p, &r.Bytes, &r.Size, nil); err != nil {
		return Room{}, fmt.Errorf("look for room on the disk of %s: %w", path, err)
	}
	return r, nil
}
