package redact

import (
	"bytes"
	"strings"
	"testing"
)

// stream redacts pieces.
func stream(values []string, pieces ...string) string {
	s := NewStream(New(values))
	var out []byte
	for _, piece := range pieces {
		out = s.Append(out, []byte(piece))
	}
	return string(s.Flush(out))
}

func TestRedact(t *testing.T) {
	for _, test := range []struct {
		values []string
		pieces []string
		want   string
	}{
		{[]string{"secret"}, []string{"a secret, a secre", "t, a secre"}, "a ***, a ***, a secre"},
		{[]string{"secret"}, []string{"s", "e", "c", "r", "e", "t"}, "***"},
		{[]string{"abc", "abcdef"}, []string{"abcabcdefabcde"}, "******" + "***de"},
		{[]string{"abcdef", "cd"}, []string{"abc", "dex abcdef"}, "ab***ex ***"},
		{[]string{"aa"}, []string{"a", "aa", "aaa"}, "*********"},
		{[]string{"one\ntwo"}, []string{"x one\n", "two one\nthree"}, "x *** one\nthree"},
		{[]string{"*", "***"}, []string{"**"}, "******"},
		{[]string{"", "x"}, []string{"axb"}, "a***b"},
		{[]string{"\xff\x00"}, []string{"\xff", "\x00\xff"}, "***\xff"},
	} {
		if got := stream(test.values, test.pieces...); got != test.want {
			t.Errorf("%q in %q: %q, want %q", test.values, test.pieces, got, test.want)
		}
	}
	if New(nil) != nil || New([]string{""}) != nil {
		t.Error("nothing to replace")
	}
}

func TestNoMoreIsHeldThanMayBeAValue(t *testing.T) {
	s := NewStream(New([]string{"key-0123456789"}))
	if out := s.Append(nil, []byte("prompt> ")); string(out) != "prompt> " {
		t.Fatalf("%q", out)
	}
	if out := s.Append(nil, []byte("key-5 key-")); string(out) != "key-5 " || cap(s.held) > 64 {
		t.Fatalf("%q, %d held", out, cap(s.held))
	}
	for range 1000 {
		s.Append(nil, bytes.Repeat([]byte("key-"), 1000))
	}
	if len(s.held) > len("key-0123456789") {
		t.Fatal(len(s.held))
	}
}

// FuzzSplit checks that a stream comes out the same however it is split, and as one that is searched as a whole.
func FuzzSplit(f *testing.F) {
	f.Add("secret\x00sec\x00et", "a secret set", uint16(0x5a5a))
	f.Add("aa\x00aaa", "aaaaaaaa", uint16(1))
	f.Add("\n\x00a\nb", "a\na\nb", uint16(7))
	f.Fuzz(func(t *testing.T, joined, text string, cuts uint16) {
		values := strings.Split(joined, "\x00")
		if New(values) == nil {
			return
		}
		want := whole(values, text)
		var pieces []string
		from := 0
		for i := range len(text) {
			if cuts>>(i%16)&1 == 1 {
				pieces = append(pieces, text[from:i])
				from = i
			}
		}
		if got := stream(values, append(pieces, text[from:])...); got != want {
			t.Fatalf("%q in %q cut by %#x: %q, want %q", values, text, cuts, got, want)
		}
	})
}

// whole redacts a text by looking at each place for each value.
func whole(values []string, text string) string {
	var out strings.Builder
	for text != "" {
		longest := 0
		for _, value := range values {
			if strings.HasPrefix(text, value) {
				longest = max(longest, len(value))
			}
		}
		if longest > 0 {
			out.WriteString(Mark)
			text = text[longest:]
			continue
		}
		out.WriteByte(text[0])
		text = text[1:]
	}
	return out.String()
}
