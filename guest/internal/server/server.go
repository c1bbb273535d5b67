// Package server is the guest itself: it wires links, processes, files and lease together.
package server

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"agentic-isolation/guest/internal/cgroup"
	"agentic-isolation/guest/internal/config"
	"agentic-isolation/guest/internal/files"
	"agentic-isolation/guest/internal/kernel"
	"agentic-isolation/guest/internal/lease"
	"agentic-isolation/guest/internal/link"
	"agentic-isolation/guest/internal/pool"
	"agentic-isolation/guest/internal/process"
	"agentic-isolation/guest/internal/resolver"
	"agentic-isolation/guest/internal/traces"
)

const (
	// reservedThreads covers every place where the guest may block in the kernel at a time.
	reservedThreads = 12
	farewell        = 2 * time.Second
)

// Guest is a running guest.
type Guest struct {
	config *config.Config
	env    []string
	files  *files.Space
	shims  *pool.Pool
	table  *process.Table
	lease  *lease.Lease
	// processors are those of the runtime.
	processors *processors
	rest       rest
	group      *cgroup.Group
	id         link.Identity
	// record is what the service has given the guest to remember.
	record atomic.Pointer[string]
	// claimed: somebody has the guest; nobody else can get it.
	claimed atomic.Bool
	// secrets are never nil.
	secrets atomic.Pointer[secrets]
	endOnce sync.Once
	// ending is closed when the guest begins to end, and quiet when every process has gone.
	ending chan struct{}
	quiet  chan struct{}

	mu    sync.Mutex
	links map[*link.Link]struct{}
	// parting is what links are told once the guest ends.
	parting *endingEvent
}

// endingEvent tells why the guest ends.
type endingEvent struct {
	Event  string `json:"event"`
	Reason string `json:"reason"`
}

// The reasons to end that are not the lease's.
const (
	reasonShutdown = "shutdown"
	reasonSignal   = "signal"
)

// Main is the guest process. It returns the exit code.
func Main(version string) int {
	// First of all: the environment that the kernel keeps for this process holds the key.
	if err := kernel.ForbidTracing(); err != nil {
		return complain("cannot forbid tracing", err)
	}
	kernel.SealDescriptors()
	settings, err := config.FromEnvironment()
	if err != nil {
		return complain("settings", err)
	}
	held := lease.New(lease.Terms{Lease: settings.Lease, Idle: settings.Idle, Lifetime: settings.Lifetime})
	asked := endingSignals()
	if err := confine(settings); err != nil {
		return complain("confinement", err)
	}
	space, err := files.New(settings.Root, settings.Mount, settings.WorkingDir)
	if err != nil {
		return complain("files", err)
	}
	g := &Guest{
		config: settings, env: baseEnvironment(os.Environ()), files: space, lease: held, processors: newProcessors(), group: cgroup.Own(),
		id: link.Identity{
			WorkspaceID: settings.WorkspaceID, BootID: link.RandomHex(16), Version: version, Key: settings.Key,
		},
		ending: make(chan struct{}), quiet: make(chan struct{}), links: map[*link.Link]struct{}{},
	}
	g.secrets.Store(&secrets{})
	if err := resolve(settings.Resolvers); err != nil {
		return complain("name server", err)
	}
	listener, err := listen(settings.Socket)
	if err != nil {
		return complain("socket", err)
	}
	g.shims = pool.New(settings.MaxCommands)
	g.table = process.NewTable(g.shims, g.group, held, settings.RequestWindow)
	go g.admit(listener)
	fmt.Println("ready")
	select {
	case <-held.Ended():
		g.end(string(held.Reason()))
	case <-asked:
		g.end(reasonSignal)
	case <-g.ending:
	}
	return g.windUp(listener)
}

// resolve starts the workspace's own name server where there are ones to ask. It ends with the process.
func resolve(resolvers []netip.Addr) error {
	if len(resolvers) == 0 {
		return nil
	}
	upstream := make([]string, len(resolvers))
	for i, address := range resolvers {
		upstream[i] = netip.AddrPortFrom(address, resolver.Port).String()
	}
	relay, err := resolver.Listen(resolver.Address, upstream)
	if err != nil {
		return err
	}
	go relay.Serve()
	return nil
}

func confine(settings *config.Config) error {
	if err := kernel.BecomeSubreaper(); err != nil {
		return fmt.Errorf("subreaper: %w", err)
	}
	if settings.NoNewPrivileges {
		if err := kernel.DropNewPrivileges(); err != nil {
			return fmt.Errorf("no new privileges: %w", err)
		}
	}
	if settings.RefuseCalls {
		if err := kernel.RefuseRiskyCalls(); err != nil {
			return fmt.Errorf("refusal of system calls: %w", err)
		}
	}
	kernel.ReserveThreads(reservedThreads)
	return nil
}

// end makes the guest end and tells every link why. Calling it again is harmless.
func (g *Guest) end(reason string) {
	g.endOnce.Do(func() {
		g.mu.Lock()
		g.parting = &endingEvent{Event: "ending", Reason: reason}
		for l := range g.links {
			l.Announce(g.parting)
		}
		g.mu.Unlock()
		close(g.ending)
	})
}

func (g *Guest) isEnding() bool {
	select {
	case <-g.ending:
		return true
	default:
		return false
	}
}

// windUp kills every process, tells their results, and removes what the guest is to leave no trace of. Only then do
// the links end. The socket is served until nothing is left but traces: who can connect knows that the guest lives.
func (g *Guest) windUp(listener net.Listener) int {
	g.table.Close()
	g.shims.Close()
	close(g.quiet)
	g.mu.Lock()
	var drained sync.WaitGroup
	for l := range g.links {
		drained.Go(func() { l.Drain(farewell) })
	}
	g.mu.Unlock()
	drained.Wait()
	_ = listener.Close()
	if err := traces.Remove(g.config); err != nil {
		return complain("cleanup", err)
	}
	return 0
}

func complain(what string, err error) int {
	fmt.Fprintf(os.Stderr, "agentic-guest: %s: %v\n", what, err)
	return 1
}
