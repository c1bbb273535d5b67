package process

import "math/bits"

const wordBits = 64

// bitset has a bit for each byte of a ring.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+wordBits-1)/wordBits) }

func (b bitset) has(i int) bool { return b[i/wordBits]>>(i%wordBits)&1 != 0 }

func (b bitset) set(i int) { b[i/wordBits] |= 1 << (i % wordBits) }

// fill gives all bits from one to another, without that, a value.
func (b bitset) fill(from, to int, value bool) {
	for from < to {
		word, first := from/wordBits, from%wordBits
		n := min(wordBits-first, to-from)
		mask := ^uint64(0) >> (wordBits - n) << first
		if value {
			b[word] |= mask
		} else {
			b[word] &^= mask
		}
		from += n
	}
}

// next returns the first bit that is set from one to another, without that, and the latter where there is none.
func (b bitset) next(from, to int) int {
	for from < to {
		word, first := from/wordBits, from%wordBits
		if left := b[word] >> first; left != 0 {
			return min(from+bits.TrailingZeros64(left), to)
		}
		from += wordBits - first
	}
	return to
}
