package link

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"agentic-isolation/guest/internal/frame"
)

// service is a Service made of a function.
type service func(ch *Channel, op string) func()

func (s service) Open(ch *Channel, op string, _ []byte) func() { return s(ch, op) }

type peer struct {
	t       *testing.T
	conn    net.Conn
	decoder *frame.Decoder
	served  chan error
}

func connect(t *testing.T, s service) *peer {
	t.Helper()
	ours, theirs := net.Pipe()
	id := &Identity{WorkspaceID: "w", BootID: "b", Version: "v", Key: make([]byte, 32)}
	p := &peer{t: t, conn: ours, decoder: frame.NewDecoder(ours), served: make(chan error, 1)}
	admitted := make(chan struct{})
	go func() { p.served <- New(theirs, s).Serve(id, func() { close(admitted) }) }()
	var hello guestHello
	if err := json.Unmarshal(p.next(frame.Hello).Payload, &hello); err != nil {
		t.Fatal(err)
	}
	nonce := RandomHex(nonceSize)
	answer := serviceHello{Version: 1, Nonce: nonce, Proof: hex.EncodeToString(proof(id.Key, "service", hello.Nonce, nonce))}
	if err := send(ours, answer); err != nil {
		t.Fatal(err)
	}
	select {
	case <-admitted: // before the peer is told
	case <-time.After(10 * time.Second):
		t.Fatal("who has proved itself is not admitted")
	}
	p.next(frame.Hello)
	t.Cleanup(func() { ours.Close() })
	return p
}

func (p *peer) next(want frame.Type) frame.Frame {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	f, err := p.decoder.Next()
	if err != nil || f.Type != want {
		p.t.Fatalf("type %v, %v; want type %v", f.Type, err, want)
	}
	return f
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func open(channel uint32) []byte { return frame.Append(nil, frame.Open, channel, []byte(`{"op":"x"}`)) }

func TestCreditIsObeyed(t *testing.T) {
	p := connect(t, func(ch *Channel, _ string) func() {
		return func() {
			chunk := make([]byte, frame.MaxData)
			for range 6 {
				if err := ch.AwaitCredit(); err != nil {
					t.Error(err)
				}
				if err := ch.SendData(chunk); err != nil {
					t.Error(err)
				}
			}
			ch.Result(struct{}{})
		}
	})
	p.write(open(1))
	for range Window / frame.MaxData {
		p.next(frame.Data)
	}
	p.write(frame.Append(nil, frame.Ping, 0, nil))
	p.next(frame.Pong)
	p.write(frame.AppendCredit(nil, 1, 1))
	p.next(frame.Data)
	p.write(frame.Append(nil, frame.Ping, 0, nil))
	p.next(frame.Pong)
	p.write(frame.AppendCredit(nil, 1, frame.MaxData))
	p.next(frame.Data)
	p.next(frame.Result)
}

func TestCreditCannotOverflow(t *testing.T) {
	ch := newChannel(New(nil, nil), 1)
	ch.credit.Store(maxCredit - 5)
	ch.addCredit(1<<32 - 1)
	if ch.credit.Load() != maxCredit {
		t.Fatal(ch.credit.Load())
	}
}

func TestNothingFollowsTheEndOfAChannel(t *testing.T) {
	p := connect(t, func(ch *Channel, _ string) func() {
		ch.AcceptData()
		return func() {
			data, err := ch.Receive(nil)
			if err != nil || string(data) != "x" {
				t.Error(string(data), err)
			}
			ch.Result(struct{}{})
			ch.Grant(1)
			if _, err := ch.Receive(nil); !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		}
	})
	p.write(append(open(1), frame.Append(nil, frame.Data, 1, []byte("x"))...))
	p.next(frame.Result)
	p.write(frame.Append(nil, frame.Ping, 0, nil))
	p.next(frame.Pong)
	p.write(open(1))
	p.write(frame.Append(nil, frame.Data, 1, []byte("x")))
	p.next(frame.Result)
}

func TestPanicEndsTheLinkOnly(t *testing.T) {
	p := connect(t, func(*Channel, string) func() {
		return func() { panic("a mistake") }
	})
	p.write(open(1))
	if _, err := p.decoder.Next(); err != io.EOF {
		t.Fatal(err)
	}
	<-p.served
}

func TestNoGoroutineOutlivesItsLink(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 20 {
		p := connect(t, func(ch *Channel, _ string) func() {
			ch.AcceptData()
			return func() {
				_, err := ch.Receive(nil)
				ch.Fail(err)
			}
		})
		for channel := range uint32(20) {
			p.write(open(channel + 1))
		}
		p.conn.Close()
		<-p.served
	}
	for limit := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(limit) {
			t.Fatalf("%d goroutines where there were %d", runtime.NumGoroutine(), before)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestPeerThatDoesNotReadItsAnswersLosesTheLink(t *testing.T) {
	p := connect(t, func(*Channel, string) func() { return nil })
	ping := frame.Append(nil, frame.Ping, 0, make([]byte, 64))
	batch := make([]byte, 0, 1000*len(ping))
	for range 1000 {
		batch = append(batch, ping...)
	}
	for range 1000 {
		if _, err := p.conn.Write(batch); err != nil {
			return
		}
	}
	t.Fatal("72 MB of answers are kept")
}
