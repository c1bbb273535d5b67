package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

var key = strings.Repeat("0f", 32)

func settingsWith(more string) string {
	return fmt.Sprintf(`{"workspace_id":"w","key":%q,"socket":"@s","lease_ms":1500%s}`, key, more)
}

func TestDefaults(t *testing.T) {
	t.Setenv(Variable, settingsWith(""))
	c, err := FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	if c.Root != "/" || c.Mount != "/" || c.WorkingDir != "/" || !c.NoNewPrivileges || c.Lease != 1500*time.Millisecond || len(c.Key) != 32 {
		t.Fatalf("%+v", c)
	}
	if c.Idle != 0 || c.Lifetime != 0 || c.RequestWindow != 10*time.Minute {
		t.Fatalf("%+v", c)
	}
	if _, left := os.LookupEnv(Variable); left {
		t.Fatal("the variable is left")
	}
}

func TestWorkingDirDefaultsToMount(t *testing.T) {
	c, err := Parse([]byte(settingsWith(`,"root":"/srv/w","mount":"/workspace/","no_new_privileges":false`)))
	if err != nil || c.WorkingDir != "/workspace" || c.NoNewPrivileges {
		t.Fatalf("%+v %v", c, err)
	}
}

func TestTimes(t *testing.T) {
	c, err := Parse([]byte(settingsWith(`,"idle_ms":5,"lifetime_ms":9223372036854775807,"request_window_ms":7`)))
	if err != nil || c.Idle != 5*time.Millisecond || c.Lifetime < 10_000*time.Hour || c.RequestWindow != 7*time.Millisecond {
		t.Fatalf("%+v %v", c, err)
	}
}

func TestRefusals(t *testing.T) {
	for _, raw := range []string{
		"", "[]", settingsWith(`,"key":"zz"`), settingsWith(`,"socket":""`), settingsWith(`,"lease_ms":-1`),
		settingsWith(`,"root":"relative"`), settingsWith(`,"mount":"/workspace"`), settingsWith(`,"working_dir":"x"`),
		settingsWith(`,"cleanup":"/"`), settingsWith(`,"cleanup":"x"`), settingsWith(`,"sweep":"//"`),
		settingsWith(`,"workspace_id":""`), settingsWith(`,"idle_ms":-1`), settingsWith(`,"lifetime_ms":-1`), settingsWith(`,"request_window_ms":0`),
		settingsWith(`,"lease_ms":"5"`),
		settingsWith(`,"resolvers":["resolver.test"]`), settingsWith(`,"resolvers":["2001:db8::53"]`),
	} {
		if c, err := Parse([]byte(raw)); err == nil {
			t.Errorf("%s: %+v", raw, c)
		} else if strings.Contains(err.Error(), key) {
			t.Errorf("the key is told: %v", err)
		}
	}
}
