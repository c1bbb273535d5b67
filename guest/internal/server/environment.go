package server

import (
	"slices"
	"strings"

	"agentic-isolation/guest/internal/fault"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// defaultTerm is what terminals are, where nobody says otherwise.
const defaultTerm = "xterm-256color"

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

// environment is a command's environment: base, PWD and a terminal's TERM, over them the secrets, and what the request lays.
func (g *Guest) environment(r *runRequest, secrets *secrets, dir string) ([]string, error) {
	for key, value := range r.Env {
		if !validVariable(key, value) {
			return nil, fault.New(fault.BadRequest, "env: %q is not a valid name, or its value holds a NUL", key)
		}
	}
	env := make([]string, 0, len(g.env)+len(secrets.variables)+len(r.Env)+2)
	given := make(map[string]bool, cap(env))
	add := func(key, value string) {
		if !given[key] {
			given[key] = true
			env = append(env, key+"="+value)
		}
	}
	for _, layer := range []map[string]string{r.Env, secrets.variables, {"PWD": dir}} {
		for key, value := range layer {
			add(key, value)
		}
	}
	for _, entry := range g.env {
		key, value, _ := strings.Cut(entry, "=")
		add(key, value)
	}
	if r.Terminal != nil {
		add("TERM", defaultTerm)
	}
	return env, nil
}

func validVariable(key, value string) bool {
	return key != "" && !strings.ContainsAny(key, "=\x00") && !strings.ContainsRune(value, 0)
}
