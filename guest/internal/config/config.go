// Package config reads the guest's settings.
package config

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"time"

	"agentic-isolation/guest/internal/kernel"
)

// Variable is the environment variable that holds the settings.
const Variable = "AGENTIC_GUEST_CONFIG"

const keySize = 32

// Config is the guest's settings, checked and with defaults filled in.
type Config struct {
	WorkspaceID string
	Key         []byte
	Socket      string
	Root        string
	Mount       string
	WorkingDir  string
	Lease       time.Duration
	// Idle and Lifetime end the guest as well; 0: they do not.
	Idle, Lifetime time.Duration
	// RequestWindow is how long what was asked for by a request is remembered.
	RequestWindow   time.Duration
	NoNewPrivileges bool
	// RefuseCalls takes system calls away that workloads hardly need and that have led out of containers.
	RefuseCalls bool
	MaxCommands int
	Cleanup     string
	Sweep       string
	Resolvers   []netip.Addr
}

type settings struct {
	WorkspaceID     string   `json:"workspace_id"`
	Key             string   `json:"key"`
	Socket          string   `json:"socket"`
	Root            string   `json:"root"`
	Mount           string   `json:"mount"`
	WorkingDir      string   `json:"working_dir"`
	LeaseMS         int64    `json:"lease_ms"`
	IdleMS          int64    `json:"idle_ms"`
	LifetimeMS      int64    `json:"lifetime_ms"`
	RequestWindowMS *int64   `json:"request_window_ms"`
	NoNewPrivileges *bool    `json:"no_new_privileges"`
	RefuseCalls     bool     `json:"refuse_calls"`
	MaxCommands     *int     `json:"max_commands"`
	Cleanup         string   `json:"cleanup"`
	Sweep           string   `json:"sweep"`
	Resolvers       []string `json:"resolvers"`
}

// FromEnvironment reads the settings from Variable and erases it.
func FromEnvironment() (*Config, error) {
	raw, ok := os.LookupEnv(Variable)
	if !ok {
		return nil, errors.New(Variable + " is not set: it must hold the settings as a JSON object")
	}
	if err := kernel.EraseVariable(Variable); err != nil {
		return nil, err
	}
	return Parse([]byte(raw))
}

// Parse checks raw settings and fills in the defaults.
func Parse(raw []byte) (*Config, error) {
	var s settings
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&s); err != nil {
		// The decoder's message may quote the input, which holds the key.
		return nil, errors.New(Variable + " is not a JSON object of the documented shape")
	}
	key, err := hex.DecodeString(s.Key)
	if err != nil || len(key) != keySize {
		return nil, fmt.Errorf("key: want %d bytes in hex", keySize)
	}
	c := &Config{
		WorkspaceID: s.WorkspaceID, Key: key, Socket: s.Socket,
		Root: orDefault(s.Root, "/"), Mount: path.Clean(orDefault(s.Mount, "/")),
		Lease:           millis(s.LeaseMS),
		Idle:            millis(s.IdleMS),
		Lifetime:        millis(s.LifetimeMS),
		RequestWindow:   defaultRequestWindow,
		NoNewPrivileges: s.NoNewPrivileges == nil || *s.NoNewPrivileges,
		RefuseCalls:     s.RefuseCalls,
		MaxCommands:     defaultMaxCommands,
		Cleanup:         s.Cleanup, Sweep: s.Sweep,
	}
	if s.RequestWindowMS != nil {
		c.RequestWindow = millis(*s.RequestWindowMS)
	}
	if s.MaxCommands != nil {
		c.MaxCommands = *s.MaxCommands
	}
	for _, text := range s.Resolvers {
		address, err := netip.ParseAddr(text)
		if err != nil || !address.Is4() {
			return nil, fmt.Errorf("resolvers: %q is no IPv4 address", text)
		}
		c.Resolvers = append(c.Resolvers, address)
	}
	c.WorkingDir = orDefault(s.WorkingDir, c.Mount)
	return c, c.check()
}

const (
	// maxMillis is some thirty years; nothing waits longer.
	maxMillis            = int64(1) << 40
	defaultRequestWindow = 10 * time.Minute
	defaultMaxCommands   = 1024
)

func millis(n int64) time.Duration {
	return time.Duration(max(min(n, maxMillis), -1)) * time.Millisecond
}

func (c *Config) check() error {
	switch {
	case c.WorkspaceID == "":
		return errors.New("workspace_id: required")
	case c.Socket == "":
		return errors.New("socket: required")
	case c.RefuseCalls && !c.NoNewPrivileges:
		return errors.New("refuse_calls: needs no_new_privileges")
	case c.MaxCommands < 1:
		return errors.New("max_commands: must be positive")
	case c.Lease <= 0:
		return errors.New("lease_ms: must be positive")
	case c.Idle < 0, c.Lifetime < 0:
		return errors.New("idle_ms, lifetime_ms: must not be negative")
	case c.RequestWindow <= 0:
		return errors.New("request_window_ms: must be positive")
	case !filepath.IsAbs(c.Root):
		return fmt.Errorf("root: %q is not absolute", c.Root)
	case !path.IsAbs(c.Mount):
		return fmt.Errorf("mount: %q is not absolute", c.Mount)
	case !path.IsAbs(c.WorkingDir):
		return fmt.Errorf("working_dir: %q is not absolute", c.WorkingDir)
	case c.Root == "/" && c.Mount != "/":
		return fmt.Errorf("mount: %q needs a root other than /", c.Mount)
	case c.Cleanup != "" && !filepath.IsAbs(c.Cleanup):
		return fmt.Errorf("cleanup: %q is not absolute", c.Cleanup)
	case c.Cleanup != "" && filepath.Clean(c.Cleanup) == "/", c.Sweep != "" && filepath.Clean(c.Sweep) == "/":
		return errors.New("cleanup, sweep: must not be /")
	case c.Sweep != "" && !filepath.IsAbs(c.Sweep):
		return fmt.Errorf("sweep: %q is not absolute", c.Sweep)
	}
	return nil
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
