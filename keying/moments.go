package keying

import "time"

// Dates and times have one canonical form where a value has only one meaning: a date
// as days, a time as microseconds since 1970, both in the years 1 to 9999. Of texts
// those in ISO form are taken, which read the same under every DateStyle. Words
// (infinity, today) and eras have no canonical form.

// moment takes a Go time for the column's type. Which of its fields pgx sends for date
// and timestamp depends on the exec mode: those of its own location where the
// parameter's type is known, those in UTC where the value is a text. So they must be
// the same. In all of them pgx cuts off what is less than a microsecond.
func (p *part) moment(h rowHash, t time.Time, d doubt) (rowHash, bool) {
	// As the parameter of another of these types the value would be compared by
	// what the session's TimeZone makes of it.
	if d&inferred != 0 {
		return h, false
	}
	utc := t.UTC()
	if utc.Year() < 1 || utc.Year() > 9999 {
		return h, false
	}
	switch p.class {
	case dateClass:
		y, m, day := t.Date()
		if uy, um, ud := utc.Date(); y != uy || m != um || day != ud {
			return h, false
		}
		return h.word(uint64(days(y, int(m), day))), true
	case timestampClass:
		if _, offset := t.Zone(); offset != 0 {
			return h, false
		}
	case timestamptzClass:
	default:
		return h, false
	}
	return p.microseconds(h, utc.Unix()*1e6+int64(utc.Nanosecond()/1000))
}

// microseconds: a column of timestamp(0) rounds what is stored in it, and the catalog
// does not say which columns do. All of them keep whole seconds.
func (p *part) microseconds(h rowHash, n int64) (rowHash, bool) {
	if p.stored && n%1e6 != 0 {
		return h, false
	}
	return h.word(uint64(n)), true
}

// momentText takes a text in ISO form: of a timestamptz with the offset, without
// which it is a time in the session's TimeZone, of the others without one.
func (p *part) momentText(h rowHash, s string, d doubt) (rowHash, bool) {
	if d&inferred != 0 {
		return h, false
	}
	day, rest, ok := isoDate(s)
	if !ok {
		return h, false
	}
	if p.class == dateClass {
		return h.word(uint64(day)), rest == ""
	}
	clock, rest, ok := isoClock(rest)
	if !ok {
		return h, false
	}
	n := day*86400e6 + clock
	if p.class == timestamptzClass {
		offset, ok := isoOffset(rest)
		if !ok {
			return h, false
		}
		n -= offset * 1e6
		if y := time.UnixMicro(n).UTC().Year(); y < 1 || y > 9999 {
			return h, false
		}
	} else if rest != "" {
		return h, false
	}
	return p.microseconds(h, n)
}

// days since 1970.
func days(year, month, day int) int64 {
	return time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC).Unix() / 86400
}

// isoDate reads YYYY-MM-DD. A year of four digits that comes first is a year under
// every DateStyle, and the month comes next.
func isoDate(s string) (day int64, rest string, ok bool) {
	if len(s) < 10 || s[4] != '-' || s[7] != '-' {
		return 0, "", false
	}
	century, ok1 := twoDigits(s[0:])
	y, ok2 := twoDigits(s[2:])
	m, ok3 := twoDigits(s[5:])
	d, ok4 := twoDigits(s[8:])
	y += 100 * century
	if !ok1 || !ok2 || !ok3 || !ok4 || y < 1 || m < 1 || m > 12 || d < 1 {
		return 0, "", false
	}
	// What is no date, February 30, is another one to package time.
	t := time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC)
	return t.Unix() / 86400, s[10:], t.Day() == d
}

// isoClock reads " HH:MM:SS", with T for the blank perhaps, and as many as six
// digits of a fraction: PostgreSQL rounds more. 24:00 and leap seconds have another
// spelling, which is taken.
func isoClock(s string) (micros int64, rest string, ok bool) {
	if len(s) < 9 || s[0] != ' ' && s[0] != 'T' || s[3] != ':' || s[6] != ':' {
		return 0, "", false
	}
	hour, ok1 := twoDigits(s[1:])
	minute, ok2 := twoDigits(s[4:])
	second, ok3 := twoDigits(s[7:])
	if !ok1 || !ok2 || !ok3 || hour > 23 || minute > 59 || second > 59 {
		return 0, "", false
	}
	micros = int64(hour*3600+minute*60+second) * 1e6
	s = s[9:]
	if s == "" || s[0] != '.' {
		return micros, s, true
	}
	i := 1
	for unit := int64(1e5); i < len(s) && '0' <= s[i] && s[i] <= '9'; unit /= 10 {
		if unit == 0 {
			return 0, "", false
		}
		micros += int64(s[i]-'0') * unit
		i++
	}
	return micros, s[i:], i > 1
}

// isoOffset reads Z, ±HH, ±HH:MM or ±HH:MM:SS, in seconds east of UTC.
func isoOffset(s string) (seconds int64, ok bool) {
	if s == "Z" {
		return 0, true
	}
	if len(s) != 3 && len(s) != 6 && len(s) != 9 || s[0] != '+' && s[0] != '-' {
		return 0, false
	}
	unit := int64(3600)
	for i := 0; i < len(s); i += 3 {
		n, ok := twoDigits(s[i+1:])
		if !ok || i == 0 && n > 15 || i > 0 && (n > 59 || s[i] != ':') { // more is none to PostgreSQL
			return 0, false
		}
		seconds += int64(n) * unit
		unit /= 60
	}
	if s[0] == '-' {
		seconds = -seconds
	}
	return seconds, true
}

// twoDigits reads the first two bytes of s, which has them.
func twoDigits(s string) (int, bool) {
	if s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9' {
		return 0, false
	}
	return int(s[0]-'0')*10 + int(s[1]-'0'), true
}
