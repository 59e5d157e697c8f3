package keying

// maxDecimal bounds the text of a number that is worth a canonical form.
const maxDecimal = 200

// decimal takes a number in decimal digits, with a minus and a point perhaps: to
// PostgreSQL 1.0 = 1.00 = 01. Its form is the sign, the digits between the first and
// the last that are not zero, and the power of ten of the last. NaN, the
// infinities and what has an exponent have none.
//
// numeric(5,1) rounds what is stored, numeric(5,-1) integers too, and the catalog does
// not say which columns do. If the type of a parameter comes from elsewhere in the
// text it may be float8, in which neighbours are equal.
func (p *part) decimal(h rowHash, s string, negative bool, d doubt) (rowHash, bool) {
	if p.class != numericClass || p.stored || d&inferred != 0 || len(s) > maxDecimal {
		return h, false
	}
	if len(s) > 0 && s[0] == '-' {
		s, negative = s[1:], !negative
	}
	digits, whole := 0, -1 // digits in all, and before the point
	first, last := -1, 0   // positions among the digits
	for _, c := range []byte(s) {
		switch {
		case c == '.' && whole < 0:
			whole = digits
			continue
		case c < '0' || c > '9':
			return h, false
		case c != '0':
			if first < 0 {
				first = digits
			}
			last = digits
		}
		digits++
	}
	switch {
	case digits == 0:
		return h, false
	case first < 0:
		return h.word(0), true
	case whole < 0:
		whole = digits
	}
	sign := uint64(0)
	if negative {
		sign = 1
	}
	h = h.word(uint64(int64(whole-1-last))<<1 | sign).word(uint64(last - first + 1))
	word, filled, at := uint64(0), 0, 0
	for _, c := range []byte(s) {
		if c == '.' {
			continue
		}
		if first <= at && at <= last {
			word = word*10 + uint64(c-'0')
			if filled++; filled == 18 {
				h, word, filled = h.word(word), 0, 0
			}
		}
		at++
	}
	return h.word(word), true
}
