package server

import (
	"slices"
	"strings"

	"agentic-isolation/guest/internal/fault"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// baseEnvironment is what commands inherit. The guest's own working directory is none of theirs.
func baseEnvironment(environ []string) []string {
	env := slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
		return strings.HasPrefix(entry, "PWD=") || strings.HasPrefix(entry, "OLDPWD=")
	})
	if !slices.ContainsFunc(env, func(entry string) bool { return strings.HasPrefix(entry, "PATH=") }) {
		env = append(env, "PATH="+defaultPath)
	}
	return env
}

// environment is a command's environment: base, PWD, and over them what the request lays.
func (g *Guest) environment(over map[string]string, dir string) ([]string, error) {
	env := make([]string, 0, len(g.env)+len(over)+1)
	for _, entry := range g.env {
		key, _, _ := strings.Cut(entry, "=")
		if _, replaced := over[key]; !replaced {
			env = append(env, entry)
		}
	}
	if _, given := over["PWD"]; !given {
		env = append(env, "PWD="+dir)
	}
	for key, value := range over {
		if key == "" || strings.ContainsAny(key, "=\x00") || strings.ContainsRune(value, 0) {
			return nil, fault.New(fault.BadRequest, "env: %q is not a valid name, or its value holds a NUL", key)
		}
		env = append(env, key+"="+value)
	}
	return env, nil
}
