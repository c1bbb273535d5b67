//go:build linux

package pool

import (
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/shim"
)

// told is an observer that passes on when the tree's end was told.
type told chan Event

func (t told) Observe(e Event) { t <- e }
func (t told) Lost(int)        {}

// connected returns both ends of a connection to a shim.
func connected(t *testing.T) (guest, shim *net.UnixConn) {
	t.Helper()
	pair, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]*net.UnixConn, 2)
	for i, fd := range pair {
		file := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		ends[i] = conn.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// childless is a pool whose shims are made up.
func childless() *Pool {
	return &Pool{
		limit: 4, shims: map[int]*worker{}, bound: map[*worker]struct{}{},
		low: make(chan struct{}, 1), strays: make(chan struct{}, 1), freed: make(chan struct{}, 1), quit: make(chan struct{}),
	}
}

// A command that ends by itself just when it is killed leaves a shim with a kill before it, which would be the next
// command's.
func TestShimWithAKillBeforeItRunsNoOtherCommand(t *testing.T) {
	ours, theirs := connected(t)
	p := childless()
	w := newWorker(p, os.Getpid(), ours)
	p.bind(w)
	over := make(told, 1)
	tree := &Tree{worker: w, channel: 1, observer: over, over: make(chan struct{})}
	w.tree, w.last = tree, 1
	listening := make(chan struct{})
	go func() { w.listen(); close(listening) }()

	end, err := frame.AppendJSON(nil, frame.Event, 1, &shim.Event{Event: shim.EventExited, Empty: true})
	if err != nil {
		t.Fatal(err)
	}
	// The end is told between the kill's first and second turn with the lock, if it takes several: who has waited for
	// one in vain for long gets it next.
	w.mu.Lock()
	killed := make(chan struct{})
	go func() { tree.Kill(0); close(killed) }()
	time.Sleep(5 * time.Millisecond)
	if _, err := theirs.Write(end); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Millisecond)
	w.mu.Unlock()
	w.mu.Lock()
	time.Sleep(5 * time.Millisecond)
	w.mu.Unlock()
	<-over
	<-killed
	p.mu.Lock()
	idle := len(p.idle)
	p.mu.Unlock()
	if idle != 0 {
		t.Error("the shim is ready for another command")
	}
	ours.Close()
	<-listening
}

// lost is an observer that passes on that the shim was.
type lost chan int

func (l lost) Observe(Event)      {}
func (l lost) Lost(survivors int) { l <- survivors }

// A shim that was killed while somebody traced it stays unreaped for as long as its tracer likes.
func TestCommandOfAShimThatCannotBeReapedEnds(t *testing.T) {
	ours, theirs := connected(t)
	p := childless()
	w := newWorker(p, 0, ours)
	p.bind(w)
	over := make(lost, 1)
	w.tree = &Tree{worker: w, channel: 1, observer: over, over: make(chan struct{})}
	go w.listen()
	theirs.Close()
	select {
	case survivors := <-over:
		if survivors != 0 {
			t.Errorf("%d survivors", survivors)
		}
	case <-time.After(2 * exitWait):
		t.Error("nobody is told")
	}
	close(p.quit)
}

// A command that waits for room asks for it now and then, and is not woken by its own failure.
func TestWaitingForRoomTakesNoProcessor(t *testing.T) {
	const tries = 6
	ours, theirs := connected(t)
	p := childless()
	w := newWorker(p, os.Getpid(), ours)
	p.idle = append(p.idle, w)
	p.bind(newWorker(p, 0, nil)) // runs something, whose end may make room
	listening := make(chan struct{})
	go func() { w.listen(); close(listening) }()
	go func() {
		decoder := frame.NewDecoder(theirs)
		for n := 1; ; n++ {
			f, err := decoder.Next()
			if err != nil {
				return
			}
			refusal, err := frame.AppendJSON(nil, frame.Error, f.Channel, fault.New(fault.ProcessLimit, "full"))
			if err != nil {
				panic(err)
			}
			if n == tries {
				close(p.quit)
			}
			_, _ = theirs.Write(refusal)
		}
	}()
	start := time.Now()
	if _, err := p.Start(&Spec{Argv: []string{"true"}, Dir: os.Stdin}, make(told, 1)); err != errClosed {
		t.Error(err)
	}
	if took := time.Since(start); took < (1<<(tries-1)-1)*firstRetry {
		t.Errorf("it has tried %d times in %v", tries, took)
	}
	ours.Close()
	<-listening
}

// A shim that there is no room for dies at once. The next one is started when somebody needs it.
func TestShimsThatDieAtTheirStartAreNotReplaced(t *testing.T) {
	p := childless()
	dir := t.TempDir()
	log := filepath.Join(dir, "started")
	p.program = filepath.Join(dir, "shim")
	if err := os.WriteFile(p.program, []byte("#!/bin/sh\necho >> "+log+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.empty = sync.NewCond(&p.forks)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	p.tasks.Go(func() { p.reap(children) })
	p.tasks.Go(func() { p.onDemand(p.low, p.warm) })
	demand(p.low)
	for started := 0; started == 0; time.Sleep(50 * time.Millisecond) {
		content, _ := os.ReadFile(log)
		started = len(content)
	}
	if !p.awaitNoShims(10 * time.Second) {
		t.Error("it is not reaped")
	}
	close(p.quit)
	p.tasks.Wait()
	if content, err := os.ReadFile(log); err != nil || len(content) != 1 {
		t.Errorf("%d were started (%v)", len(content), err)
	}
}
