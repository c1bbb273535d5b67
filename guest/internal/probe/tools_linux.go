package probe

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// tools do what some attempts need that are judged from outside, in places without a shell.
var tools = map[string]func(args []string) error{
	"euid": func([]string) error {
		fmt.Println(syscall.Geteuid())
		return nil
	},
	"hold": func(args []string) error {
		return withSeconds(args, 1, func(deadline time.Time) error {
			time.Sleep(time.Until(deadline))
			return nil
		})
	},
	"link": func(args []string) error {
		if len(args) != 2 {
			return errUsage
		}
		return os.Symlink(args[1], args[0])
	},
	"swap": func(args []string) error {
		return withSeconds(args, 3, func(deadline time.Time) error { return swap(args[0], args[1], deadline) })
	},
}

var errUsage = errors.New("wrong arguments; see `agentic-guest probe`")

// withSeconds takes the last argument as a time to go on for.
func withSeconds(args []string, count int, act func(deadline time.Time) error) error {
	if len(args) != count {
		return errUsage
	}
	n, err := strconv.ParseFloat(args[count-1], 64)
	if err != nil {
		return errUsage
	}
	return act(time.Now().Add(seconds(n)))
}

// swap makes path a file and a symlink in turn, so that whoever looks before it opens is misled.
func swap(path, target string, deadline time.Time) error {
	aside := path + ".next"
	defer os.Remove(path)
	for time.Now().Before(deadline) {
		if err := os.WriteFile(aside, []byte("decoy"), 0o644); err != nil {
			return err
		}
		if err := os.Rename(aside, path); err != nil {
			return err
		}
		if err := os.Symlink(target, aside); err != nil {
			return err
		}
		if err := os.Rename(aside, path); err != nil {
			return err
		}
	}
	return nil
}
