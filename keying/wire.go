package keying

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/cachedpg/cachedpg/store"
)

// textFormat is that of a value in its text form; the other one is binary.
const textFormat = 0

// wire mixes in a value that PostgreSQL has sent. other says that a text may be in
// another encoding than the arguments are.
func (p *part) wire(h rowHash, c store.Column, b []byte, other bool) (rowHash, bool) {
	switch p.class {
	case textClass, bpcharClass:
		var d doubt
		if other {
			d = encoded
		}
		return p.text(h, string(b), d)
	}
	if c.Format == textFormat {
		return p.wireText(h, string(b))
	}
	switch p.class {
	case intClass:
		switch len(b) {
		case 2:
			return h.word(uint64(int64(int16(binary.BigEndian.Uint16(b))))), true
		case 4:
			return h.word(uint64(int64(int32(binary.BigEndian.Uint32(b))))), true
		case 8:
			return h.word(binary.BigEndian.Uint64(b)), true
		}
	case oidClass:
		if len(b) == 4 {
			return h.word(uint64(binary.BigEndian.Uint32(b))), true
		}
	case uuidClass:
		if len(b) == 16 {
			return h.uuid((*[16]byte)(b)), true
		}
	case boolClass:
		if len(b) == 1 {
			return p.boolean(h, b[0] != 0)
		}
	case dateClass:
		if len(b) == 4 {
			return wireDate(h, int64(int32(binary.BigEndian.Uint32(b))))
		}
	case timestampClass, timestamptzClass:
		if len(b) == 8 {
			return wireMoment(h, int64(binary.BigEndian.Uint64(b)))
		}
	case numericClass:
		return p.wireNumeric(h, b)
	}
	return h, false
}

// wireText takes the text form, as far as it does not depend on the session.
func (p *part) wireText(h rowHash, s string) (rowHash, bool) {
	switch p.class {
	case intClass, oidClass:
		n, err := strconv.ParseInt(s, 10, 64)
		return h.word(uint64(n)), err == nil
	case boolClass:
		return p.boolean(h, s == "t")
	case uuidClass, numericClass:
		return p.text(h, s, 0)
	}
	return h, false
}

// PostgreSQL counts from 2000-01-01, which is so many days after 1970-01-01.
const epoch = 10957

// The first and the last day of the years 1 to 9999, since 1970: infinity and eras are beyond.
const (
	firstDay = -719162
	lastDay  = 2932896
)

func wireDate(h rowHash, days int64) (rowHash, bool) {
	days += epoch
	return h.word(uint64(days)), firstDay <= days && days <= lastDay
}

func wireMoment(h rowHash, micros int64) (rowHash, bool) {
	const day = 86400e6
	if micros < (firstDay-epoch)*day || micros >= (lastDay+1-epoch)*day {
		return h, false
	}
	return h.word(uint64(micros + epoch*day)), true
}

// wireNumeric takes the binary form of numeric: how many digits of base 10,000 there are, the
// weight of the first one, the sign, the scale, and the digits.
func (p *part) wireNumeric(h rowHash, b []byte) (rowHash, bool) {
	if len(b) < 8 {
		return h, false
	}
	n, weight := int(binary.BigEndian.Uint16(b)), int(int16(binary.BigEndian.Uint16(b[2:])))
	sign := binary.BigEndian.Uint16(b[4:])
	if sign != 0 && sign != 0x4000 || len(b) != 8+2*n || 4*(n+max(weight, -weight)) > maxDecimal {
		return h, false
	}
	var digits strings.Builder
	for i := range n {
		digits.WriteString(strconv.Itoa(10000 + int(binary.BigEndian.Uint16(b[8+2*i:])))[1:])
	}
	text, point := digits.String(), 4*(weight+1)
	switch {
	case point < 0:
		text = "0." + strings.Repeat("0", -point) + text
	case point < len(text):
		text = "0" + text[:point] + "." + text[point:]
	default:
		text = "0" + text + strings.Repeat("0", point-len(text))
	}
	return p.decimal(h, text, sign != 0, 0)
}
