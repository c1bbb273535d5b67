package probe

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/link"
)

var guestAttempts = []attempt{
	{"guest-frames", "speak to the guest without its key", forgeFrames},
	{"guest-socket", "listen in the guest's place", takeSocket},
	{"guest-volume-write", "replace the guest's program", replaceGuest},
	{"kill-init", "kill PID 1", func(t *trial) { signalInit(t, syscall.SIGKILL) }},
	{"stop-init", "stop PID 1", func(t *trial) { signalInit(t, syscall.SIGSTOP) }},
	{"signal-init", "end PID 1 by any other signal", func(t *trial) { signalInit(t, otherSignals()...) }},
	{"stop-supervisors", "stop the guest's shims and bridges", stopSupervisors},
}

const (
	guestSocket    = "@agentic-isolation-guest"
	guestPatience  = 3 * time.Second
	highestSignal  = 64
	nonceSize      = 16
	proofSize      = 32
	settleAfter    = 20 * time.Millisecond
	forgedChannel  = 1
	noGuestMessage = "no guest listens in the abstract namespace"
)

type forgedHello struct {
	Version int    `json:"version"`
	Nonce   string `json:"nonce"`
	Proof   string `json:"proof"`
}

func forgeFrames(t *trial) {
	if !guestAnswers() {
		t.skip(noGuestMessage)
		return
	}
	hello := forgedHello{Version: link.HighestVersion, Nonce: link.RandomHex(nonceSize), Proof: link.RandomHex(proofSize)}
	forged, _ := frame.AppendJSON(nil, frame.Hello, 0, hello)
	t.forge("HELLO with a wrong proof", forged)
	command := map[string]any{"op": "run", "process_id": "forged", "argv": []string{"true"}}
	open, _ := frame.AppendJSON(nil, frame.Open, forgedChannel, command)
	t.forge("OPEN without a handshake", open)
	t.forge("HELLO with a wrong proof, then OPEN", append(forged, open...))
	t.forge("bytes that are no frame", []byte(strings.Repeat("\xff", 4<<10)))
}

// forge sends frames to a guest and looks whether it answers any of them.
func (t *trial) forge(what string, frames []byte) {
	conn, err := net.DialTimeout("unix", guestSocket, guestPatience)
	if err != nil {
		t.refuse("%s: %v", what, reason(err))
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(guestPatience))
	decoder := frame.NewDecoder(conn)
	if _, err := decoder.Next(); err != nil {
		t.refuse("%s: %v", what, reason(err))
		return
	}
	_, _ = conn.Write(frames)
	reply, err := decoder.Next()
	switch {
	case err == nil:
		t.pass("%s: the guest answered with a frame of type %d", what, reply.Type)
	case errors.Is(err, os.ErrDeadlineExceeded):
		t.pass("%s: the guest kept the link open", what)
	default:
		t.refuse("%s: the guest closed the link", what)
	}
}

// guestAnswers tells whether the guest of this place greets a new connection.
func guestAnswers() bool {
	conn, err := net.DialTimeout("unix", guestSocket, guestPatience)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(guestPatience))
	_, err = io.ReadFull(conn, make([]byte, frame.HeaderSize))
	return err == nil
}

func takeSocket(t *trial) {
	if !guestAnswers() {
		t.skip(noGuestMessage)
		return
	}
	listener, err := net.Listen("unix", guestSocket)
	if err != nil {
		t.refuse("bind %s: %v", guestSocket, reason(err))
		return
	}
	listener.Close()
	t.pass("bind %s: allowed", guestSocket)
}

func replaceGuest(t *trial) {
	program, err := os.Readlink(selfRun)
	if err != nil || guestRole(1) != "serve" {
		t.skip("the guest is not PID 1 here")
		return
	}
	dir := filepath.Dir(program)
	t.make(dir)
	t.open(program, syscall.O_WRONLY)
	copied := filepath.Join(dir, fmt.Sprintf("agentic-probe-%d", os.Getpid()))
	err = os.Link(program, copied)
	if err == nil {
		_ = os.Remove(copied)
	}
	t.answer("link in "+dir, err)
	if info, err := os.Stat(program); err == nil {
		t.answer("chmod "+program, os.Chmod(program, info.Mode()))
	}
}

func otherSignals() []syscall.Signal {
	var signals []syscall.Signal
	for number := syscall.Signal(1); number <= highestSignal; number++ {
		if number != syscall.SIGKILL && number != syscall.SIGSTOP {
			signals = append(signals, number)
		}
	}
	return signals
}

// signalInit sends signals only where PID 1 is the guest of this very place, never to a machine's own.
func signalInit(t *trial, signals ...syscall.Signal) {
	if guestRole(1) != "serve" || !guestAnswers() {
		t.skip("PID 1 is no guest")
		return
	}
	for _, signal := range signals {
		// Told beforehand: a guest that ends takes this process with it.
		fmt.Fprintf(os.Stderr, "signal %d\n", int(signal))
		err := syscall.Kill(1, signal)
		time.Sleep(settleAfter)
		switch {
		case !guestAnswers():
			t.pass("signal %d: PID 1 no longer answers", int(signal))
			return
		case err != nil:
			t.refuse("signal %d: %v", int(signal), err)
		default:
			t.refuse("signal %d: PID 1 still answers", int(signal))
		}
	}
}

// stopSupervisors stops this process's own shim too. It is for a workspace of its own, and for the caller to judge.
func stopSupervisors(t *trial) {
	if guestRole(1) != "serve" || !guestAnswers() {
		t.skip("PID 1 is no guest")
		return
	}
	for _, pid := range processes() {
		if role := guestRole(pid); role == "shim" || role == "bridge" {
			t.answer(fmt.Sprintf("SIGSTOP to %s %d", role, pid), syscall.Kill(pid, syscall.SIGSTOP))
		}
	}
}
