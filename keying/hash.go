package keying

import "encoding/binary"

// rowHash is the running hash of the canonical values of a key. It is the same
// in every process, because tags are shared through a store, so it has no
// random seed. A collision, made on purpose or not, only invalidates more.
//
// It is FNV-1a in words of eight bytes, with a shift that carries the high bits
// down. A step is a bijection of the word, so single integers never collide.
type rowHash uint64

const hashSeed rowHash = 0xcbf29ce484222325

const hashPrime = 0x9e3779b97f4a7c15

func (h rowHash) word(x uint64) rowHash {
	v := (uint64(h) ^ x) * hashPrime
	return rowHash(v ^ v>>32)
}

// bytes mixes in the length, so that ("a", "bc") and ("ab", "c") differ.
func (h rowHash) bytes(s string) rowHash {
	h = h.word(uint64(len(s)))
	for len(s) >= 8 {
		h = h.word(uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56)
		s = s[8:]
	}
	if len(s) > 0 {
		var tail uint64
		for i := 0; i < len(s); i++ {
			tail |= uint64(s[i]) << (8 * i)
		}
		h = h.word(tail)
	}
	return h
}

func (h rowHash) uuid(u *[16]byte) rowHash {
	return h.word(binary.LittleEndian.Uint64(u[:8])).word(binary.LittleEndian.Uint64(u[8:]))
}

// sum finishes the hash, as murmur3 does.
func (h rowHash) sum() uint64 {
	x := uint64(h)
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
