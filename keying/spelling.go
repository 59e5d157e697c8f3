package keying

import (
	"strconv"
	"strings"
)

// strictInteger reads a decimal integer that has no other spelling: no plus, no
// blanks, no leading zeros, no minus zero.
func strictInteger(s string) (int64, bool) {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || len(digits) > 19 || digits[0] == '0' && s != "0" {
		return 0, false
	}
	for i := 0; i < len(digits); i++ {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// parseUUID reads the two common spellings, in any case.
func parseUUID(s string) (u [16]byte, ok bool) {
	switch len(s) {
	case 36:
		if s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
			return u, false
		}
	case 32:
	default:
		return u, false
	}
	n := 0
	for i := 0; i < len(s); i++ {
		if len(s) == 36 && (i == 8 || i == 13 || i == 18 || i == 23) {
			continue
		}
		d, ok := hexDigit(s[i])
		if !ok {
			return u, false
		}
		u[n/2] = u[n/2]<<4 | d
		n++
	}
	return u, n == 32
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
