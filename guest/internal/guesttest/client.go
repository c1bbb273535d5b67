package guesttest

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/link"
)

// Client is the service's end of a link.
type Client struct {
	t    testing.TB
	Conn net.Conn
	// BootID is what the guest told in the handshake.
	BootID string

	mu       sync.Mutex
	next     uint32
	channels map[uint32]*Channel
	// announced is the latest EVENT of channel 0.
	announced map[string]any
	pongs     chan []byte
	writing   sync.Mutex
	// Ended is closed when the guest has closed the link.
	Ended chan struct{}
}

// Channel is the service's end of a channel. Its methods are for one goroutine.
type Channel struct {
	client *Client
	ID     uint32
	frames *queue
	// Manual keeps the channel from granting credit for what it has taken.
	Manual bool
}

// Raw connects without a handshake.
func (g *Guest) Raw() net.Conn {
	g.t.Helper()
	conn, err := net.Dial("unix", g.Socket)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { conn.Close() })
	return conn
}

// Connect connects and performs the handshake for the latest version.
func (g *Guest) Connect() *Client {
	g.t.Helper()
	return g.ConnectBy(link.HighestVersion)
}

// ConnectBy connects and performs the handshake for a version.
func (g *Guest) ConnectBy(version int) *Client {
	g.t.Helper()
	c := &Client{
		t: g.t, Conn: g.Raw(), channels: map[uint32]*Channel{}, pongs: make(chan []byte, 16), Ended: make(chan struct{}),
	}
	decoder := frame.NewDecoder(c.Conn)
	var hello struct{ Nonce string }
	c.hello(decoder, &hello)
	nonce := "000102030405060708090a0b0c0d0e0f"
	c.write(jsonFrame(frame.Hello, 0, map[string]any{
		"version": version, "nonce": nonce, "proof": Proof(Key, "service", hello.Nonce, nonce),
	}))
	var welcome struct {
		WorkspaceID string `json:"workspace_id"`
		BootID      string `json:"boot_id"`
		Proof       string
	}
	c.hello(decoder, &welcome)
	if welcome.WorkspaceID != "ws-test" || welcome.Proof != Proof(Key, "guest", hello.Nonce, nonce) {
		g.t.Fatalf("the guest's proof is wrong: %+v", welcome)
	}
	c.BootID = welcome.BootID
	go c.read(decoder)
	return c
}

func (c *Client) hello(decoder *frame.Decoder, v any) {
	c.t.Helper()
	f, err := decoder.Next()
	if err != nil || f.Type != frame.Hello || json.Unmarshal(f.Payload, v) != nil {
		c.t.Fatalf("no HELLO: %v %v", f, err)
	}
}

func jsonFrame(t frame.Type, channel uint32, v any) []byte {
	b, err := frame.AppendJSON(nil, t, channel, v)
	if err != nil {
		panic(err)
	}
	return b
}

func (c *Client) write(b []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, _ = c.Conn.Write(b)
}

func (c *Client) read(decoder *frame.Decoder) {
	defer close(c.Ended)
	for {
		f, err := decoder.Next()
		if err != nil {
			c.mu.Lock()
			for _, ch := range c.channels {
				ch.frames.close()
			}
			c.channels = nil
			c.mu.Unlock()
			return
		}
		f.Payload = append([]byte(nil), f.Payload...)
		if f.Type == frame.Pong {
			c.pongs <- f.Payload
			continue
		}
		if f.Type == frame.Event && f.Channel == 0 {
			c.announce(f.Payload)
			continue
		}
		c.mu.Lock()
		ch := c.channels[f.Channel]
		if f.Type == frame.Result || f.Type == frame.Error {
			delete(c.channels, f.Channel)
		}
		c.mu.Unlock()
		if ch == nil {
			c.t.Errorf("frame %v for channel %d, which is not open", f.Type, f.Channel)
			continue
		}
		ch.frames.put(f)
	}
}

func (c *Client) announce(raw []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := json.Unmarshal(raw, &c.announced); err != nil {
		c.t.Errorf("an EVENT %q: %v", raw, err)
	}
}

// Announced is the latest EVENT of channel 0 that has come so far.
func (c *Client) Announced() map[string]any {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.announced
}

// Ping waits for the answer to a PING.
func (c *Client) Ping(payload string) {
	c.t.Helper()
	c.write(frame.Append(nil, frame.Ping, 0, []byte(payload)))
	select {
	case b := <-c.pongs:
		if string(b) != payload {
			c.t.Fatalf("PONG %q", b)
		}
	case <-time.After(Patience):
		c.t.Fatal("no PONG")
	}
}

// Open opens a channel.
func (c *Client) Open(op string, members map[string]any) *Channel {
	c.mu.Lock()
	c.next++
	ch := &Channel{client: c, ID: c.next, frames: newQueue()}
	if c.channels == nil {
		ch.frames.close()
	} else {
		c.channels[ch.ID] = ch
	}
	c.mu.Unlock()
	request := map[string]any{"op": op}
	for k, v := range members {
		request[k] = v
	}
	c.write(jsonFrame(frame.Open, ch.ID, request))
	return ch
}

// Expect makes ready for frames of a channel that the test opens by bytes of its own.
func (c *Client) Expect(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.channels != nil {
		c.channels[id] = &Channel{client: c, ID: id, frames: newQueue()}
	}
}

// Next returns the next frame; false when the link has ended.
func (ch *Channel) Next() (frame.Frame, bool) {
	ch.client.t.Helper()
	f, ok, late := ch.frames.take()
	if late {
		ch.client.t.Fatalf("nothing comes on channel %d", ch.ID)
	}
	isData := f.Type == frame.Data || f.Type == frame.Stdout || f.Type == frame.Stderr
	if ok && isData && !ch.Manual {
		ch.Grant(len(f.Payload))
	}
	return f, ok
}

// Grant sends CREDIT.
func (ch *Channel) Grant(n int) {
	ch.client.write(frame.AppendCredit(nil, ch.ID, uint32(n)))
}

// Send sends DATA, within the first window.
func (ch *Channel) Send(b []byte) {
	for len(b) > 0 {
		n := min(len(b), frame.MaxData)
		ch.client.write(frame.Append(nil, frame.Data, ch.ID, b[:n]))
		b = b[n:]
	}
}

// End sends END.
func (ch *Channel) End() { ch.client.write(frame.Append(nil, frame.End, ch.ID, nil)) }

// EndWith sends END that says what the data comes to.
func (ch *Channel) EndWith(claim string) {
	ch.client.write(frame.Append(nil, frame.End, ch.ID, []byte(claim)))
}

// Close sends CLOSE.
func (ch *Channel) Close() { ch.client.write(frame.Append(nil, frame.Close, ch.ID, nil)) }

// Outcome is all that came on a channel.
type Outcome struct {
	Stdout, Stderr, Data []byte
	Events               []map[string]any
	Gap                  uint64
	Result               map[string]any
	Err                  *fault.Error
	Frames               []frame.Frame
}

// Finish reads the channel to its end.
func (ch *Channel) Finish() *Outcome {
	ch.client.t.Helper()
	o := &Outcome{}
	for !o.add(ch) {
	}
	return o
}

func (o *Outcome) add(ch *Channel) (done bool) {
	t := ch.client.t
	t.Helper()
	f, ok := ch.Next()
	if !ok {
		t.Fatalf("the link ended under channel %d", ch.ID)
	}
	switch f.Type {
	case frame.Stdout:
		o.Stdout = append(o.Stdout, f.Payload...)
		o.Frames = append(o.Frames, f)
	case frame.Stderr:
		o.Stderr = append(o.Stderr, f.Payload...)
		o.Frames = append(o.Frames, f)
	case frame.Data:
		o.Data = append(o.Data, f.Payload...)
	case frame.Gap:
		o.Gap += binary.BigEndian.Uint64(f.Payload)
	case frame.Event:
		o.Events = append(o.Events, object(t, f.Payload))
	case frame.Result:
		o.Result = object(t, f.Payload)
		return true
	case frame.Error:
		o.Err = &fault.Error{}
		if err := json.Unmarshal(f.Payload, o.Err); err != nil {
			t.Fatal(err)
		}
		return true
	}
	return false
}

// AwaitEvent returns the next frame, which must be an EVENT.
func (ch *Channel) AwaitEvent() map[string]any {
	ch.client.t.Helper()
	f, ok := ch.Next()
	if !ok || f.Type != frame.Event {
		ch.client.t.Fatalf("no event but %v %q", f.Type, f.Payload)
	}
	return object(ch.client.t, f.Payload)
}

// AwaitOutput reads until stdout and stderr together hold at least n bytes.
func (ch *Channel) AwaitOutput(n int) *Outcome {
	ch.client.t.Helper()
	o := &Outcome{}
	for len(o.Stdout)+len(o.Stderr) < n {
		if o.add(ch) {
			ch.client.t.Fatalf("ended after %d bytes: %+v %v", len(o.Stdout)+len(o.Stderr), o.Result, o.Err)
		}
	}
	return o
}

func object(t testing.TB, raw []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// Do opens a channel and reads it to its end.
func (c *Client) Do(op string, members map[string]any) *Outcome {
	c.t.Helper()
	return c.Open(op, members).Finish()
}

// AwaitEnd fails the test when the guest does not close the link.
func (c *Client) AwaitEnd() {
	c.t.Helper()
	select {
	case <-c.Ended:
	case <-time.After(Patience):
		c.t.Fatal("the link does not end")
	}
}

// ReadToEnd reads a raw connection until the guest closes it.
func ReadToEnd(t testing.TB, conn net.Conn) []byte {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(Patience))
	b, err := io.ReadAll(conn)
	if err != nil && !isReset(err) {
		t.Fatalf("the guest does not close the connection: %v", err)
	}
	return b
}

// SendAll sends DATA of any length, as far and as fast as credit comes, and returns the credit that is left of the first
// window and all that has come since.
func (ch *Channel) SendAll(b []byte, credit int) (left int) {
	ch.client.t.Helper()
	for len(b) > 0 {
		for credit <= 0 {
			f, ok := ch.Next()
			if !ok || f.Type != frame.Credit {
				ch.client.t.Fatalf("no credit but %v %q", f.Type, f.Payload)
			}
			credit += int(binary.BigEndian.Uint32(f.Payload))
		}
		n := min(len(b), frame.MaxData)
		ch.Send(b[:n])
		b = b[n:]
		credit -= n
	}
	return credit
}
