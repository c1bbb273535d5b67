package server

import (
	"maps"
	"slices"
	"strings"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/link"
	"agentic-isolation/guest/internal/redact"
)

// maxSecrets bounds the names and values of all secrets, in bytes.
const maxSecrets = 128 << 10

// secrets are variables of every command whose values may be replaced in its output.
type secrets struct {
	variables map[string]string
	// inPipes and inTerminals are the values as they come out of either: a terminal begins its lines by CR LF.
	inPipes, inTerminals *redact.Values
}

type secretsRequest struct {
	Values map[string]string `json:"values"`
}

func (g *Guest) keepSecrets(_ *link.Channel, r *secretsRequest) (none, error) {
	if err := checkSecrets(r.Values); err != nil {
		return none{}, err
	}
	g.secrets.Store(newSecrets(r.Values))
	return none{}, nil
}

func checkSecrets(values map[string]string) error {
	if values == nil {
		return fault.New(fault.BadRequest, "values: required")
	}
	size := 0
	for key, value := range values {
		if !validVariable(key, value) {
			return fault.New(fault.BadRequest, "values: %q is not a valid name, or its value holds a NUL", key)
		}
		size += len(key) + len(value)
	}
	if size > maxSecrets {
		return fault.New(fault.BadRequest, "values: at most %d bytes, not %d", maxSecrets, size)
	}
	return nil
}

func newSecrets(variables map[string]string) *secrets {
	values := slices.Collect(maps.Values(variables))
	s := &secrets{variables: variables, inPipes: redact.New(values)}
	s.inTerminals = s.inPipes
	converted := len(values)
	for _, value := range values[:converted] {
		if strings.Contains(value, "\n") {
			values = append(values, strings.ReplaceAll(value, "\n", "\r\n"))
		}
	}
	if len(values) > converted {
		s.inTerminals = redact.New(values)
	}
	return s
}

// redacting returns what to replace in a command's output; nil: nothing.
func (s *secrets) redacting(r *runRequest) *redact.Values {
	switch {
	case !r.Redact:
		return nil
	case r.Terminal != nil:
		return s.inTerminals
	}
	return s.inPipes
}
