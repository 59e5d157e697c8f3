package catalog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// text returns b as a string that is shared with its equals: names repeat.
func (l *loader) text(b []byte) string {
	s, ok := l.interned[string(b)]
	if !ok {
		s = string(b)
		l.interned[s] = s
	}
	return s
}

func (l *loader) oid(b []byte) uint32 {
	n, err := strconv.ParseUint(string(b), 10, 32)
	if err != nil {
		l.fail("oid", b)
	}
	return uint32(n)
}

func (l *loader) int16(b []byte) int16 {
	n, err := strconv.ParseInt(string(b), 10, 16)
	if err != nil {
		l.fail("int2", b)
	}
	return int16(n)
}

func (l *loader) int64(b []byte) int64 {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		l.fail("int8", b)
	}
	return n
}

func (l *loader) numbers(b []byte) []int16 {
	var n []int16
	for s := range strings.SplitSeq(string(b), ",") {
		n = append(n, l.int16([]byte(s)))
	}
	return n
}

func (l *loader) bool(b []byte) bool {
	if s := string(b); s != "true" && s != "false" {
		l.fail("bool", b)
	}
	return string(b) == "true"
}

// char returns a "char" as text, which is empty for 0.
func char(b []byte) byte {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

// action keeps what changes rows.
func action(b []byte) Action {
	switch a := Action(char(b)); a {
	case Cascade, SetNull, SetDefault:
		return a
	}
	return NoAction
}

func (l *loader) fail(what string, b []byte) {
	if l.err == nil {
		l.err = fmt.Errorf("unexpected %s %q", what, b)
	}
}

// columnIndex returns the position of an attribute number, or -1.
func columnIndex(columns []Column, number int16) int {
	return slices.IndexFunc(columns, func(c Column) bool { return c.Number == number })
}
