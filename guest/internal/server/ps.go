package server

import (
	"cmp"
	"encoding/json"
	"slices"

	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/link"
	"agentic-isolation/guest/internal/process"
	"agentic-isolation/guest/internal/proctree"
)

const (
	tickMicros = 10_000
	// maxListing bounds a listing: a frame must hold it. Of that, maxArgv are for all argument lists.
	maxListing = frame.MaxPayload - 4<<10
	maxArgv    = 256 << 10
)

type processInfo struct {
	ProcessID     string   `json:"process_id"`
	Argv          []string `json:"argv"`
	PID           int      `json:"pid"`
	State         string   `json:"state"`
	StartedUnixNS int64    `json:"started_unix_ns"`
	CPUMicros     int64    `json:"cpu_us"`
	Memory        int64    `json:"memory_bytes"`
	*processDetails
}

// processDetails are absent on links of version 2.
type processDetails struct {
	Terminal    bool            `json:"terminal"`
	Detached    bool            `json:"detached"`
	OutputBytes uint64          `json:"output_bytes"`
	Processes   int             `json:"processes"`
	Result      *process.Result `json:"result,omitempty"`
}

type psResult struct {
	Processes []processInfo `json:"processes"`
}

func (g *Guest) ps(ch *link.Channel, _ *none) (psResult, error) {
	all := g.table.All()
	slices.SortFunc(all, func(a, b *process.Process) int { return cmp.Compare(a.StartedUnixNS(), b.StartedUnixNS()) })
	living, _ := proctree.Snapshot()
	infos := make([]processInfo, 0, len(all))
	for _, p := range all {
		infos = append(infos, describe(p, p.Members(living), ch.Version() >= 3))
	}
	return psResult{fit(infos)}, nil
}

func describe(p *process.Process, members []proctree.Proc, detailed bool) processInfo {
	end := p.Result()
	info := processInfo{
		ProcessID: p.ID, Argv: p.Argv, PID: p.PID(), State: "running", StartedUnixNS: p.StartedUnixNS(),
	}
	for _, member := range members {
		info.CPUMicros += int64(member.CPUTicks) * tickMicros
		info.Memory += proctree.Resident(member.PID)
	}
	if end != nil {
		info.State, info.CPUMicros = "exited", end.CPUMicros
	}
	if detailed {
		_, written := p.Log().Bounds()
		info.processDetails = &processDetails{
			Terminal: p.Terminal != nil, Detached: p.Linger < 0, OutputBytes: written,
			Processes: proctree.Living(members), Result: end,
		}
	}
	return info
}

// fit makes a listing, oldest first, small enough for a frame: it leaves out the oldest that have ended where all are too
// many, and shares what the rest leaves among the argument lists.
func fit(infos []processInfo) []processInfo {
	argvs := make([][]string, len(infos))
	sizes := make([]int, len(infos))
	left := maxListing
	for i := range infos {
		argvs[i], infos[i].Argv = infos[i].Argv, []string{}
		sizes[i] = encoded(infos[i]) + len(",")
		left -= sizes[i]
	}
	fitting := infos[:0]
	for i, info := range infos {
		if left < 0 && info.State != "running" {
			left += sizes[i]
			continue
		}
		info.Argv = argvs[i]
		fitting = append(fitting, info)
	}
	for i := range fitting {
		fitting[i].Argv = shorten(fitting[i].Argv, min(left, maxArgv)/len(fitting))
	}
	return fitting
}

// shorten cuts an argument list to n bytes of JSON.
func shorten(argv []string, n int) []string {
	short := make([]string, 0, len(argv))
	for _, arg := range argv {
		size := len(arg)
		if size <= n {
			size = encoded(arg) + len(",")
		}
		if size > n {
			if arg = cut(arg, n); arg != "" {
				short = append(short, arg)
			}
			return short
		}
		n -= size
		short = append(short, arg)
	}
	return short
}

// cut returns the beginning of a string that takes less than n bytes of JSON; nothing where there is no room for that.
func cut(s string, n int) string {
	const mark = "…"
	for keep := min(n, len(s)); keep > 0; keep /= 2 {
		if short := s[:keep] + mark; encoded(short) < n {
			return short
		}
	}
	return ""
}

// encoded is how long v is as JSON.
func encoded(v any) int {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return len(raw)
}
