package server

import (
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/link"
	"agentic-isolation/guest/internal/process"
	"agentic-isolation/guest/internal/shim"
)

const (
	defaultCapture = 1 << 20
	maxCapture     = 16 << 20
	// maxRequest bounds the digest of what was asked, in characters.
	maxRequest = 128
	// maxID bounds a process's id, in bytes.
	maxID = 64
)

type runRequest struct {
	ProcessID    string            `json:"process_id"`
	Request      string            `json:"request"`
	Argv         []string          `json:"argv"`
	Env          map[string]string `json:"env"`
	Cwd          string            `json:"cwd"`
	Stdin        bool              `json:"stdin"`
	User         string            `json:"user"`
	TimeoutMS    *int64            `json:"timeout_ms"`
	KillGraceMS  int64             `json:"kill_grace_ms"`
	LingerMS     int64             `json:"linger_ms"`
	Output       string            `json:"output"`
	CaptureBytes *int64            `json:"capture_bytes"`
	Lines        bool              `json:"lines"`
	Overflow     string            `json:"overflow"`
	Input        bool              `json:"input"`
	Terminal     *terminalSize     `json:"terminal"`
	Redact       bool              `json:"redact"`
}

type startedEvent struct {
	Event         string `json:"event"`
	ProcessID     string `json:"process_id"`
	PID           int    `json:"pid"`
	StartedUnixNS int64  `json:"started_unix_ns"`
}

func openRun(g *Guest, ch *link.Channel, raw []byte) (func(), error) {
	request, err := decode[runRequest](raw)
	if err != nil {
		return nil, err
	}
	if request.Stdin {
		ch.AcceptData()
	}
	return func() { g.run(ch, request) }, nil
}

func (g *Guest) run(ch *link.Channel, request *runRequest) {
	spec, err := check(request)
	if err != nil {
		ch.Fail(err)
		return
	}
	var input []byte
	if request.Stdin && request.Request != "" {
		// A request whose channel breaks in the middle of its input has not begun: its repeat brings the whole again.
		if input, err = collect(ch); err != nil {
			ch.Fail(err)
			return
		}
	}
	p, err := g.table.Start(spec, func(spec *process.Spec) error { return g.settle(request, spec) })
	if err != nil {
		ch.Fail(err)
		return
	}
	// A failure to send is a closed channel, which stream finds. Who gets all at the end is not told of the beginning before.
	tell := ch.Event
	if spec.Capture {
		tell = ch.Preface
	}
	_ = tell(startedEvent{Event: "started", ProcessID: p.ID, PID: p.PID(), StartedUnixNS: p.StartedUnixNS()})
	if request.Stdin {
		bring(ch, p, input, request.Request != "")
	}
	g.viewer(ch, p).stream(0)
}

// check reads from a request all that nothing but the request decides.
func check(r *runRequest) (*process.Spec, error) {
	spec := &process.Spec{ID: r.ProcessID, Request: r.Request, Argv: r.Argv, Stdin: r.Stdin, Lines: r.Lines}
	for _, part := range []func(*runRequest, *process.Spec) error{checkCommand, checkInput, checkTimes, checkOutput, checkUser} {
		if err := part(r, spec); err != nil {
			return nil, err
		}
	}
	return spec, nil
}

// settle reads from a request what the workspace has a part in. The spec's directory is open then; Start closes it.
func (g *Guest) settle(r *runRequest, spec *process.Spec) error {
	dir, realPath, err := g.files.WorkingDir(r.Cwd)
	if err != nil {
		return err
	}
	secrets := g.secrets.Load()
	if spec.Env, err = g.environment(r, secrets, realPath); err != nil {
		dir.Close()
		return err
	}
	spec.Redact = secrets.redacting(r)
	spec.Dir = dir
	return nil
}

func checkID(id string) error {
	if len(id) == 0 || len(id) > maxID || strings.ContainsFunc(id, isForeign) {
		return fault.New(fault.BadRequest, "process_id: want 1 to 64 of A-Z a-z 0-9 _ -, not %q", id)
	}
	return nil
}

// isForeign tells what no id holds.
func isForeign(r rune) bool {
	letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	return !letter && !('0' <= r && r <= '9') && r != '_' && r != '-'
}

func checkCommand(r *runRequest, _ *process.Spec) error {
	if err := checkID(r.ProcessID); err != nil {
		return err
	}
	if n := utf8.RuneCountInString(r.Request); n > maxRequest {
		return fault.New(fault.BadRequest, "request: at most %d characters, not %d", maxRequest, n)
	}
	if len(r.Argv) == 0 || r.Argv[0] == "" {
		return fault.New(fault.BadRequest, "argv: names no program")
	}
	for i, arg := range r.Argv {
		if strings.ContainsRune(arg, 0) {
			return fault.New(fault.BadRequest, "argv[%d]: holds a NUL", i)
		}
	}
	return nil
}

func checkInput(r *runRequest, spec *process.Spec) (err error) {
	if r.Stdin && (r.Input || r.Terminal != nil) {
		return fault.New(fault.BadRequest, "stdin: not with input or terminal")
	}
	spec.Input = r.Input || r.Terminal != nil
	if r.Terminal != nil {
		spec.Terminal, err = r.Terminal.check("terminal.")
	}
	return err
}

func checkTimes(r *runRequest, spec *process.Spec) (err error) {
	if r.TimeoutMS != nil {
		if spec.Timeout, err = millis("timeout_ms", *r.TimeoutMS, 1); err != nil {
			return err
		}
	}
	if spec.Grace, err = millis("kill_grace_ms", r.KillGraceMS, 0); err != nil {
		return err
	}
	spec.Linger, err = millis("linger_ms", r.LingerMS, -1)
	return err
}

func checkOutput(r *runRequest, spec *process.Spec) error {
	switch r.Output {
	case "", "log":
	case "capture":
		spec.Capture, spec.Limit = true, defaultCapture
		if r.CaptureBytes != nil {
			if *r.CaptureBytes < 0 || *r.CaptureBytes > maxCapture {
				return fault.New(fault.BadRequest, "capture_bytes: want 0 to %d, not %d", maxCapture, *r.CaptureBytes)
			}
			spec.Limit = int(*r.CaptureBytes)
		}
	default:
		return fault.New(fault.BadRequest, "output: want log or capture, not %q", r.Output)
	}
	switch r.Overflow {
	case "", "hold":
	case "drop":
		spec.Overflow = process.Drop
	default:
		return fault.New(fault.BadRequest, "overflow: want hold or drop, not %q", r.Overflow)
	}
	return nil
}

func checkUser(r *runRequest, spec *process.Spec) error {
	if r.User == "" {
		return nil
	}
	first, second, both := strings.Cut(r.User, ":")
	if !both {
		second = first
	}
	uid, err1 := strconv.ParseUint(first, 10, 32)
	gid, err2 := strconv.ParseUint(second, 10, 32)
	if err1 != nil || err2 != nil {
		return fault.New(fault.BadRequest, "user: want UID or UID:GID in numbers, not %q", r.User)
	}
	if int(uid) == os.Geteuid() && (!both || int(gid) == os.Getegid()) {
		return nil
	}
	if os.Geteuid() != 0 {
		return fault.New(fault.UserUnavailable, "the guest runs as user %d and cannot become %s", os.Geteuid(), r.User)
	}
	spec.User = &shim.User{UID: uint32(uid), GID: uint32(gid)}
	return nil
}
