package shim

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"agentic-isolation/guest/internal/fault"
)

// findProgram resolves name as execvp does, in the command's own PATH and working directory (which the shim is in).
func findProgram(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	search := variable(env, "PATH")
	var denied error
	for _, dir := range filepath.SplitList(search) {
		if dir == "" {
			dir = "."
		}
		candidate := dir + "/" + name
		err := executable(candidate)
		if err == nil {
			return candidate, nil
		}
		if denied == nil && fault.Is(err, fault.ProgramNotExecutable) {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", fault.New(fault.ProgramNotFound, "no program %q in PATH %q", name, search)
}

func executable(name string) error {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG),
		errors.Is(err, syscall.ELOOP):
		return fault.New(fault.ProgramNotFound, "no program at %q", name)
	case err != nil:
		return fault.New(fault.ProgramNotExecutable, "%q: %v", name, err)
	case !info.Mode().IsRegular():
		return fault.New(fault.ProgramNotExecutable, "%q is not a file", name)
	case info.Mode().Perm()&0o111 == 0:
		return fault.New(fault.ProgramNotExecutable, "%q has no execute permission", name)
	}
	return nil
}

func variable(env []string, key string) string {
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, key+"="); ok {
			return value
		}
	}
	return ""
}

// startFault names what kept a program that was found from starting.
func startFault(program string, user *User, err error) *fault.Error {
	switch {
	case errors.Is(err, syscall.ENOENT):
		return fault.New(fault.ProgramNotExecutable, "%q: its interpreter does not exist", program)
	case errors.Is(err, syscall.EPERM) && user != nil:
		return fault.New(fault.UserUnavailable, "cannot become user %d:%d: %v", user.UID, user.GID, err)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ENOEXEC), errors.Is(err, syscall.EPERM),
		errors.Is(err, syscall.ETXTBSY):
		return fault.New(fault.ProgramNotExecutable, "%q: %v", program, err)
	case errors.Is(err, syscall.E2BIG), errors.Is(err, syscall.ENAMETOOLONG): // gVisor's word for one that is too long
		return fault.New(fault.BadRequest, "argv and env are too long for the kernel: %v", err)
	case errors.Is(err, syscall.EAGAIN):
		return fault.New(fault.ProcessLimit, "no more processes can be started: %v", err)
	}
	return fault.New(fault.StartFailed, "%q: %v", program, err)
}
