package keying

// clockInput reports whether s, read as a value of a date or time type or as an
// array, range, row or JSON document of them, may mean a time that depends on
// the clock. PostgreSQL knows now, today, tomorrow and yesterday, in any case
// and anywhere among the other fields.
//
// It errs towards true. There is no limit on the length: PostgreSQL skips white
// space of any length, and an array holds any number of dates.
func clockInput[T string | []byte](s T) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case 'n', 'N':
			if clockWord(s, i, "now") {
				return true
			}
		case 't', 'T':
			if clockWord(s, i, "today") || clockWord(s, i, "tomorrow") {
				return true
			}
		case 'y', 'Y':
			if clockWord(s, i, "yesterday") {
				return true
			}
		case '\\':
			// JSON can spell a letter as \u006e.
			if i+2 < len(s) && s[i+1] == 'u' && s[i+2] == '0' {
				return true
			}
		}
	}
	return false
}

// clockWord reports whether the lower-case word stands at s[i:], by itself.
// Arrays, rows and ranges let quotes and backslashes stand inside a word.
func clockWord[T string | []byte](s T, i int, word string) bool {
	if i > 0 && letter(s[i-1]) && !(i > 1 && s[i-2] == '\\') {
		return false
	}
	for j := 0; j < len(word); i++ {
		if i == len(s) {
			return false
		}
		switch c := s[i]; {
		case c == '"' || c == '\\':
		case c|0x20 == word[j]:
			j++
		default:
			return false
		}
	}
	return i == len(s) || !letter(s[i])
}

// letter speaks of ASCII alone: whether other bytes are letters to PostgreSQL
// depends on the locale, so they count as boundaries of a word.
func letter(c byte) bool {
	c |= 0x20
	return 'a' <= c && c <= 'z'
}
